from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from nefbench.errors import ConfigError
from nefbench.fields import (
    MLP,
    FieldConfig,
    FourierNet,
    GaborNet,
    RFFNet,
    ShapeNet,
    Siren,
    evaluate,
)
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec
from nefbench.weights.phase_split import PhaseSplit, phase_split
from nefbench.weights.symmetries import GroupElement, act, random_element

NUM_FIELDS = 4
SIRENS: list[FieldConfig] = [
    Siren(hidden_dim=5, num_layers=2, omega_0=3.0),
    Siren(hidden_dim=5, num_layers=3, omega_0=9.0),
    Siren(hidden_dim=4, num_layers=5, omega_0=2.0, preset="paper"),
]
FILTERS: list[FieldConfig] = [
    FourierNet(hidden_dim=4, num_filters=1),
    FourierNet(hidden_dim=4, num_filters=2),
    FourierNet(hidden_dim=5, num_filters=4),
    GaborNet(hidden_dim=4, num_filters=1),
    GaborNet(hidden_dim=4, num_filters=3),
]


def gaussian(spec: ParamSpec) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_FIELDS, spec.num_params, dtype=torch.float64, generator=generator)


def case(field: FieldConfig) -> tuple[PhaseSplit, Tensor]:
    split = phase_split(field, 2, 3)
    return split, gaussian(split.source)


def values(split: PhaseSplit, rows: Tensor, coords: Tensor) -> Tensor:
    evaluated: Tensor = vmap(lambda row: split.apply(split.spec.unflatten(row), coords))(rows)
    return evaluated


def relative(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.square().mean().sqrt())


def coords() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(256, 2, dtype=torch.float64, generator=generator) - 1


def element(spec: ParamSpec, kind: str, max_phase: int = 1) -> GroupElement:
    draws = Draws(0, tuple(range(NUM_FIELDS)))
    return random_element(spec, draws, [kind], max_phase=max_phase)


@pytest.mark.parametrize("field", [*SIRENS, *FILTERS], ids=str)
def test_split_weights_compute_the_same_function(field: FieldConfig) -> None:
    split, rows = case(field)

    expected = evaluate(field, split.source, rows, coords())

    assert relative(expected, values(split, split.split(rows), coords())) <= 1e-12


def test_a_siren_of_one_unit_is_split_by_hand() -> None:
    split = phase_split(Siren(hidden_dim=1, num_layers=2, omega_0=2.0), 1, 1)
    row = split.source.flatten(
        {
            "kernel_net_0.linear.bias": torch.tensor([[math.pi / 12]]),
            "kernel_net_0.linear.kernel": torch.tensor([[[1.5]]]),
            "output_linear.bias": torch.tensor([[0.25]]),
            "output_linear.kernel": torch.tensor([[[4.0]]]),
        }
    )

    parts = split.spec.unflatten(split.split(row)[0])

    # 2 * 1.5 = 3; the phase is 2 * pi / 12 = pi / 6: 4 sin = 2, 4 cos = 2 sqrt(3)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {
            "kernel_net_0": 3.0,
            "output_linear.cosine": 2.0,
            "output_linear.sine": 2 * math.sqrt(3),
            "output_linear.bias": 0.25,
        }
    )


@pytest.mark.parametrize("field", SIRENS, ids=str)
def test_half_periods_up_to_forty_periods_leave_split_sirens_unchanged(field: FieldConfig) -> None:
    split, rows = case(field)
    moved = act(split.source, rows, element(split.source, "phase", max_phase=80))
    assert relative(rows, moved) > 1

    assert relative(split.split(rows), split.split(moved)) <= 1e-12


@pytest.mark.parametrize("field", [*SIRENS, *FILTERS], ids=str)
@pytest.mark.parametrize("kind", ["sign", "filter-sign", "permutation"])
def test_signs_and_permutations_act_on_split_weights_as_declared(
    field: FieldConfig, kind: str
) -> None:
    split, rows = case(field)
    chosen = element(split.source, kind)

    expected = act(split.spec, split.split(rows), chosen)

    assert relative(expected, split.split(act(split.source, rows, chosen))) <= 1e-12


@pytest.mark.parametrize("field", FILTERS, ids=str)
def test_scales_of_filter_networks_leave_nothing_behind(field: FieldConfig) -> None:
    split, rows = case(field)

    moved = act(split.source, rows, element(split.source, "scale"))

    assert relative(split.split(rows), split.split(moved)) <= 1e-12


@pytest.mark.parametrize("field", FILTERS, ids=str)
def test_half_a_period_is_nothing_at_the_first_filter_and_the_sign_at_the_others(
    field: FieldConfig,
) -> None:
    split, rows = case(field)
    phases = element(split.source, "phase", max_phase=80)
    signs = {
        (group, "sign"): 1 - 2 * steps.remainder(2)
        for (group, _), steps in phases.parameters.items()
        if group != "g0"
    }

    expected = act(split.spec, split.split(rows), GroupElement({}, signs))

    assert relative(expected, split.split(act(split.source, rows, phases))) <= 1e-12


@pytest.mark.parametrize("field", [*SIRENS, *FILTERS], ids=str)
@pytest.mark.parametrize("kind", ["sign", "filter-sign", "permutation"])
def test_declared_symmetries_of_split_weights_keep_the_function(
    field: FieldConfig, kind: str
) -> None:
    split, rows = case(field)
    rows = split.split(rows)

    moved = act(split.spec, rows, element(split.spec, kind))

    assert relative(values(split, rows, coords()), values(split, moved, coords())) <= 1e-10


def test_columns_that_enter_a_product_have_norm_one() -> None:
    split, rows = case(FILTERS[2])

    parts = split.spec.unflatten(split.split(rows))

    columns = [part for name, part in parts.items() if name.startswith("linears_1")]
    squares = sum(part.square().flatten(1, -2).sum(1) if part.ndim == 3 else part.square()
                  for part in columns)  # fmt: skip
    torch.testing.assert_close(squares, torch.ones(NUM_FIELDS, 5, dtype=torch.float64))


def test_gradients_of_a_split_row_are_finite_where_a_linear_map_is_zero() -> None:
    split, rows = case(FILTERS[2])
    rows = torch.zeros_like(rows).requires_grad_()

    split.split(rows).sum().backward()

    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("field", [MLP(), RFFNet(), ShapeNet()], ids=str)
def test_fields_without_phases_of_single_sines_are_refused(field: FieldConfig) -> None:
    with pytest.raises(ConfigError, match=rf"siren, fouriernet and gabornet \(got {field.kind}\)"):
        phase_split(field, 2, 1)
