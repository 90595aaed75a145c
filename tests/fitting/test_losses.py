from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fitting.losses import BCE, MSE, LossConfig

LOSSES: list[LossConfig] = [MSE(), BCE()]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_mse_is_the_mean_over_points_and_channels() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, -1.0]])

    # 0 + 4 + 9 + 0 + 0 + 1, of six numbers.
    assert float(MSE().value(values, targets)) == pytest.approx(14 / 6)


def test_bce_is_minus_the_logarithm_of_the_probability_of_what_happened() -> None:
    # A logit of log 3 is a probability of 3/4, one of -log 4 of 1/5.
    values = column(math.log(3), math.log(3), -math.log(4), 0.0)
    targets = column(1.0, 0.0, 0.0, 0.25)

    expected = (math.log(4 / 3) + math.log(4) + math.log(5 / 4) + math.log(2)) / 4
    assert float(BCE().value(values, targets)) == pytest.approx(expected, rel=1e-12)


def test_bce_of_logits_far_out_neither_overflows_nor_vanishes() -> None:
    values = torch.tensor([[200.0], [-200.0]])

    assert float(BCE().value(values, torch.tensor([[0.0], [1.0]]))) == 200.0
    assert float(BCE().value(values, torch.tensor([[1.0], [0.0]]))) == 0.0


def test_gradients_are_those_worked_out_by_hand() -> None:
    values, targets = column(0.0, math.log(3)), column(0.25, 1.0)

    def gradient(loss: LossConfig) -> Tensor:
        return torch.func.grad(lambda v: loss.value(v, targets))(values)

    # Of two numbers: y - t for MSE, half of sigmoid(y) - t for BCE.
    torch.testing.assert_close(gradient(MSE()), column(-0.25, math.log(3) - 1))
    torch.testing.assert_close(gradient(BCE()), column(0.125, -0.125))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_fields_of_a_stack_have_a_loss_each(loss: LossConfig) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 7, 2, generator=draw, dtype=torch.float64)
    targets = torch.rand(2, 3, 7, 2, generator=draw, dtype=torch.float64)

    together = loss.value(values, targets)

    assert together.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = loss.value(values[i, j], targets[i, j])
            torch.testing.assert_close(together[i, j], alone)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_the_loss_is_least_where_values_match(loss: LossConfig) -> None:
    targets = column(0.1, 0.5, 0.8)
    best = targets if loss == MSE() else torch.logit(targets)

    least = loss.value(best, targets)

    for point in range(3):
        for shift in (-0.1, 0.1):
            moved = best.clone()
            moved[point] += shift
            assert loss.value(moved, targets) > least
