"""Where fields start: one draw for all of them, one draw each, a stored start or a learned one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from nefbench.errors import ConfigError
from nefbench.fields import FieldConfig
from nefbench.seeding import SHARED_INDEX, Draws
from nefbench.weights.start_file import check_checksum, start_for


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """Every field starts from the same draw, a function of the seed alone."""

    kind: Literal["shared"] = "shared"

    def rows(self, field: FieldConfig, in_dim: int, out_dim: int, draws: Draws) -> Tensor:
        """Return start rows ``[n, P]`` for the signals that the draws are for."""
        shared = Draws(draws.seed, (SHARED_INDEX,))
        return draw_rows(field, in_dim, out_dim, shared).repeat(draws.num_fields, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Random:
    """Every field starts from its own draw, a function of the seed and the signal's index."""

    kind: Literal["random"] = "random"

    def rows(self, field: FieldConfig, in_dim: int, out_dim: int, draws: Draws) -> Tensor:
        """Return start rows ``[n, P]`` for the signals that the draws are for."""
        return draw_rows(field, in_dim, out_dim, draws)


@dataclass(frozen=True, kw_only=True, slots=True)
class FromFile:
    """Every field starts from the weights in a start file."""

    kind: Literal["file"] = "file"
    path: Path
    """The file, for example the ``start.npz`` of a fit with ``init.kind = "meta"``."""
    sha256: str | None = None
    """Checksum that the file must have; the record of a fit names its start by it."""

    def __post_init__(self) -> None:
        check_checksum(self.sha256)

    def rows(self, field: FieldConfig, in_dim: int, out_dim: int, draws: Draws) -> Tensor:
        """Return start rows ``[n, P]`` for the signals that the draws are for.

        Raises:
            DatasetFormatError: If the file cannot be used, or is of another architecture.
        """
        start = start_for(self.path, self.sha256, field, in_dim, out_dim)
        return start.params.repeat(draws.num_fields, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Meta:
    """Every field starts from weights learned on training signals: few steps lead to any signal.

    From the shared draw, every outer step fits some signals for ``inner_steps`` and improves the
    weights that they started from. MAML (Finn et al. 2017, arXiv 1703.03400) descends the loss
    after the inner steps, plain gradient descent, through their second derivatives; FOMAML leaves
    those out. Reptile (Nichol et al. 2018, arXiv 1803.02999) fits with the recipe's own optimizer
    and moves towards the mean of the fitted weights.
    """

    kind: Literal["meta"] = "meta"
    algorithm: Literal["maml", "fomaml", "reptile"] = "maml"
    inner_steps: int | None = None
    """Steps per signal in an outer step; 2, or 10 for Reptile, if left out."""
    inner_learning_rate: float = 1e-2
    """Of the inner gradient descent; Reptile takes the optimizer's."""
    learn_step_sizes: bool = False
    """Learn an inner rate per weight as well (Meta-SGD, Li et al. 2017, arXiv 1707.09835)."""
    outer_steps: int = 1000
    outer_learning_rate: float | None = None
    """Adam's for MAML and FOMAML, 3e-3 if left out; for Reptile the share of the way to the mean,
    0.5 if left out."""
    tasks_per_step: int = 16
    """Signals in an outer step."""

    def __post_init__(self) -> None:
        for name in ("inner_steps", "outer_steps", "tasks_per_step"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"expected {name} >= 1 (got {count})")
        for name in ("inner_learning_rate", "outer_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < math.inf:
                raise ValueError(f"expected {name} > 0 (got {rate})")
        if self.algorithm == "reptile" and self.learn_step_sizes:
            raise ValueError("learn_step_sizes: reptile has no inner gradient; take maml or fomaml")
        if self.algorithm == "reptile" and (self.outer_learning_rate or 0) > 1:
            raise ValueError(
                f"expected outer_learning_rate <= 1 for reptile (got {self.outer_learning_rate})"
            )

    @property
    def num_inner_steps(self) -> int:
        """``inner_steps``, or what is usual for the algorithm."""
        return self.inner_steps or (10 if self.algorithm == "reptile" else 2)

    @property
    def outer_rate(self) -> float:
        """``outer_learning_rate``, or what is usual for the algorithm."""
        return self.outer_learning_rate or (0.5 if self.algorithm == "reptile" else 3e-3)

    def filled_in(self) -> Meta:
        """Return the recipe with what is usual written out."""
        return dataclasses.replace(
            self, inner_steps=self.num_inner_steps, outer_learning_rate=self.outer_rate
        )

    def rows(self, field: FieldConfig, in_dim: int, out_dim: int, draws: Draws) -> Tensor:
        """Refuse: ``run_fit`` learns the start first, and fits from its file."""
        del field, in_dim, out_dim, draws
        raise ConfigError(
            "init: this start has to be learned first (learn_start), then init.kind = 'file'"
        )


InitConfig = Shared | Random | FromFile | Meta
"""Every kind of start that can be named in a configuration."""


def draw_rows(field: FieldConfig, in_dim: int, out_dim: int, draws: Draws) -> Tensor:
    """Draw one row ``[n, P]`` per index from the field's own laws."""
    return field.spec(in_dim, out_dim).flatten(field.init(in_dim, out_dim, draws))
