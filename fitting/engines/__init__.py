"""Engines: interchangeable implementations of one fitting problem."""

from fitting.engines.base import Block, Engine, FitProblem, losses
from fitting.engines.choice import ENGINES, choose_engine
from fitting.engines.vmapped import VmappedEngine, reproducible_arithmetic

__all__ = [
    "ENGINES",
    "Block",
    "Engine",
    "FitProblem",
    "VmappedEngine",
    "choose_engine",
    "losses",
    "reproducible_arithmetic",
]
