"""Intersection over union of occupied points."""

from __future__ import annotations

import torch
from torch import Tensor

from nefbench.metrics._shapes import check_same_shape


def iou(truth: Tensor, estimate_inside: Tensor) -> Tensor:
    """Intersection over union per field.

    The number belongs to the points: over points uniform in volume and over points near the
    surface it differs, and over points that were fitted it flatters. fit-a-nef calls a point
    occupied where the truth is at least 0.5, and inside where the logit is at least 0.

    Args:
        truth: Which points are occupied, bool ``[N, Q]``.
        estimate_inside: Which points the field calls occupied, bool ``[N, Q]``.

    Returns:
        Float32 ``[N]`` in [0, 1]; 1 where both are empty.

    Raises:
        TypeError: If a tensor is not boolean: logits and occupancies need a threshold first.
        ValueError: If the shapes differ.
    """
    for name, inside in (("truth", truth), ("estimate_inside", estimate_inside)):
        if inside.dtype != torch.bool:
            raise TypeError(
                f"expected {name} of type bool (got {inside.dtype}); "
                f"compare with a threshold first, for example logits >= 0"
            )
    check_same_shape(truth, estimate_inside)
    intersection = (truth & estimate_inside).sum(1)
    union = (truth | estimate_inside).sum(1)
    # Nothing there and nothing found is a perfect answer, not 0 / 0.
    return torch.where(union > 0, intersection / union.clamp_min(1), 1.0)
