"""How one neural dataset is fitted: the whole recipe in one frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fitting.inits import InitConfig, Shared
from fitting.optimizers import Adam, OptimizerConfig
from fitting.schedules import Constant, ScheduleConfig
from nefbench.fields import FieldConfig, Siren
from nefbench.signals.views import Views
from nefbench.weights.manifest import check_config_name

EngineName = Literal["auto", "vmapped", "compiled", "fused", "fused-tf32"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Everything that determines the weights, apart from the signals and the engine."""

    field: FieldConfig = Siren()
    """Architecture of every field."""
    init: InitConfig = Shared()
    """Where fields start."""
    optimizer: OptimizerConfig = Adam()
    schedule: ScheduleConfig = Constant()
    num_steps: int = 500
    """Optimizer steps per field: exactly this many."""
    pixel_fraction: float = 1.0
    """Share of the grid points in each step's loss; a fresh draw per step, one for all fields."""
    points_per_step: int = 4096
    """Points of a shape in each step's loss; for occupancy half inside and half outside."""
    until_psnr: float | None = None
    """Stop a field at the first check, every 10 steps, at which its PSNR in dB is this high."""
    seed: int = 0
    """Seed of every draw."""
    num_refits: int = 1
    """Fields per signal (and view): fitted with ``seed``, ``seed + 1`` and so on."""
    views: Views | None = None
    """More fields per training signal, fitted to changed copies of it."""
    name: str | None = None
    """Name of the config in the dataset; architecture, width and start if left out."""
    part_rows: int = 1000
    """Most fields in one file; a stopped run loses at most the parts in progress."""
    engine: EngineName = "auto"
    """Implementation that fits; ``auto`` is the fastest that can. Engines agree up to rounding."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"expected num_steps >= 1 (got {self.num_steps})")
        if not 0 < self.pixel_fraction <= 1:
            raise ValueError(f"expected 0 < pixel_fraction <= 1 (got {self.pixel_fraction})")
        if self.points_per_step % 2 or not 2 <= self.points_per_step <= 200_000:
            raise ValueError(
                f"expected an even points_per_step from 2 to 200,000 (got {self.points_per_step})"
            )
        if self.until_psnr is not None and not 0 < self.until_psnr < 100:
            raise ValueError(f"expected 0 < until_psnr < 100 dB (got {self.until_psnr})")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"expected a seed from 0 to 2**63 - 1 (got {self.seed})")
        if not 1 <= self.num_refits <= 2**63 - self.seed:
            raise ValueError(f"expected num_refits >= 1 (got {self.num_refits})")
        if self.part_rows < 1:
            raise ValueError(f"expected part_rows >= 1 (got {self.part_rows})")
        if self.name is not None:
            check_config_name(self.name)

    @property
    def config_name(self) -> str:
        """Name of the config in the neural dataset."""
        default = f"{self.field.kind}-h{self.field.hidden_dim}-{self.init.kind}"
        return self.name or default

    def num_sampled(self, num_points: int) -> int:
        """Grid points in one step's loss."""
        return max(1, math.floor(self.pixel_fraction * num_points))
