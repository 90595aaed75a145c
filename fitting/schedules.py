"""Learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """The optimizer's learning rate at every step."""

    kind: Literal["constant"] = "constant"

    def rates(self, peak: float, num_steps: int) -> list[float]:
        """Learning rate of every step."""
        return [peak] * num_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupCosine:
    """Linear warm-up from ``start_rate`` to the peak, then half a cosine down to ``end_rate``."""

    kind: Literal["warmup-cosine"] = "warmup-cosine"
    warmup_steps: int = 10
    """Steps until the peak, which the step of this number (from 0) uses."""
    start_rate: float = 1e-6
    end_rate: float = 1e-6
    decay_steps: int | None = None
    """Step at which ``end_rate`` is reached, warm-up included; the number of steps if left out."""

    def __post_init__(self) -> None:
        for name in ("start_rate", "end_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} >= 0 (got {getattr(self, name)})")
        if self.warmup_steps < 0:
            raise ValueError(f"expected warmup_steps >= 0 (got {self.warmup_steps})")
        if self.decay_steps is not None and self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"expected decay_steps > warmup_steps = {self.warmup_steps} "
                f"(got {self.decay_steps})"
            )

    def rates(self, peak: float, num_steps: int) -> list[float]:
        """Learning rate of every step."""
        last = self.decay_steps or max(num_steps, self.warmup_steps + 1)
        return [self._rate(step, peak, last) for step in range(num_steps)]

    def _rate(self, step: int, peak: float, last: int) -> float:
        if step < self.warmup_steps:
            return self.start_rate + (peak - self.start_rate) * step / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / (last - self.warmup_steps))
        return self.end_rate + (peak - self.end_rate) * (1 + math.cos(math.pi * progress)) / 2


ScheduleConfig = Constant | WarmupCosine
"""Every schedule that can be named in a configuration."""
