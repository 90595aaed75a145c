"""Losses of one field: a mean over points and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from torch.nn import functional


class Loss(Protocol):
    """Configuration of a loss, with its value."""

    @property
    def kind(self) -> str:
        """Name of the loss."""

    def value(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return one loss per field: ``[..., q, c]`` and ``[..., q, c]`` to ``[...]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MSE:
    """Mean squared error."""

    kind: Literal["mse"] = "mse"

    def value(self, values: Tensor, targets: Tensor) -> Tensor:
        """Mean of ``(values - targets)^2``."""
        return (values - targets).square().mean((-2, -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class BCE:
    """Binary cross-entropy of logits against targets in [0, 1], for occupancy."""

    kind: Literal["bce"] = "bce"

    def value(self, values: Tensor, targets: Tensor) -> Tensor:
        """Mean of ``softplus(values) - targets values``."""
        return (functional.softplus(values) - targets * values).mean((-2, -1))


LossConfig = MSE | BCE
"""Every loss that an engine can be given."""
