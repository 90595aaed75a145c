"""Element-wise optimizers over a stack of flat rows: one update equals one update per field.

Scalars that depend on the step (bias corrections, learning rate) are computed in float64 on the
host: in float32, ``1 - beta_2 ** t`` would lose five digits at t = 1. They reach the tensors as
Python numbers, or as 0-dim tensors where the update is compiled: a number would be built into the
code, and every step be compiled anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from nefbench.weights.start_file import check_checksum, step_sizes_for

State = tuple[Tensor, ...]
Scalars = Sequence[float | Tensor]


class Optimizer(Protocol):
    """Configuration of an optimizer, with its update rule."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate; a schedule may lower it."""

    def start(self, rows: Tensor) -> State:
        """Return the state before the first step."""

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        """Return what the update needs to know of a step, counted from 1, and its rate."""

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        """Change ``rows`` and ``state`` in place by one step with these scalars."""


def _check_rate(learning_rate: float) -> None:
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"expected learning_rate > 0 (got {learning_rate})")


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"expected betas in [0, 1) (got {betas})")


def _check_eps(eps: float) -> None:
    if not 0 <= eps < math.inf:
        raise ValueError(f"expected eps >= 0 (got {eps})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015)."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        _check_betas(self.betas)
        _check_eps(self.eps)

    def start(self, rows: Tensor) -> State:
        """First moment, second moment."""
        return torch.zeros_like(rows), torch.zeros_like(rows)

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        """Rate and eps with the bias corrections folded in."""
        return _corrected(step, rate, self.betas, self.eps)

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        """Apply ``w <- w - rate m^ / (sqrt(v^) + eps)`` with bias-corrected moments."""
        corrected_rate, corrected_eps = scalars
        _adam_update(rows, gradient, state, self.betas, corrected_rate, corrected_eps)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 1e-3
    """Every step shrinks the weights by ``learning rate x weight_decay`` first."""

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        _check_betas(self.betas)
        _check_eps(self.eps)
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"expected weight_decay >= 0 (got {self.weight_decay})")

    def start(self, rows: Tensor) -> State:
        """First moment, second moment."""
        return torch.zeros_like(rows), torch.zeros_like(rows)

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        """Adam's scalars, then the factor that shrinks the weights."""
        return *_corrected(step, rate, self.betas, self.eps), 1 - rate * self.weight_decay

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        """Shrink the weights, then apply Adam's update."""
        corrected_rate, corrected_eps, shrinkage = scalars
        rows.mul_(shrinkage)
        _adam_update(rows, gradient, state, self.betas, corrected_rate, corrected_eps)


@dataclass(frozen=True, kw_only=True, slots=True)
class SGD:
    """Gradient descent with momentum: ``u <- momentum u + g``, ``w <- w - rate u``."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = 1e-2
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"expected momentum in [0, 1) (got {self.momentum})")

    def start(self, rows: Tensor) -> State:
        """Velocity."""
        return (torch.zeros_like(rows),)

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        """The rate."""
        del step
        return (rate,)

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        """Apply one step."""
        (velocity,), (rate,) = state, scalars
        velocity.mul_(self.momentum).add_(gradient)
        if isinstance(rate, Tensor):
            rows.sub_(rate * velocity)
        else:
            rows.add_(velocity, alpha=-rate)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaBelief:
    """AdaBelief without rectification (Zhuang et al. 2020, arXiv 2010.07468, algorithm 2).

    ``eps`` enters twice: it accumulates inside the second moment and is added to its root.
    """

    kind: Literal["adabelief"] = "adabelief"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first moment and of the squared surprise."""
    eps: float = 1e-16

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        _check_betas(self.betas)
        _check_eps(self.eps)

    def start(self, rows: Tensor) -> State:
        """First moment, squared surprise."""
        return torch.zeros_like(rows), torch.zeros_like(rows)

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        """Rate and eps with the bias corrections folded in."""
        return _corrected(step, rate, self.betas, self.eps)

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        """Apply ``w <- w - rate m^ / (sqrt(s^) + eps)``."""
        mean, surprise = state
        beta1, beta2 = self.betas
        corrected_rate, corrected_eps = scalars
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        difference = gradient - mean
        surprise.mul_(beta2).addcmul_(difference, difference, value=1 - beta2).add_(self.eps)
        _descend(rows, mean, surprise, corrected_rate, corrected_eps)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedSGD:
    """Gradient descent with a learned rate per weight: ``w <- w - rate step_sizes g``."""

    kind: Literal["learned-sgd"] = "learned-sgd"
    learning_rate: float = 1.0
    """Factor of all step sizes."""
    path: Path | None = None
    """Start file that holds the step sizes; that of the start itself if left out."""
    sha256: str | None = None
    """Checksum that the file must have; the record of a fit names its step sizes by it."""

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        check_checksum(self.sha256)
        if self.path is None and self.sha256 is not None:
            raise ValueError("sha256 is that of a file: give its path too")

    def start(self, rows: Tensor) -> State:
        """Step sizes ``[1, P]``, which no update changes.

        Raises:
            DatasetFormatError: If the file cannot be used, or has none for such rows.
        """
        return (step_sizes_for(self.path, self.sha256, rows.shape[-1]).to(rows),)

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        """The rate."""
        del step
        return (rate,)

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        """Apply one step."""
        (step_sizes,), (rate,) = state, scalars
        rows.sub_(rate * step_sizes * gradient)


OptimizerConfig = Adam | AdamW | SGD | AdaBelief | LearnedSGD
"""Every optimizer that can be named in a configuration."""


def _corrected(
    step: int, rate: float, betas: tuple[float, float], eps: float
) -> tuple[float, float]:
    """Fold the bias corrections ``1 - beta ** t`` of both moments into the rate and eps."""
    root = math.sqrt(1 - betas[1] ** step)
    return rate * root / (1 - betas[0] ** step), eps * root


def _adam_update(
    rows: Tensor,
    gradient: Tensor,
    state: State,
    betas: tuple[float, float],
    rate: float | Tensor,
    eps: float | Tensor,
) -> None:
    mean, square = state
    mean.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    _descend(rows, mean, square, rate, eps)


def _descend(
    rows: Tensor, mean: Tensor, square: Tensor, rate: float | Tensor, eps: float | Tensor
) -> None:
    """Step along raw moments; ``rate`` and ``eps`` hold the bias corrections."""
    divisor = square.sqrt().add_(eps)
    if isinstance(rate, Tensor):  # the product below, which takes no tensor as its factor
        rows.sub_(rate * mean / divisor)
    else:
        rows.addcdiv_(mean, divisor, value=-rate)
