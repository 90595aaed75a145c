"""Quality between the samples relative to quality on them, ``R = Q_off / Q_in``.

Source: Papa et al. 2024 (arXiv 2312.10531), who relate R of a neural dataset to the accuracy of
classifiers of its weights. Whether they divide means or average ratios is not stated in what we
could read, so both are computed.

A quality grows as a field gets better and is positive where R means anything: PSNR in dB, IoU.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nefbench.metrics._shapes import check_same_shape


@dataclass(frozen=True)
class SetRatio:
    """R of a set of fields, aggregated in both ways over the same fields.

    Attributes:
        ratio_of_means: Mean quality off the grid over mean quality on it.
        mean_of_ratios: Mean of the fields' own ratios.
        num_fields: Fields that count; both numbers are NaN without any.
    """

    ratio_of_means: float
    mean_of_ratios: float
    num_fields: int


def quality_ratio(off: Tensor, inside: Tensor) -> Tensor:
    """R per field.

    Args:
        off: Quality between the samples, ``[N]``.
        inside: Quality on the fitted samples, ``[N]``.

    Returns:
        ``[N]``, near 1 for a field that is as good between its samples; NaN where a quality is
        not finite or ``inside`` is 0.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(off, inside)
    ratio = off / inside
    # A finite over an infinite quality is 0, which would pass for a very poor field.
    return ratio.where(inside.isfinite() & ratio.isfinite(), float("nan"))


def set_ratio(off: Tensor, inside: Tensor) -> SetRatio:
    """R of a set of fields, computed in float64; fields without a finite ratio do not count.

    Args:
        off: Quality between the samples, ``[N]``.
        inside: Quality on the fitted samples, ``[N]``.

    Raises:
        ValueError: If the shapes differ.
    """
    off, inside = off.double(), inside.double()
    ratios = quality_ratio(off, inside)
    counts = ratios.isfinite()
    return SetRatio(
        ratio_of_means=(off[counts].mean() / inside[counts].mean()).item(),
        mean_of_ratios=ratios[counts].mean().item(),
        num_fields=int(counts.sum()),
    )
