"""Checks of the tensors that a measure compares."""

from __future__ import annotations

from torch import Tensor


def check_same_shape(first: Tensor, second: Tensor) -> None:
    """Raise ``ValueError`` unless both have one shape: broadcasting would give a wrong number."""
    if first.shape != second.shape:
        raise ValueError(
            f"expected two tensors of one shape "
            f"(got {tuple(first.shape)} and {tuple(second.shape)})"
        )
