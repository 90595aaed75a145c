"""Mean squared error."""

from __future__ import annotations

from torch import Tensor

from nefbench.metrics._shapes import check_same_shape


def mse(truth: Tensor, estimate: Tensor) -> Tensor:
    """Mean squared error per field over points and channels, in squared units of the values.

    Args:
        truth: ``[N, Q, c]``.
        estimate: ``[N, Q, c]``.

    Returns:
        ``[N]``.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(truth, estimate)
    return (truth - estimate).square().flatten(1).mean(1)
