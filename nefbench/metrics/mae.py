"""Mean absolute error."""

from __future__ import annotations

from torch import Tensor

from nefbench.metrics._shapes import check_same_shape


def mae(truth: Tensor, estimate: Tensor) -> Tensor:
    """Mean absolute error per field over points and channels, in units of the values.

    Args:
        truth: ``[N, Q, c]``.
        estimate: ``[N, Q, c]``; not clipped.

    Returns:
        ``[N]``, at least 0.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(truth, estimate)
    return (truth - estimate).abs().flatten(1).mean(1)
