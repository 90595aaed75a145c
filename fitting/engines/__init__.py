"""Engines: interchangeable implementations of one fitting problem."""

from fitting.engines.base import Block, Engine, FitProblem, Run
from fitting.engines.choice import ENGINES, choose_engine
from fitting.engines.fused import FusedEngine
from fitting.engines.vmapped import VmappedEngine, reproducible_arithmetic

__all__ = [
    "ENGINES",
    "Block",
    "Engine",
    "FitProblem",
    "FusedEngine",
    "Run",
    "VmappedEngine",
    "choose_engine",
    "reproducible_arithmetic",
]
