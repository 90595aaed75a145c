"""Numbers that summarise a neural dataset: quality per split, spread per tensor.

Parts are read one after another, so memory does not grow with the number of fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nefbench.spec import ParamSpec
from nefbench.weights.dataset import NeuralDataset
from nefbench.weights.manifest import ConfigEntry, SplitSummary
from nefbench.weights.parts import FieldRows, concatenate, read_part

HIGHER_IS_BETTER = {
    "psnr_db": True, "psnr_peak_db": True, "psnr_off_db": True, "psnr_ratio": True, "ssim": True,
    "mse": False, "mae": False, "simse": False,
    "iou": True, "iou_uniform": True, "iou_near_surface": True, "iou_ratio": True,
    "loss": False,
}  # fmt: skip
"""Direction of every quality column."""

NORMALISING_SPLIT = "train"
"""The split whose weights define the statistics per tensor."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of many numbers.

    Attributes:
        count: Numbers seen.
        mean: Their mean.
        deviation: Sum of squared deviations from the mean.
    """

    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def merge(self, values: Tensor) -> Moments:
        """Add numbers; pairwise update of Chan, Golub and LeVeque 1983, in float64."""
        exact = values.to(torch.float64)
        if not exact.numel():
            return self
        mean = float(exact.mean())
        deviation = float((exact - mean).square().sum())
        count = self.count + exact.numel()
        shift = mean - self.mean
        return Moments(
            count,
            self.mean + shift * exact.numel() / count,
            self.deviation + deviation + shift**2 * self.count * exact.numel() / count,
        )

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.deviation / self.count) if self.count else 0.0


def summarise_dataset(dataset: NeuralDataset) -> ConfigEntry:
    """Return the dataset's entry with ``summary`` and ``tensor_statistics`` filled in."""
    entry = dataset.entry
    moments = {name: Moments() for name, _ in entry.tensors}
    columns: dict[str, list[FieldRows]] = {split.name: [] for split in entry.splits}
    for part in entry.parts:
        rows = read_part(dataset.folder, dataset.name, entry, part)
        if part.split == NORMALISING_SPLIT:
            moments = merge_tensor_moments(moments, rows, entry.spec)
        columns[part.split].append(_without_weights(rows))
    return dataclasses.replace(
        entry,
        summary={
            name: summarise(concatenate(rows), len(entry.signals.class_names))
            for name, rows in columns.items()
        },
        tensor_statistics={name: (m.mean, m.std) for name, m in moments.items()},
    )


def _without_weights(rows: FieldRows) -> FieldRows:
    # A fresh tensor: an empty slice would keep the whole part in memory.
    return dataclasses.replace(rows, weights=torch.empty(len(rows), 0))


def merge_tensor_moments(
    moments: dict[str, Moments], rows: FieldRows, spec: ParamSpec
) -> dict[str, Moments]:
    """Add the ``ok`` fields of some rows to the moments of each tensor.

    One pair of numbers per tensor commutes with every permutation of neurons; a pair per entry
    would not.
    """
    weights = rows.weights[rows.is_ok]
    return {name: moments[name].merge(weights[:, place]) for name, place in spec.slices().items()}


def summarise(rows: FieldRows, num_classes: int) -> SplitSummary:
    """Summarise one split: status, classes, properties; median, 5 % quantile, worst per metric.

    The 5 % quantile is the one on the bad side. Fields not ``ok`` count in ``status`` only, and
    NaN counts nowhere: a ratio to nothing has no value. A column of NaN alone was never measured
    (the loss of imported fields) and is left out.
    """
    good = rows.select(rows.is_ok)
    measured = {
        name: values
        for name, values in {**good.quality, "loss": good.loss}.items()
        if not values.isnan().all()
    }
    counts: tuple[int, ...] = ()
    if rows.labels is not None:
        known = rows.labels[rows.labels >= 0]
        counts = tuple(torch.bincount(known, minlength=num_classes).tolist())
    return SplitSummary(
        num_fields=len(rows),
        status=dict(sorted(Counter(rows.status).items())),
        quality={
            name: _quantiles(values, higher_is_better=HIGHER_IS_BETTER[name])
            for name, values in measured.items()
        },
        class_counts=counts,
        properties={
            name: (float(numbers.min()), float(numbers.max()))
            for name, numbers in rows.properties.items()
        },
    )


def _quantiles(values: Tensor, *, higher_is_better: bool) -> dict[str, float]:
    exact = values[~values.isnan()].to(torch.float64).numpy()
    worst = exact.min() if higher_is_better else exact.max()
    bad_tail = 0.05 if higher_is_better else 0.95
    return {
        "median": float(np.median(exact)),
        "worst_5_percent": float(np.quantile(exact, bad_tail)),
        "worst": float(worst),
    }
