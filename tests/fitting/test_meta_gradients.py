from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import grad

from fitting.engines.vmapped import loss_of
from fitting.losses import BCE, MSE, LossConfig
from fitting.meta_gradients import Batches, Loss, adapt, outer_gradients
from nefbench.fields import Siren

FIELD = Siren(hidden_dim=3, num_layers=3, omega_0=3.0)
SPEC = FIELD.spec(2, 1)
TASKS, POINTS, INNER_STEPS = 3, 7, 2


def quantities(kind: LossConfig) -> tuple[Loss, Tensor, Tensor, Batches]:
    """A loss, a start, step sizes and draws, float64; every inner step sees its own points."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    params = 0.5 * normal(SPEC.num_params)
    step_sizes = 0.02 + 0.02 * torch.rand(SPEC.num_params, generator=draw, dtype=torch.float64)
    draws = [
        (normal(POINTS, 2), torch.sigmoid(normal(TASKS, POINTS, 1))) for _ in range(INNER_STEPS + 1)
    ]
    return loss_of(FIELD, SPEC, kind), params, step_sizes, draws


def after(loss: Loss, params: Tensor, step_sizes: Tensor, draws: Batches, task: int) -> Tensor:
    """The loss of one task after its inner steps, one after another."""
    own = [(coords, targets[task]) for coords, targets in draws]
    return loss(adapt(loss, params, step_sizes, own[:-1]), *own[-1])


def after_from(loss: Loss, sizes: Tensor, draws: Batches, task: int, params: Tensor) -> Tensor:
    return after(loss, params, sizes, draws, task)


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Central differences: cubes of 1e-6 do not count, rounding is some 1e-10."""
    slopes = []
    for place in range(len(at)):
        move = torch.zeros_like(at)
        move[place] = 1e-6
        slopes.append((function(at + move) - function(at - move)) / 2e-6)
    return torch.stack(slopes)


@pytest.mark.parametrize("kind", [MSE(), BCE()])
def test_the_gradient_of_maml_is_that_of_finite_differences(kind: LossConfig) -> None:
    loss, params, sizes, draws = quantities(kind)

    values, for_params, for_sizes = outer_gradients(loss, params, sizes, draws, first_order=False)

    for task in range(TASKS):
        torch.testing.assert_close(values[task], after(loss, params, sizes, draws, task))
        by_params = finite_difference(partial(after_from, loss, sizes, draws, task), params)
        by_sizes = finite_difference(partial(after, loss, params, draws=draws, task=task), sizes)
        torch.testing.assert_close(for_params[task], by_params, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(for_sizes[task], by_sizes, rtol=1e-6, atol=1e-8)


def test_the_first_order_gradient_is_that_at_the_adapted_weights() -> None:
    loss, params, sizes, draws = quantities(MSE())

    values, for_params, for_sizes = outer_gradients(loss, params, sizes, draws, first_order=True)
    exact_values, exact, _ = outer_gradients(loss, params, sizes, draws, first_order=False)

    torch.testing.assert_close(values, exact_values)
    for task in range(TASKS):
        own = [(coords, targets[task]) for coords, targets in draws]
        adapted = adapt(loss, params, sizes, own[:-1])
        torch.testing.assert_close(for_params[task], grad(loss)(adapted, *own[-1]))
        # adapted = params - sizes * way, with the way held fixed: d adapted / d sizes = -way.
        way = (params - adapted) / sizes
        torch.testing.assert_close(for_sizes[task], -way * grad(loss)(adapted, *own[-1]))
    assert (for_params - exact).norm() > 0.05 * exact.norm(), "second derivatives matter here"


def test_on_a_parabola_both_gradients_are_those_worked_out_by_hand() -> None:
    # loss = (w - t)^2 / 2, so a step of rate a leaves (1 - a)(w - t), and after two of them the
    # loss is (1 - a)^4 (w - t)^2 / 2: with a = 1/2, w = 3, t = 1 it is 1/8, its slope in w 1/8,
    # in a -2 (1 - a)^3 (w - t)^2 = -1. At the adapted weight 3/2 the slope is 1/2.
    def loss(row: Tensor, coords: Tensor, targets: Tensor) -> Tensor:
        del coords
        return ((row - targets[0]) ** 2).sum() / 2

    draws = [(torch.zeros(1, 1), torch.ones(1, 1, 1))] * 3
    start, rate = torch.tensor([3.0]), torch.tensor([0.5])

    value, slope, by_rate = outer_gradients(loss, start, rate, draws, first_order=False)
    _, first_order, _ = outer_gradients(loss, start, rate, draws, first_order=True)

    assert [value.item(), slope.item(), by_rate.item()] == [0.125, 0.125, -1.0]
    assert first_order.item() == 0.5


def test_tasks_may_have_points_of_their_own() -> None:
    loss, params, sizes, draws = quantities(MSE())
    own = [(coords + torch.arange(TASKS)[:, None, None] / 10, t) for coords, t in draws]

    values, *_ = outer_gradients(loss, params, sizes, own, first_order=False)

    for task in range(TASKS):
        alone = [(coords[task], targets) for coords, targets in own]
        torch.testing.assert_close(values[task], after(loss, params, sizes, alone, task))
    assert len({round(value, 12) for value in values.tolist()}) == TASKS
    assert all(math.isfinite(value) for value in values.tolist())
