"""What an engine computes: the rows of one block of fields, after any number of steps.

An engine is an implementation of ``Field.apply`` with an optimizer around it, never a second
definition of a field. All engines take the same problem and agree to stated tolerances.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fitting.config import EngineName, FitConfig
from fitting.losses import MSE, LossConfig
from fitting.optimizers import SGD, AdaBelief, Adam, AdamW, OptimizerConfig
from fitting.sampling import GridShare, Sampling
from nefbench.spec import ParamSpec

KernelOptimizer = SGD | Adam | AdamW | AdaBelief
"""Optimizers that kernels are written for."""

_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class FitProblem:
    """What all blocks of one neural dataset have in common.

    Attributes:
        config: The recipe.
        spec: Names and shapes of a row.
        coords: Points ``[Q, d]`` of all fields, on the device to compute on. Blocks may bring their
            own points, as many and on the same device; these then only say how many.
        out_dim: Channels ``c``.
        loss: What is minimised, over the points of a step.
        sampling: Which points are in the loss of a step; a share of the grid, as the config says,
            if None.
        has_own_points: Whether blocks do bring their own points: what to prepare for.
    """

    config: FitConfig
    spec: ParamSpec
    coords: Tensor
    out_dim: int
    loss: LossConfig = MSE()
    sampling: Sampling | None = None
    has_own_points: bool = False

    @property
    def num_points(self) -> int:
        """Points ``Q`` of a field."""
        return len(self.coords)

    @property
    def drawing(self) -> Sampling:
        """The sampling, or that of the config."""
        config = self.config
        return self.sampling or GridShare(
            config.seed, self.num_points, config.num_sampled(self.num_points)
        )

    @property
    def num_sampled(self) -> int:
        """Points ``q`` in one step's loss."""
        return self.drawing.num_sampled

    @property
    def is_sampled(self) -> bool:
        """Whether a step sees only part of the points."""
        return self.num_sampled < self.num_points

    def sample(self, step: int) -> Tensor:
        """Positions ``[q]`` of the points in the loss of a step, counted from 1; on the CPU."""
        return self.drawing.points(step)

    def rates(self) -> list[float]:
        """Learning rate of every step."""
        config = self.config
        return config.schedule.rates(config.optimizer.learning_rate, config.num_steps)


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


def never_stop() -> None:
    """Ask for nothing: the usual ``check_stop``."""


class Run(ABC):
    """A block between optimizer steps.

    The rows after a step do not depend on where the run was halted or looked at before, nor those
    of a field on which others were frozen.
    """

    def __init__(self, problem: FitProblem, block: Block) -> None:
        self._num_steps = problem.config.num_steps
        self._step = 0
        self._active = torch.ones(len(block.start), dtype=torch.bool, device=block.start.device)
        self._kept = block.start
        """Rows of the frozen fields, at their places."""

    @property
    def step(self) -> int:
        """Steps taken by the fields that are still active."""
        return self._step

    def advance(
        self, step: int, *, threads: int = 1, check_stop: Callable[[], None] = never_stop
    ) -> None:
        """Take the active fields on.

        Args:
            step: Steps they have taken afterwards, counted from the start; at most
                ``config.num_steps``.
            threads: Cores to use; the rows do not depend on it.
            check_stop: Called every few steps; raises to abandon the run, which is then useless.
        """
        if not self._step < step <= self._num_steps:
            raise ValueError(f"expected a step in {self._step + 1}..{self._num_steps} (got {step})")
        if self._active.any():
            self._take(range(self._step, step), threads, check_stop)
        self._step = step

    def rows(self) -> Tensor:
        """Rows ``[B, P]`` now, a copy."""
        return torch.where(self._active[:, None], self._current_rows(), self._kept)

    def freeze(self, fields: Tensor) -> None:
        """Let the fields where ``[B]`` is true take no further step; their rows stay."""
        self._kept = self.rows()
        self._active = self._active & ~fields.to(self._active.device)

    @abstractmethod
    def _take(self, steps: range, threads: int, check_stop: Callable[[], None]) -> None:
        """Run steps, counted from 0; what they do to frozen fields does not matter."""

    @abstractmethod
    def _current_rows(self) -> Tensor:
        """Rows ``[B, P]``, of frozen fields anything."""


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

    def start(self, problem: FitProblem, block: Block) -> Run:
        """Begin to fit one block, whose tensors must not change before the run is over.

        Args:
            problem: The common part.
            block: The fields; ``block_size`` at most in a fit of many, any number in a comparison.

        Returns:
            The block before the first step. A field whose numbers overflow keeps its non-finite
            weights; the others do not notice.
        """

    def fit(
        self,
        problem: FitProblem,
        block: Block,
        *,
        threads: int = 1,
        check_stop: Callable[[], None] = never_stop,
    ) -> Tensor:
        """Return rows ``[B, P]`` after exactly ``config.num_steps`` steps; see ``Run.advance``."""


class WholeFits:
    """The part of an engine that follows from its runs."""

    def fit(
        self: Engine,
        problem: FitProblem,
        block: Block,
        *,
        threads: int = 1,
        check_stop: Callable[[], None] = never_stop,
    ) -> Tensor:
        """Fit one block from start to end; see ``Engine.fit``."""
        run = self.start(problem, block)
        run.advance(problem.config.num_steps, threads=threads, check_stop=check_stop)
        return run.rows()


def why_not_in_kernel(optimizer: OptimizerConfig) -> str | None:
    """Say why a kernel, which pads weights with zeros, lacks this optimizer; None if it does not.

    Padding has no gradient: only eps keeps 0 / 0 away from it.
    """
    if not isinstance(optimizer, KernelOptimizer):
        return f"it has no kernel for {optimizer.kind}"
    if isinstance(optimizer, SGD):
        return None
    if optimizer.eps * math.sqrt(1 - optimizer.betas[1]) < _SMALLEST_NORMAL:
        return f"it needs an eps that float32 can tell from 0 (got {optimizer.eps})"
    return None
