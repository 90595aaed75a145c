from __future__ import annotations

import numpy as np
import pytest
import torch

from nefbench.metrics import mse, simse


def random_pair(num_fields: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, num_fields, 6, 3)
    truth, estimate = torch.randn(shape, generator=generator, dtype=torch.float64)
    return truth, estimate


def test_simse_gives_the_reference_value() -> None:
    truth = torch.tensor([[[1.0], [2.0], [3.0]]], dtype=torch.float64)
    estimate = torch.tensor([[[1.0], [1.0], [2.0]]], dtype=torch.float64)

    # alpha = 9 / 6, differences -1/2, 1/2, 0: (1/4 + 1/4) / 3.
    assert simse(truth, estimate).item() == pytest.approx(1 / 6, abs=1e-15)


def test_simse_is_the_residual_of_a_least_squares_fit_over_points_and_channels() -> None:
    truth, estimate = random_pair()

    errors = simse(truth, estimate)

    expected = []
    for a, b in zip(truth.flatten(1).numpy(), estimate.flatten(1).numpy(), strict=True):
        _, residual, _, _ = np.linalg.lstsq(b[:, None], a, rcond=None)
        expected.append(residual[0] / len(a))
    assert errors.tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("scale", [-2.0, 0.1, 1e-30, 1e30])
def test_the_scale_of_the_estimate_does_not_matter(scale: float) -> None:
    truth, estimate = (x.float() for x in random_pair())

    # In float32, squares of these scales leave the range of the type.
    torch.testing.assert_close(simse(truth, scale * estimate), simse(truth, estimate))


def test_simse_lies_between_zero_and_the_error_of_any_multiple() -> None:
    truth, estimate = random_pair()

    errors = simse(truth, estimate)

    assert (errors > 0).all()
    for alpha in (-1.0, 0.0, 0.3, 1.0):
        assert (errors <= mse(truth, alpha * estimate)).all()
    assert simse(truth, 3 * truth).max() < 1e-28


def test_an_estimate_of_zeros_scores_the_mean_square_of_the_truth() -> None:
    truth = torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]])

    assert simse(truth, torch.zeros_like(truth)).tolist() == [12.5, 0.0]


def test_a_batch_equals_one_field_after_another() -> None:
    truth, estimate = random_pair()

    single = [simse(truth[i : i + 1], estimate[i : i + 1]).item() for i in range(4)]

    assert simse(truth, estimate).tolist() == pytest.approx(single, abs=1e-15)


def test_an_estimate_that_is_not_finite_spoils_its_own_field_only() -> None:
    truth, estimate = random_pair(3)
    estimate[0, 0, 0], estimate[1, 0, 0] = float("nan"), float("inf")

    assert simse(truth, estimate).isnan().tolist() == [True, True, False]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        simse(torch.zeros(2, 3, 1), torch.zeros(2, 3, 3))
