"""Numbers with their uncertainty, from few datasets: percentile bootstrap, drawn from a seed."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2_000
_LEVEL = 0.95
_FEWEST = 5
"""Below so many datasets an interval says nothing."""

Sample = Sequence[float]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        value: Of all datasets.
        low: Lower end; NaN with fewer than five datasets.
        high: Upper end.
        count: Datasets.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def has_interval(self) -> bool:
        """Whether there are enough datasets for one."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def text(self, digits: int = 2) -> str:
        """Value and interval in words."""
        if not self.has_interval:
            return f"{self.value:.{digits}f} ({self.count} datasets, too few for an interval)"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean_estimate(values: Sample, seed: int = 0) -> Estimate:
    """Mean over datasets."""
    return _bootstrap(lambda *columns: float(np.mean(columns[0])), [values], seed)


def spearman_estimate(xs: Sample, ys: Sample, seed: int = 0) -> Estimate:
    """Spearman's rank correlation over datasets, pairs resampled together."""
    return _bootstrap(spearman, [xs, ys], seed)


def spearman(xs: Sample, ys: Sample) -> float:
    """Spearman's rank correlation; NaN where one side is constant."""
    from scipy.stats import spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant side is a result: NaN
        return float(spearmanr(xs, ys).statistic)


def mean_and_sd(values: Sample) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _bootstrap(statistic: Callable[..., float], columns: Sequence[Sample], seed: int) -> Estimate:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    count = len(arrays[0])
    value = statistic(*arrays)
    if count < _FEWEST:
        return Estimate(value, math.nan, math.nan, count)
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        chosen = draw.integers(count, size=count)
        found.append(statistic(*(array[chosen] for array in arrays)))
    known = [number for number in found if not math.isnan(number)]
    if not known or math.isnan(value):
        return Estimate(value, math.nan, math.nan, count)
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(value, float(low), float(high), count)
