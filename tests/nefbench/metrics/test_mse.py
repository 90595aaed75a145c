from __future__ import annotations

import pytest
import torch

from nefbench.metrics import mse


def test_the_squared_error_is_averaged_over_points_and_channels_of_each_field() -> None:
    truth = torch.zeros(2, 2, 2)
    estimate = torch.tensor([[[1.0, 0.0], [-3.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]]])

    # Sums of squares 10 and 0.25 over four values.
    assert mse(truth, estimate).tolist() == [2.5, 0.0625]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        mse(torch.zeros(2, 3, 1), torch.zeros(2, 3, 3))
