"""How well a trained classifier or regressor does: confusion, calibration, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Rows whose confidence lies in one interval.

    Attributes:
        num_rows: How many.
        confidence: Their mean confidence; None without rows.
        accuracy: Share of them classified correctly; None without rows.
    """

    num_rows: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether a confidence of 0.8 is right in 80 % of the cases.

    Attributes:
        error: Expected calibration error, 0 to 1: the mean over rows of the distance between the
            confidence and the accuracy of their bin.
        bins: 15 intervals of confidence of equal width, from 0 to 1.
    """

    error: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, kw_only=True)
class PropertyErrors:
    """How well one numeric property is predicted, in its own unit.

    Attributes:
        name: Of the property.
        r2: Coefficient of determination: 1 is perfect, 0 is as good as the mean of these rows.
        mae: Mean absolute error.
        rmse: Root of the mean squared error.
    """

    name: str
    r2: float
    mae: float
    rmse: float


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose highest score is that of their class; ``[N, K]`` and ``[N]``."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def confusion_of(logits: Tensor, labels: Tensor) -> tuple[tuple[int, int, int], ...]:
    """Count rows as ``(class, the class they were taken for, rows)``, where there are any.

    Never longer than the number of rows, however many classes there are.
    """
    num_classes = logits.shape[1]
    cells, counts = (labels * num_classes + logits.argmax(1)).unique(return_counts=True)
    return tuple(
        (cell // num_classes, cell % num_classes, count)
        for cell, count in zip(cells.tolist(), counts.tolist(), strict=True)
    )


def calibration_of(logits: Tensor, labels: Tensor) -> Calibration:
    """Compare confidence (the largest probability) with accuracy.

    Source: Guo et al. 2017 (arXiv 1706.04599), eq. 3: bins ``(i/15, (i+1)/15]``. Rows whose scores
    are not finite have confidence 0.
    """
    probabilities = logits.double().softmax(1).nan_to_num(0.0)
    confidence = probabilities.amax(1)
    is_right = (logits.argmax(1) == labels).double()
    index = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    counts = torch.bincount(index, minlength=NUM_BINS)
    sums = torch.bincount(index, weights=confidence, minlength=NUM_BINS).tolist()
    rights = torch.bincount(index, weights=is_right, minlength=NUM_BINS).tolist()
    bins = tuple(map(_bin, counts.tolist(), sums, rights))
    distance = sum(abs(right - total) for total, right in zip(sums, rights, strict=True))
    return Calibration(error=distance / len(labels), bins=bins)


def pooled_bins(calibrations: Sequence[Calibration]) -> tuple[ReliabilityBin, ...]:
    """Put the rows of several classifiers together, bin by bin."""
    return tuple(
        _bin(
            sum(b.num_rows for b in bins),
            sum(b.num_rows * (b.confidence or 0.0) for b in bins),
            sum(b.num_rows * (b.accuracy or 0.0) for b in bins),
        )
        for bins in zip(*(calibration.bins for calibration in calibrations), strict=True)
    )


def _bin(num_rows: int, confidences: float, num_right: float) -> ReliabilityBin:
    """Turn sums over rows into means."""
    if not num_rows:
        return ReliabilityBin(num_rows=0, confidence=None, accuracy=None)
    return ReliabilityBin(
        num_rows=num_rows, confidence=confidences / num_rows, accuracy=num_right / num_rows
    )


def errors_of(
    predicted: Tensor, values: Tensor, names: tuple[str, ...]
) -> tuple[PropertyErrors, ...]:
    """Measure predictions ``[N, T]`` of ``T`` properties, in float64.

    Properties that take one value alone have no coefficient of determination; they are refused
    before a training starts.
    """
    residual = predicted.double() - values.double()
    deviation = values.double() - values.double().mean(0)
    r2 = 1 - residual.square().sum(0) / deviation.square().sum(0)
    mae, rmse = residual.abs().mean(0), residual.square().mean(0).sqrt()
    return tuple(
        PropertyErrors(name=name, r2=float(r2[i]), mae=float(mae[i]), rmse=float(rmse[i]))
        for i, name in enumerate(names)
    )
