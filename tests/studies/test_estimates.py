from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from studies.estimates import mean_and_sd, mean_estimate, spearman, spearman_estimate


def test_the_interval_of_a_mean_is_that_of_an_independent_bootstrap() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 40)
    reference = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip

    estimate = mean_estimate(values.tolist())

    assert estimate.value == pytest.approx(values.mean(), rel=1e-12)
    # 2,000 resamples put an end of the interval within a tenth of its half-width.
    half = (reference.high - reference.low) / 2
    assert estimate.low == pytest.approx(reference.low, abs=half / 10)
    assert estimate.high == pytest.approx(reference.high, abs=half / 10)
    assert estimate.excludes_zero


def test_spearman_sees_order_alone() -> None:
    xs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

    assert spearman(xs, [x**3 for x in xs]) == pytest.approx(1.0)
    assert spearman_estimate(xs, [-x for x in xs]).high < 0
    # Ranks (1, 3, 2, 4): 1 - 6 * 2 / (4 * 15).
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)


def test_a_constant_has_no_correlation() -> None:
    estimate = spearman_estimate([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    assert math.isnan(estimate.value)
    assert not estimate.excludes_zero


def test_few_datasets_have_no_interval_and_say_so() -> None:
    estimate = mean_estimate([1.0, 2.0])

    assert estimate.text() == "1.50 (2 datasets, too few for an interval)"
    assert not estimate.excludes_zero


def test_an_interval_is_a_function_of_values_and_seed() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.5]

    assert mean_estimate(values, 3) == mean_estimate(values, 3)
    assert mean_estimate(values, 3) != mean_estimate(values, 4)


def test_a_single_value_has_no_spread() -> None:
    assert mean_and_sd([0.5]) == (0.5, 0.0)
    assert mean_and_sd([0.0, 1.0]) == (0.5, pytest.approx(math.sqrt(0.5)))
