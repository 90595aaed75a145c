from __future__ import annotations

import torch

from nefbench.metrics import mse


def test_the_squared_error_is_averaged_over_points_and_channels_of_each_field() -> None:
    truth = torch.zeros(2, 2, 2)
    estimate = torch.tensor([[[1.0, 0.0], [-3.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]]])

    # Sums of squares 10 and 0.25 over four values.
    assert mse(truth, estimate).tolist() == [2.5, 0.0625]
