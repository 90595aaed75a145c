from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nefbench.metrics import quality_ratio, set_ratio


def test_the_ratio_is_quality_off_the_grid_over_quality_on_it() -> None:
    ratios = quality_ratio(torch.tensor([20.0, 30.0, 10.0]), torch.tensor([40.0, 30.0, 8.0]))

    assert ratios.tolist() == [0.5, 1.0, 1.25]


def test_a_field_without_two_finite_qualities_has_no_ratio() -> None:
    off = torch.tensor([math.nan, 1.0, math.inf, 1.0, 1.0, 0.0, 0.0])
    inside = torch.tensor([1.0, math.nan, 1.0, math.inf, 0.0, 0.0, 1.0])

    ratios = quality_ratio(off, inside)

    assert ratios.isnan().tolist() == [True] * 6 + [False]
    assert ratios[-1] == 0


def test_both_aggregations_of_a_set_by_hand() -> None:
    result = set_ratio(torch.tensor([10.0, 30.0]), torch.tensor([20.0, 30.0]))

    assert result.ratio_of_means == 0.8  # 40 / 50
    assert result.mean_of_ratios == 0.75  # (1/2 + 1) / 2
    assert result.num_fields == 2


def test_both_aggregations_equal_numpy_in_float64() -> None:
    rng = np.random.default_rng(0)
    off, inside = rng.uniform(10, 40, (2, 1001)).astype(np.float32)

    result = set_ratio(torch.from_numpy(off), torch.from_numpy(inside))

    off, inside = off.astype(np.float64), inside.astype(np.float64)
    assert result.ratio_of_means == pytest.approx(off.sum() / inside.sum(), rel=1e-13)
    assert result.mean_of_ratios == pytest.approx((off / inside).mean(), rel=1e-13)


def test_both_aggregations_leave_out_the_same_fields() -> None:
    off = torch.tensor([10.0, math.nan, 5.0, 30.0, 1.0])
    inside = torch.tensor([20.0, 30.0, math.inf, 30.0, 0.0])

    assert set_ratio(off, inside) == set_ratio(off[[0, 3]], inside[[0, 3]])


def test_a_set_without_a_field_that_counts_is_not_a_number() -> None:
    result = set_ratio(torch.tensor([math.nan]), torch.tensor([1.0]))

    assert math.isnan(result.ratio_of_means)
    assert math.isnan(result.mean_of_ratios)
    assert result.num_fields == 0


def test_a_set_of_fields_equals_its_fields_when_they_are_alike() -> None:
    off, inside = torch.full((3,), 24.0), torch.full((3,), 32.0)

    result = set_ratio(off, inside)

    assert result.ratio_of_means == result.mean_of_ratios == 0.75
    assert quality_ratio(off, inside).tolist() == [0.75] * 3


def test_qualities_of_different_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        set_ratio(torch.ones(3), torch.ones(1))
