"""Scale-invariant mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from nefbench.metrics._shapes import check_same_shape


def simse(truth: Tensor, estimate: Tensor) -> Tensor:
    """Mean squared error per field after the best rescaling of the estimate.

    ``mean((a - alpha b)^2)`` with ``alpha = <a, b> / <b, b>``, as in fit-a-nef: ``a`` is the truth,
    ``b`` the estimate, and the products run over all points and channels of a field. A negative
    ``alpha`` is allowed, so an estimate and its negative score the same. An estimate of zeros has
    ``alpha = 0`` and scores the mean square of the truth.

    Args:
        truth: ``[N, Q, c]``.
        estimate: ``[N, Q, c]``.

    Returns:
        ``[N]``, in squared units of the truth, from 0 to the mean square of the truth.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(truth, estimate)
    a, b = truth.flatten(1), estimate.flatten(1)
    # With a largest entry of 1, <b, b> neither underflows nor overflows, and is 0 or at least 1.
    largest = b.abs().amax(1, keepdim=True)
    b = b / torch.where(largest > 0, largest, 1)
    alpha = (a * b).sum(1, keepdim=True) / (b * b).sum(1, keepdim=True).clamp_min(1)
    return (a - alpha * b).square().mean(1)
