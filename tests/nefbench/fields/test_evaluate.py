from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nefbench.fields import (
    MLP,
    FieldConfig,
    FourierNet,
    GaborNet,
    RFFNet,
    Siren,
    derivative,
    evaluate,
    render,
)
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, TensorSpec

FIELDS: tuple[FieldConfig, ...] = (
    Siren(hidden_dim=5, omega_0=3.0),
    FourierNet(hidden_dim=5, num_filters=3, input_scale=4.0),
    GaborNet(hidden_dim=5, num_filters=3, input_scale=4.0),
    RFFNet(hidden_dim=6, std=0.5),
    MLP(hidden_dim=5),
)
SMOOTH = FIELDS[:3]


def rows_and_coords(spec: ParamSpec, num_fields: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(num_fields, spec.num_params, generator=generator, dtype=torch.float64)
    coords = 2 * torch.rand(11, 2, generator=generator, dtype=torch.float64) - 1
    return rows, coords


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_evaluating_many_fields_equals_one_after_another(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows, coords = rows_and_coords(spec)

    values = evaluate(field, spec, rows, coords)

    assert values.shape == (3, 11, 3)
    one_by_one = torch.stack([field.apply(spec.unflatten(row), coords) for row in rows])
    torch.testing.assert_close(values, one_by_one, rtol=1e-12, atol=1e-12)


def test_gradients_of_one_field_do_not_reach_another() -> None:
    field = SMOOTH[0]
    spec = field.spec(2, 1)
    rows, coords = rows_and_coords(spec)
    rows.requires_grad_()

    evaluate(field, spec, rows, coords)[1].sum().backward()

    assert rows.grad is not None
    assert (rows.grad.abs().sum(1) > 0).tolist() == [False, True, False]


@settings(deadline=None, max_examples=40)
@given(max_values=st.integers(1, 400), field=st.sampled_from(FIELDS))
def test_rendering_in_pieces_equals_evaluating_at_once(max_values: int, field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows, coords = rows_and_coords(spec)

    values = render(field, spec, rows, coords, max_values=max_values)

    torch.testing.assert_close(values, evaluate(field, spec, rows, coords), rtol=1e-12, atol=1e-12)


def test_rendering_keeps_no_gradients() -> None:
    field = SMOOTH[0]
    spec = field.spec(2, 1)
    rows, coords = rows_and_coords(spec)

    assert not render(field, spec, rows.requires_grad_(), coords).requires_grad


class Recorder:
    """A field of somebody else's that notes how many points it is given."""

    kind = "recorder"
    hidden_dim = 4

    def __init__(self) -> None:
        self.seen: list[int] = []

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        return ParamSpec((TensorSpec("w", (in_dim, out_dim), (None, None)),))

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        return {"w": draws.normal("w", (in_dim, out_dim), 1.0)}

    def apply(self, params: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        self.seen.append(len(coords))
        return coords @ params["w"]


@pytest.mark.parametrize(
    ("max_values", "expected"),
    [
        # 6 fields at 10 points of 4 hidden values: 240 in all.
        (240, [10]),
        (239, [10, 10]),  # 5 fields, 1 field
        (80, [10, 10, 10]),  # 2 fields each
        (16, [4, 4, 2] * 6),  # one field, 4 points
        (1, [1] * 60),
    ],
)
def test_pieces_hold_at_most_the_given_number_of_hidden_values(
    max_values: int, expected: list[int]
) -> None:
    field = Recorder()
    spec = field.spec(2, 1)
    rows = spec.flatten(field.init(2, 1, Draws(0, tuple(range(6)))))

    render(field, spec, rows, torch.ones(10, 2), max_values=max_values)

    assert field.seen == expected


def test_rendering_no_fields_gives_no_values() -> None:
    field = SMOOTH[0]
    spec = field.spec(2, 3)

    assert render(field, spec, torch.zeros(0, spec.num_params), torch.zeros(4, 2)).shape == (
        0,
        4,
        3,
    )


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("field", SMOOTH, ids=lambda field: field.kind)
def test_derivatives_equal_central_differences(field: FieldConfig, order: int) -> None:
    spec = field.spec(2, 3)
    rows, coords = rows_and_coords(spec)
    params = spec.unflatten(rows[0])
    step = 1e-5

    values = derivative(field, params, coords, order)

    assert values.shape == (11, 3, *[2] * order)
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        ahead = derivative(field, params, coords + shift, order - 1)
        behind = derivative(field, params, coords - shift, order - 1)
        # Truncation step**2 / 6 times the third derivative, rounding 1e-16 / step: both 1e-8 of
        # the largest derivative at most.
        torch.testing.assert_close(
            values[..., axis],
            (ahead - behind) / (2 * step),
            rtol=0,
            atol=1e-7 * float(values.abs().max()),
        )


@pytest.mark.parametrize("field", SMOOTH, ids=lambda field: field.kind)
def test_hessians_equal_second_differences_of_the_values(field: FieldConfig) -> None:
    spec = field.spec(2, 1)
    rows, coords = rows_and_coords(spec)
    params = spec.unflatten(rows[0])
    step = 1e-4
    first, second = step * torch.eye(2, dtype=torch.float64)

    hessian = derivative(field, params, coords, 2)

    mixed = (
        field.apply(params, coords + first + second)
        - field.apply(params, coords + first - second)
        - field.apply(params, coords - first + second)
        + field.apply(params, coords - first - second)
    ) / (4 * step**2)
    tolerance = 1e-5 * float(hessian.abs().max())
    torch.testing.assert_close(hessian[..., 0, 1], mixed, rtol=0, atol=tolerance)
    torch.testing.assert_close(hessian, hessian.mT, rtol=1e-12, atol=1e-12)


def test_order_zero_gives_the_values() -> None:
    field = SMOOTH[0]
    spec = field.spec(2, 3)
    rows, coords = rows_and_coords(spec)
    params = spec.unflatten(rows[0])

    torch.testing.assert_close(
        derivative(field, params, coords, 0), field.apply(params, coords), rtol=0, atol=1e-14
    )


def test_the_laplacian_of_a_siren_equals_its_closed_form() -> None:
    # u(x, y) = 2 sin(pi (x + 2 y + 1/2)) - sin(pi (3 x)) + 1/4
    field = Siren(hidden_dim=2, num_layers=2, omega_0=math.pi)
    params = {
        "kernel_net_0.linear.bias": torch.tensor([0.5, 0.0], dtype=torch.float64),
        "kernel_net_0.linear.kernel": torch.tensor([[1.0, 3.0], [2.0, 0.0]], dtype=torch.float64),
        "output_linear.bias": torch.tensor([0.25], dtype=torch.float64),
        "output_linear.kernel": torch.tensor([[2.0], [-1.0]], dtype=torch.float64),
    }
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(20, 2, generator=generator, dtype=torch.float64)
    x, y = coords.T

    hessian = derivative(field, params, coords, 2)
    laplacian = hessian.diagonal(dim1=-2, dim2=-1).sum(-1)[:, 0]

    # Each sine returns times minus the square of its wave vector: 5 pi^2 and 9 pi^2.
    expected = math.pi**2 * (
        -10 * torch.sin(math.pi * (x + 2 * y + 0.5)) + 9 * torch.sin(3 * math.pi * x)
    )
    torch.testing.assert_close(laplacian, expected, rtol=1e-12, atol=1e-11)


def test_a_relu_network_has_no_second_derivative() -> None:
    field = MLP(hidden_dim=5)
    spec = field.spec(2, 1)
    rows, coords = rows_and_coords(spec)
    params = spec.unflatten(rows[0])

    assert derivative(field, params, coords, 1).abs().max() > 0
    assert not derivative(field, params, coords, 2).any()
