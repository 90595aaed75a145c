"""Engines: interchangeable implementations of one fitting problem."""

from fitting.engines.base import Engine, FitProblem
from fitting.engines.vmapped import VmappedEngine, reproducible_arithmetic

__all__ = ["Engine", "FitProblem", "VmappedEngine", "reproducible_arithmetic"]
