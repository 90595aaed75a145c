"""Mean squared error."""

from __future__ import annotations

from torch import Tensor


def mse(truth: Tensor, estimate: Tensor) -> Tensor:
    """Mean squared error per field over points and channels, in squared units of the values.

    Args:
        truth: ``[N, Q, c]``.
        estimate: ``[N, Q, c]``.

    Returns:
        ``[N]``.
    """
    return (truth - estimate).square().flatten(1).mean(1)
