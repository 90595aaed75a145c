"""Which engine fits a problem: the fastest that can, or the one that was asked for."""

from __future__ import annotations

from fitting.config import EngineName
from fitting.engines.base import Engine, FitProblem
from fitting.engines.vmapped import VmappedEngine
from nefbench.errors import ConfigError

ENGINES: tuple[Engine, ...] = (VmappedEngine(),)
"""Every engine, the fastest first."""


def choose_engine(kind: EngineName, problem: FitProblem) -> Engine:
    """Return the engine of that name, or with ``auto`` the fastest that can solve the problem.

    Raises:
        ConfigError: If the engine asked for cannot solve the problem on this machine.
    """
    refusals = {engine.name: engine.why_not(problem) for engine in ENGINES}
    for engine in ENGINES:
        if kind in (engine.name, "auto") and refusals[engine.name] is None:
            return engine
    raise ConfigError(f"engine {kind}: {refusals[kind]}; engine = 'auto' takes one that can")
