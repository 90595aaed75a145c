from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

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
from nefbench.weights.alignment import align
from nefbench.weights.canonical import balance_scales
from nefbench.weights.symmetries import GroupElement, act, random_element, symmetry_kinds

NUM_ROWS = 6
FIELDS: dict[str, FieldConfig] = {
    "siren": Siren(hidden_dim=6, omega_0=30.0),
    "siren-paper": Siren(hidden_dim=5, num_layers=5, omega_0=2.0, preset="paper"),
    "fouriernet": FourierNet(hidden_dim=6),
    "gabornet": GaborNet(hidden_dim=6, num_filters=3),
    "rffnet": RFFNet(hidden_dim=8, num_layers=4),
    "mlp": MLP(hidden_dim=6),
    "shapenet": ShapeNet(hidden_dim=6, omega_0=2.0),
    "shapenet-sine": ShapeNet(hidden_dim=5, num_blocks=3, block="shortcut", omega_0=0.7),
    "shapenet-swish": ShapeNet(hidden_dim=6, block="shortcut", activation="swish"),
}
over_fields = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
over_dims = pytest.mark.parametrize(("in_dim", "out_dim"), [(2, 3), (3, 1), (1, 2)])


def some_rows(spec: ParamSpec, count: int = NUM_ROWS, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, spec.num_params, dtype=torch.float64, generator=generator)


def moved(spec: ParamSpec, rows: Tensor, kinds: list[str] | None = None) -> Tensor:
    draws = Draws(0, tuple(range(len(rows))))
    return act(spec, rows, random_element(spec, draws, kinds, max_phase=80, max_scale=100))


@over_dims
@over_fields
def test_an_aligned_row_computes_the_same_function(
    field: FieldConfig, in_dim: int, out_dim: int
) -> None:
    spec = field.spec(in_dim, out_dim)
    rows, reference = some_rows(spec), some_rows(spec, 1, seed=1)[0]
    coords = 2 * torch.rand(256, in_dim, dtype=torch.float64) - 1

    result = align(field, in_dim, out_dim, rows, reference)

    before, after = evaluate(field, spec, rows, coords), evaluate(field, spec, result, coords)
    difference = (before - after).abs().amax((1, 2)) / before.abs().amax((1, 2))
    assert float(difference.max()) <= 1e-10
    assert bool((result != rows).any(1).all())


@over_dims
@over_fields
def test_a_group_element_on_rows_near_the_reference_is_undone(
    field: FieldConfig, in_dim: int, out_dim: int
) -> None:
    spec = field.spec(in_dim, out_dim)
    reference = some_rows(spec, 1)[0]
    rows = reference + 1e-3 * some_rows(spec, seed=1)
    kinds = [kind for kind in symmetry_kinds(spec) if kind != "scale"]

    result = align(field, in_dim, out_dim, moved(spec, rows, kinds), reference)

    if "scale" in symmetry_kinds(spec):  # then the scales of the reference are brought as well
        result, _ = balance_scales(spec, result)
        rows, _ = balance_scales(spec, rows)
    torch.testing.assert_close(result, rows, rtol=0, atol=1e-10)


@over_fields
def test_the_reference_itself_is_found_from_anywhere_in_its_orbit(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    reference = some_rows(spec, 1)[0]

    result = align(field, 2, 3, moved(spec, reference.expand(NUM_ROWS, -1)), reference)

    torch.testing.assert_close(result, reference.expand(NUM_ROWS, -1), rtol=0, atol=1e-10)


def test_signs_and_phases_are_recovered_at_the_published_start() -> None:
    """Zero biases and kernels of different sizes, 32 units: what fields are really aligned to."""
    field = Siren()
    spec = field.spec(2, 1)
    reference = spec.flatten(field.init(2, 1, Draws(0, (0,))))[0].double()
    rows = reference + 1e-3 * some_rows(spec)

    result = align(field, 2, 1, moved(spec, rows), reference)

    torch.testing.assert_close(result, rows, rtol=0, atol=1e-12)


def test_no_other_group_element_brings_a_small_field_nearer() -> None:
    """Two layers, three units: all orders, signs and phases are tried."""
    field = Siren(hidden_dim=3, num_layers=2, omega_0=1.0)
    spec = field.spec(2, 2)
    # Biases of size 0.5 differ by less than pi: no element with more phase steps comes nearer.
    rows, reference = some_rows(spec) / 2, some_rows(spec, 1, seed=1)[0] / 2
    nearest = torch.full((NUM_ROWS,), math.inf, dtype=torch.float64)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((-1.0, 1.0), repeat=3):
            for steps in itertools.product((-1.0, 0.0, 1.0), repeat=3):
                element = GroupElement(
                    {"h0": torch.tensor(order).expand(NUM_ROWS, -1)},
                    {
                        ("h0", "sign"): torch.tensor(signs).expand(NUM_ROWS, -1),
                        ("h0", "phase"): torch.tensor(steps).expand(NUM_ROWS, -1),
                    },
                )
                distance = (act(spec, rows, element) - reference).square().sum(1)
                nearest = torch.minimum(nearest, distance)

    result = align(field, 2, 2, rows, reference)

    torch.testing.assert_close((result - reference).square().sum(1), nearest)


@over_fields
def test_alignment_brings_rows_nearer_and_a_second_one_changes_nothing(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    reference = some_rows(spec, 1, seed=1)[0]
    rows = moved(spec, some_rows(spec), [k for k in symmetry_kinds(spec) if k != "scale"])

    result = align(field, 2, 3, rows, reference)
    again = align(field, 2, 3, result, reference)

    balanced, _ = balance_scales(spec, torch.stack([reference, *rows, *result, *again]))
    distances = (balanced[1:] - balanced[0]).square().sum(1).reshape(3, NUM_ROWS)
    assert bool((distances[1] < distances[0]).all())
    assert bool((distances[2] <= distances[1] * (1 + 1e-12)).all())


def test_the_scales_of_a_row_become_those_of_the_reference() -> None:
    field = MLP(hidden_dim=6)
    spec = field.spec(2, 3)
    row = some_rows(spec, 1)
    reference = moved(spec, row, ["scale"])[0]

    result = align(field, 2, 3, row, reference)

    torch.testing.assert_close(result[0], reference, rtol=1e-10, atol=0)


def test_one_row_does_not_change_another_and_broken_rows_stay() -> None:
    field = FourierNet(hidden_dim=4, num_filters=2)
    spec = field.spec(2, 1)
    rows, reference = some_rows(spec, 5).float(), some_rows(spec, 1, seed=1)[0]
    rows[1, 3] = math.nan

    result = align(field, 2, 1, rows, reference)

    assert result.dtype == torch.float32
    torch.testing.assert_close(result[1], rows[1], rtol=0, atol=0, equal_nan=True)
    for place in (0, 2, 4):
        alone = align(field, 2, 1, rows[place : place + 1], reference)
        torch.testing.assert_close(result[place], alone[0])
    assert align(field, 2, 1, rows[:0], reference).shape == (0, spec.num_params)


def test_a_reference_that_is_no_row_of_the_field_is_refused() -> None:
    field = MLP(hidden_dim=3)
    rows = some_rows(field.spec(2, 1))

    with pytest.raises(
        ValueError, match=r"^expected a reference of 37 weights \(got shape \(1, 37"
    ):
        align(field, 2, 1, rows, rows[:1])
