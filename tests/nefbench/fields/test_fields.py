from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nefbench.config import config_from_mapping
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
from nefbench.seeding import SHARED_INDEX, Draws
from nefbench.spec import ParamSpec

PRESETS = ("paper", "fit-a-nef", "original")
FIELDS: tuple[FieldConfig, ...] = (
    *(Siren(hidden_dim=6, num_layers=4, omega_0=2.0, preset=preset) for preset in PRESETS),
    *(FourierNet(hidden_dim=6, num_filters=3, preset=preset) for preset in PRESETS),
    GaborNet(hidden_dim=6, num_filters=3, input_scale=2.0),
    *(RFFNet(hidden_dim=6, num_layers=3, std=0.3, preset=preset) for preset in PRESETS),
    MLP(hidden_dim=6, num_layers=3),
    ShapeNet(hidden_dim=6, num_blocks=3, omega_0=1.5),
    ShapeNet(hidden_dim=6, block="shortcut", omega_0=0.7),
    ShapeNet(hidden_dim=6, block="shortcut", activation="swish"),
)
over_fields = pytest.mark.parametrize(
    "field", FIELDS, ids=lambda field: f"{field.kind}-{getattr(field, 'preset', '')}"
)


def some_rows_and_coords(spec: ParamSpec, num_fields: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(num_fields, spec.num_params, generator=generator, dtype=torch.float64)
    coords = 2 * torch.rand(25, 2, generator=generator, dtype=torch.float64) - 1
    return rows, coords


@over_fields
def test_a_start_fits_the_declared_tensors(field: FieldConfig) -> None:
    spec = field.spec(3, 2)

    params = field.init(3, 2, Draws(0, (4, 7)))

    assert [(name, tuple(value.shape)) for name, value in params.items()] == [
        (name, (2, *shape)) for name, shape in spec.layout
    ]
    assert all(value.dtype == torch.float32 for value in params.values())
    assert spec.flatten(params).isfinite().all()


@over_fields
def test_shared_starts_are_equal_and_random_ones_are_not(field: FieldConfig) -> None:
    spec = field.spec(2, 1)

    shared = spec.flatten(field.init(2, 1, Draws(0, (SHARED_INDEX,) * 3)))
    random = spec.flatten(field.init(2, 1, Draws(0, (0, 1, 2))))

    assert torch.equal(shared, shared[:1].expand(3, -1))
    drawn = random.std(0) > 0
    assert drawn.sum() > 0.5 * spec.num_params
    assert not torch.equal(random[0], random[1])


@settings(deadline=None, max_examples=20)
@given(
    field=st.sampled_from(FIELDS),
    indices=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_the_start_of_a_signal_does_not_depend_on_the_other_signals(
    field: FieldConfig, indices: list[int], seed: int
) -> None:
    spec = field.spec(2, 1)

    together = spec.flatten(field.init(2, 1, Draws(seed, tuple(indices))))

    for row, index in zip(together, indices, strict=True):
        assert torch.equal(row, spec.flatten(field.init(2, 1, Draws(seed, (index,))))[0])


@over_fields
def test_starts_of_other_seeds_differ(field: FieldConfig) -> None:
    spec = field.spec(2, 1)

    first, second = (spec.flatten(field.init(2, 1, Draws(seed, (0,)))) for seed in (0, 1))

    assert not torch.equal(first, second)


@over_fields
def test_permuting_any_group_leaves_the_function(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows, coords = some_rows_and_coords(spec)
    before = evaluate(field, spec, rows, coords)
    generator = torch.Generator().manual_seed(5)
    orders = {g: torch.randperm(n, generator=generator) for g, n in spec.group_sizes.items()}

    for permutations in (*({group: order} for group, order in orders.items()), orders):
        permuted = spec.permute(rows, permutations)
        after = evaluate(field, spec, permuted, coords)

        assert not torch.equal(permuted, rows)
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@over_fields
def test_permuting_one_tensor_of_a_group_changes_the_function(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows, coords = some_rows_and_coords(spec)
    before = evaluate(field, spec, rows, coords)

    for group, size in spec.group_sizes.items():
        members = [tensor.name for tensor in spec.tensors if group in tensor.axes]
        assert len(members) >= 2
        for name in members:
            alone = ParamSpec(
                tuple(
                    tensor
                    if tensor.name == name
                    else dataclasses.replace(tensor, axes=(None,) * len(tensor.axes))
                    for tensor in spec.tensors
                )
            )
            permuted = alone.permute(rows, {group: torch.arange(size).roll(1)})
            after = evaluate(field, spec, permuted, coords)
            assert (after - before).abs().max() > 1e-3, (group, name)


@over_fields
def test_every_weight_matters(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows, coords = some_rows_and_coords(spec, 64)
    rows.requires_grad_()

    evaluate(field, spec, rows, coords).square().sum().backward()

    assert rows.grad is not None
    assert (rows.grad.abs().amax(0) > 0).all()


@over_fields
def test_points_may_have_any_leading_axes(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows, coords = some_rows_and_coords(spec)
    params = spec.unflatten(rows[0])

    values = field.apply(params, coords)

    torch.testing.assert_close(field.apply(params, coords[4]), values[4])
    torch.testing.assert_close(
        field.apply(params, coords.reshape(5, 5, 2)), values.reshape(5, 5, 3)
    )


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"kind": "siren", "hidden_dim": 0}, "expected hidden_dim >= 1 (got 0)"),
        ({"kind": "siren", "num_layers": 1}, "expected num_layers >= 2 (got 1)"),
        ({"kind": "siren", "omega_0": 0}, "expected omega_0 > 0 and finite (got 0.0)"),
        ({"kind": "siren", "omega_0": -3}, "expected omega_0 > 0 and finite (got -3.0)"),
        ({"kind": "siren", "omega_0": math.nan}, "expected omega_0 > 0 and finite (got nan)"),
        ({"kind": "siren", "omega_0": math.inf}, "expected omega_0 > 0 and finite (got inf)"),
        ({"kind": "fouriernet", "hidden_dim": 0}, "expected hidden_dim >= 1 (got 0)"),
        ({"kind": "fouriernet", "num_filters": 0}, "expected num_filters >= 1 (got 0)"),
        ({"kind": "fouriernet", "input_scale": 0}, "expected input_scale > 0 and"),
        ({"kind": "fouriernet", "weight_scale": -1}, "expected weight_scale > 0 and"),
        ({"kind": "gabornet", "hidden_dim": 0}, "expected hidden_dim >= 1 (got 0)"),
        ({"kind": "gabornet", "num_filters": 0}, "expected num_filters >= 1 (got 0)"),
        ({"kind": "gabornet", "input_scale": 0}, "expected input_scale > 0 and"),
        ({"kind": "gabornet", "weight_scale": 0}, "expected weight_scale > 0 and"),
        ({"kind": "gabornet", "alpha": 0}, "expected alpha > 0 and"),
        ({"kind": "gabornet", "beta": math.nan}, "expected beta > 0 and"),
        ({"kind": "rffnet", "hidden_dim": 7}, "expected an even hidden_dim (got 7)"),
        ({"kind": "rffnet", "hidden_dim": 0}, "expected hidden_dim >= 2 (got 0)"),
        ({"kind": "rffnet", "num_layers": 1}, "expected num_layers >= 2 (got 1)"),
        ({"kind": "rffnet", "std": 0}, "expected std > 0 and"),
        ({"kind": "mlp", "hidden_dim": 0}, "expected hidden_dim >= 1 (got 0)"),
        ({"kind": "mlp", "num_layers": 0}, "expected num_layers >= 1 (got 0)"),
        ({"kind": "shapenet", "hidden_dim": 0}, "expected hidden_dim >= 1 (got 0)"),
        ({"kind": "shapenet", "num_blocks": 0}, "expected num_blocks >= 1 (got 0)"),
        ({"kind": "shapenet", "omega_0": 0}, "expected omega_0 > 0 and finite (got 0.0)"),
        ({"kind": "shapenet", "activation": "tanh"}, "expected activation 'sine' with residual"),
    ],
)
def test_a_field_that_cannot_exist_is_refused(mapping: dict[str, Any], expected: str) -> None:
    classes = {field.kind: type(field) for field in FIELDS}
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(FieldConfig, mapping)
    assert str(caught.value).startswith(expected)

    arguments = {key: value for key, value in mapping.items() if key != "kind"}
    with pytest.raises(ValueError, match=r"^expected "):
        classes[mapping["kind"]](**arguments)


def test_the_smallest_fields_exist() -> None:
    for field, expected in [
        # One hidden unit, one point axis, one channel: a kernel and a bias per map.
        (Siren(hidden_dim=1, num_layers=2), 4),
        (FourierNet(hidden_dim=1, num_filters=1), 4),
        (GaborNet(hidden_dim=1, num_filters=1), 6),
        (RFFNet(hidden_dim=2, num_layers=2), 1 + 6 + 3),
        (MLP(hidden_dim=1, num_layers=1), 4),
        (ShapeNet(hidden_dim=1, num_blocks=1), 8),
    ]:
        spec = field.spec(1, 1)
        rows = spec.flatten(field.init(1, 1, Draws(0, (0,))))

        assert spec.num_params == expected
        assert evaluate(field, spec, rows, torch.zeros(3, 1)).shape == (1, 3, 1)
