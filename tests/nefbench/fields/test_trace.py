from __future__ import annotations

import math

import pytest
import torch

from nefbench.fields import (
    MLP,
    FieldConfig,
    FourierNet,
    GaborNet,
    RFFNet,
    ShapeNet,
    Siren,
)

FIELDS: tuple[FieldConfig, ...] = (
    Siren(hidden_dim=6, num_layers=4, omega_0=2.0),
    Siren(hidden_dim=6, preset="paper"),
    FourierNet(hidden_dim=6, num_filters=3),
    FourierNet(hidden_dim=6, num_filters=1),
    GaborNet(hidden_dim=6, num_filters=3, input_scale=2.0),
    RFFNet(hidden_dim=6, num_layers=3, std=0.3),
    MLP(hidden_dim=6, num_layers=3),
    ShapeNet(hidden_dim=6, num_blocks=3, omega_0=1.5),
    ShapeNet(hidden_dim=6, block="shortcut", activation="tanh"),
)
over_fields = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)


def some_row(field: FieldConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = field.spec(2, 3).num_params
    return torch.randn(size, generator=generator, dtype=torch.float64)


def some_coords() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(5, 7, 2, generator=generator, dtype=torch.float64)


@over_fields
def test_the_last_of_a_trace_is_what_the_field_computes_bit_by_bit(field: FieldConfig) -> None:
    params, coords = field.spec(2, 3).unflatten(some_row(field)), some_coords()

    assert torch.equal(field.trace(params, coords)["outputs"], field.apply(params, coords))


@over_fields
def test_a_trace_has_a_value_per_unit_and_point(field: FieldConfig) -> None:
    spec = field.spec(2, 3)

    trace = field.trace(spec.unflatten(some_row(field)), some_coords())

    assert list(trace)[-1] == "outputs"
    assert {name: value.shape[2] for name, value in trace.items()} == {
        **spec.group_sizes,
        "outputs": 3,
    }
    assert all(value.shape[:2] == (5, 7) for value in trace.values())


@over_fields
def test_the_values_move_with_their_units(field: FieldConfig) -> None:
    spec, row = field.spec(2, 3), some_row(field)
    generator = torch.Generator().manual_seed(3)
    orders = {
        group: torch.randperm(size, generator=generator) for group, size in spec.group_sizes.items()
    }

    before = field.trace(spec.unflatten(row), some_coords())
    after = field.trace(spec.unflatten(spec.permute(row[None], orders)[0]), some_coords())

    for group, order in orders.items():
        moved = before[group].index_select(2, order)
        torch.testing.assert_close(after[group], moved, rtol=1e-12, atol=1e-12)


def test_a_siren_traces_its_sines() -> None:
    field = Siren(hidden_dim=1, num_layers=2, omega_0=math.pi)
    params = {
        "kernel_net_0.linear.bias": torch.tensor([0.25]),
        "kernel_net_0.linear.kernel": torch.tensor([[1.0]]),
        "output_linear.bias": torch.tensor([1.0]),
        "output_linear.kernel": torch.tensor([[2.0]]),
    }

    trace = field.trace(params, torch.tensor([[0.25]]))

    torch.testing.assert_close(trace["h0"], torch.tensor([[1.0]]))  # sin(pi (1/4 + 1/4))
    torch.testing.assert_close(trace["outputs"], torch.tensor([[3.0]]))


def test_relu_units_trace_what_is_left_of_them() -> None:
    field = MLP(hidden_dim=2, num_layers=1)
    params = {
        "Dense_0.bias": torch.zeros(2),
        "Dense_0.kernel": torch.tensor([[1.0, -1.0]]),
        "Dense_1.bias": torch.zeros(1),
        "Dense_1.kernel": torch.tensor([[1.0], [1.0]]),
    }

    assert field.trace(params, torch.tensor([[3.0]]))["h0"].tolist() == [[3.0, 0.0]]


def test_a_frequency_has_a_sine_and_a_cosine() -> None:
    field = RFFNet(hidden_dim=4, num_layers=2, std=1.0, preset="paper")
    params = dict(field.spec(1, 1).unflatten(torch.zeros(field.spec(1, 1).num_params)))
    params["encoding.coefficients.kernel"] = torch.tensor([[math.pi / 2, math.pi]])

    trace = field.trace(params, torch.tensor([[1.0]]))

    # Frequencies pi/2 and pi at 1: (1, 0) and (0, -1).
    expected = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    torch.testing.assert_close(trace["f"], expected, rtol=0, atol=1e-6)


def test_a_multiplicative_unit_is_the_product_of_its_filter_and_its_linear_map() -> None:
    field = FourierNet(hidden_dim=1, num_filters=2)
    params = {
        "filters_0.linear.bias": torch.tensor([math.pi / 2]),
        "filters_0.linear.kernel": torch.tensor([[0.0]]),
        "filters_1.linear.bias": torch.tensor([math.pi / 6]),
        "filters_1.linear.kernel": torch.tensor([[0.0]]),
        "linears_0.bias": torch.tensor([1.0]),
        "linears_0.kernel": torch.tensor([[3.0]]),
        "output_linear.bias": torch.tensor([0.0]),
        "output_linear.kernel": torch.tensor([[1.0]]),
    }

    trace = field.trace(params, torch.tensor([[0.7]]))

    # z_0 = sin(pi/2) = 1; z_1 = sin(pi/6) (3 * 1 + 1) = 2.
    torch.testing.assert_close(trace["g0"], torch.tensor([[1.0]]))
    torch.testing.assert_close(trace["g1"], torch.tensor([[2.0]]))


def test_the_stream_of_a_shapenet_has_one_value_per_stage() -> None:
    field = ShapeNet(hidden_dim=4, num_blocks=3)
    params = field.spec(2, 3).unflatten(some_row(field))

    trace = field.trace(params, some_coords())

    assert trace["s"].shape == (5, 7, 4, 4)  # before the first block and after every one
    last = trace["s"][..., -1] @ params["output_linear.kernel"] + params["output_linear.bias"]
    torch.testing.assert_close(last, trace["outputs"])
