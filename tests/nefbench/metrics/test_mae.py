from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error

from nefbench.metrics import mae


def test_the_absolute_error_is_averaged_over_points_and_channels_of_each_field() -> None:
    truth = torch.zeros(2, 2, 2)
    estimate = torch.tensor([[[1.0, 0.0], [-3.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]]])

    # Sums 4 and 0.5 over four values.
    assert mae(truth, estimate).tolist() == [1.0, 0.125]


def test_mae_equals_scikit_learn_field_by_field() -> None:
    rng = np.random.default_rng(0)
    truth, estimate = rng.normal(size=(2, 3, 7, 2))

    errors = mae(torch.from_numpy(truth), torch.from_numpy(estimate))

    expected = [mean_absolute_error(a, b) for a, b in zip(truth, estimate, strict=True)]
    assert errors.tolist() == pytest.approx(expected, abs=1e-14)


def test_only_an_equal_estimate_has_no_error() -> None:
    truth = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))

    assert mae(truth, truth).tolist() == [0, 0]
    assert (mae(truth, -truth) > 0).all()


def test_an_estimate_that_is_not_a_number_spoils_its_own_field_only() -> None:
    estimate = torch.tensor([[[float("nan")]], [[1.0]]])

    assert mae(torch.zeros(2, 1, 1), estimate).isnan().tolist() == [True, False]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \(got \(2, 3, 1\) and \(2, 3, 3\)\)"):
        mae(torch.zeros(2, 3, 1), torch.zeros(2, 3, 3))
