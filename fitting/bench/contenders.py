"""Who is measured: every engine, and the baselines they are compared with."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fitting.bench.baselines import Jax, OneByOne
from fitting.engines import ENGINES, Block, FitProblem
from nefbench.errors import ConfigError

REFERENCE = "vmapped"
"""The engine whose losses and PSNR the others are compared with."""

ROUNDED = ("fused-tf32",)
"""Engines whose products are less exact than float32: shown, never called the fastest."""


class Contender(Protocol):
    """What is asked of an engine or a baseline; see ``fitting.engines.base.Engine``."""

    @property
    def name(self) -> str:
        """Column of the table."""

    @property
    def uses_threads(self) -> bool:
        """Whether one process keeps several cores busy."""

    def why_not(self, problem: FitProblem) -> str | None:
        """Say why it cannot solve the problem; None if it can."""

    def block_size(self, problem: FitProblem) -> int:
        """Fields at once."""

    def prepare(self, problem: FitProblem) -> None:
        """Compile."""

    def fit(self, problem: FitProblem, block: Block, *, threads: int = 1) -> Tensor:
        """Return fitted rows ``[B, P]``."""


_SLOWEST_FIRST = tuple(reversed(ENGINES))
_BY_SPEED = sorted(_SLOWEST_FIRST, key=lambda engine: engine.name in ROUNDED)

CONTENDERS: tuple[Contender, ...] = (OneByOne(), Jax(), *_BY_SPEED)
"""In the order of the columns: baselines, engines, less exact engines."""

ENGINE_NAMES = tuple(dict.fromkeys(engine.name for engine in _BY_SPEED))


def names() -> tuple[str, ...]:
    """Every contender once: engines for several devices share a name."""
    return tuple(dict.fromkeys(contender.name for contender in CONTENDERS))


def refusal(name: str, problem: FitProblem) -> str | None:
    """Say why no contender of that name can solve the problem; None if one can."""
    reasons = [c.why_not(problem) for c in CONTENDERS if c.name == name]
    return None if None in reasons else "; ".join(dict.fromkeys(map(str, reasons)))


def contender_for(name: str, problem: FitProblem) -> Contender:
    """Return the contender of that name that can solve the problem."""
    for contender in CONTENDERS:
        if contender.name == name and contender.why_not(problem) is None:
            return contender
    raise ConfigError(f"{name}: {refusal(name, problem)}")
