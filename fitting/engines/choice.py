"""Which engine fits a problem: the fastest that can, or the one that was asked for."""

from __future__ import annotations

import functools
import logging

from fitting.config import EngineName
from fitting.engines.base import Engine, FitProblem, Missing
from fitting.engines.compiled import CompiledEngine
from fitting.engines.fused import FusedEngine
from fitting.engines.gpu import GPU_ENGINES
from fitting.engines.vmapped import VmappedEngine
from nefbench.errors import ConfigError

logger = logging.getLogger(__name__)

ENGINES: tuple[Engine, ...] = (
    FusedEngine(),
    GPU_ENGINES[0],
    CompiledEngine(),
    VmappedEngine(),
    GPU_ENGINES[1],
)
"""Every engine, the fastest first; the last, less accurate, has to be asked for."""


def choose_engine(kind: EngineName, problem: FitProblem) -> Engine:
    """Return the engine of that name, or with ``auto`` the fastest that can solve the problem.

    Where ``auto`` passes over an engine for want of something to install, it says so once.

    Raises:
        ConfigError: If the engine asked for cannot solve the problem on this machine.
    """
    refusals: dict[str, None] = {}  # in order, each once: two engines share a name
    for engine in ENGINES:
        if kind not in (engine.name, "auto"):
            continue
        refusal = engine.why_not(problem)
        if refusal is None:
            return engine
        refusals[refusal] = None
        if kind == "auto" and isinstance(refusal, Missing):
            _report(engine.name, refusal)
    reasons = "; ".join(refusals)
    raise ConfigError(f"engine {kind}: {reasons}; engine = 'auto' takes one that can")


@functools.cache
def _report(name: str, refusal: str) -> None:
    """Say once per process why fits take longer than they might."""
    logger.warning("the %s engine is passed over: %s", name, refusal)
