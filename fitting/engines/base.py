"""What an engine computes: the final rows of one block of fields.

An engine is an implementation of ``Field.apply`` with an optimizer around it, never a second
definition of a field. All engines take the same problem and agree to stated tolerances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fitting.config import EngineName, FitConfig
from fitting.losses import MSE, LossConfig
from fitting.optimizers import SGD, OptimizerConfig
from nefbench.seeding import permutation
from nefbench.spec import ParamSpec

_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class FitProblem:
    """What all blocks of one neural dataset have in common.

    Attributes:
        config: The recipe.
        spec: Names and shapes of a row.
        coords: Points ``[Q, d]`` of all fields, on the device to compute on. A block may bring its
            own points, as many and on the same device.
        out_dim: Channels ``c``.
        loss: What is minimised, over the points of a step.
    """

    config: FitConfig
    spec: ParamSpec
    coords: Tensor
    out_dim: int
    loss: LossConfig = MSE()

    @property
    def num_points(self) -> int:
        """Points ``Q`` of a field."""
        return len(self.coords)

    @property
    def num_sampled(self) -> int:
        """Points ``q`` in one step's loss."""
        return self.config.num_sampled(self.num_points)

    @property
    def is_sampled(self) -> bool:
        """Whether a step sees only part of the points."""
        return self.num_sampled < self.num_points

    def sample(self, step: int) -> Tensor:
        """Positions ``[q]`` of the points in the loss of a step, counted from 1; on the CPU.

        A function of seed and step, the same for all fields.
        """
        return sampled_points(self.config.seed, self.num_points, self.num_sampled, step)

    def rates(self) -> list[float]:
        """Learning rate of every step."""
        config = self.config
        return config.schedule.rates(config.optimizer.learning_rate, config.num_steps)


def sampled_points(seed: int, num_points: int, num_sampled: int, step: int) -> Tensor:
    """Positions ``[q]`` of the points in the loss of a step; see ``FitProblem.sample``."""
    return permutation(seed, "fit/pixels", num_points, step)[:num_sampled]


@dataclass(frozen=True)
class Block:
    """Fields to fit at once.

    Attributes:
        start: Start rows ``[B, P]``; not changed.
        targets: Normalised values ``[B, Q, c]``.
        coords: Points ``[B, Q, d]`` where every field has its own; the problem's if None.
    """

    start: Tensor
    targets: Tensor
    coords: Tensor | None = None


class Missing(str):
    """Why an engine cannot be used here: something could be installed."""


class Engine(Protocol):
    """Fits blocks of fields."""

    @property
    def name(self) -> EngineName:
        """How a configuration asks for it."""

    @property
    def signature(self) -> str:
        """What decides how it rounds (device kind, library, instruction set); kept with weights."""

    @property
    def uses_threads(self) -> bool:
        """Whether one call keeps several cores busy, with the same bits for any number of them."""

    @property
    def needs_full_blocks(self) -> bool:
        """Whether a field's bits depend on the size of its block, which then has to be padded."""

    def why_not(self, problem: FitProblem) -> str | None:
        """Say why this engine cannot solve the problem on this machine; None if it can.

        The answer is ``Missing`` where installing something would change it.
        """

    def block_size(self, problem: FitProblem) -> int:
        """Fields per block: a rule of the problem alone, so that every run uses the same shapes."""

    def prepare(self, problem: FitProblem) -> None:
        """Compile what blocks of this problem need, or load it from the cache on disk."""

    def fit(
        self,
        problem: FitProblem,
        block: Block,
        *,
        threads: int = 1,
        check_stop: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Fit one block.

        Args:
            problem: The common part.
            block: The fields; ``block_size`` at most in a fit of many, any number in a comparison.
            threads: Cores to use; the rows do not depend on it.
            check_stop: Called every few steps; raises to abandon the block.

        Returns:
            Rows ``[B, P]`` after exactly ``config.num_steps`` steps. A field whose numbers overflow
            keeps its non-finite weights; the others do not notice.
        """


def why_not_padded(optimizer: OptimizerConfig) -> str | None:
    """Say why weights that are padded with zeros cannot have this optimizer; None if they can.

    Padding has no gradient: only eps keeps 0 / 0 away from it.
    """
    if isinstance(optimizer, SGD):
        return None
    if optimizer.eps * math.sqrt(1 - optimizer.betas[1]) < _SMALLEST_NORMAL:
        return f"it needs an eps that float32 can tell from 0 (got {optimizer.eps})"
    return None
