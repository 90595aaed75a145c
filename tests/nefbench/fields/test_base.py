from __future__ import annotations

import math

import pytest
import torch

from nefbench.fields.base import check_at_least, check_positive, linear, linear_specs


def test_linear_is_row_vector_times_kernel_plus_bias() -> None:
    params = {
        "a.kernel": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "a.bias": torch.tensor([0.5, 0.0, -0.5]),
    }

    # (1, 10) W = (41, 52, 63)
    assert linear(params, "a", torch.tensor([[1.0, 10.0]])).tolist() == [[41.5, 52.0, 62.5]]


def test_a_linear_map_declares_its_bias_before_its_kernel() -> None:
    bias, kernel = linear_specs("a", (2, 3), ("in", "out"))

    assert (bias.name, bias.shape, bias.axes) == ("a.bias", (3,), ("out",))
    assert (kernel.name, kernel.shape, kernel.axes) == ("a.kernel", (2, 3), ("in", "out"))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_values_that_are_not_positive_and_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^expected scale > 0 and finite \(got "):
        check_positive("scale", value)


@pytest.mark.parametrize("value", [1, math.nan])
def test_values_below_the_least_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^expected width >= 2 \(got "):
        check_at_least("width", value, 2)


def test_values_in_range_pass() -> None:
    check_positive("scale", 1e-300)
    check_at_least("width", 2, 2)
