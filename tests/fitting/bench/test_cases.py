from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fitting.bench import QUICK, BenchConfig, Case
from fitting.bench.cases import flop_per_field_step, sines_per_field_step, targets
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=8),
    Siren(hidden_dim=6, num_layers=5),
    Siren(hidden_dim=6, num_layers=2),
    RFFNet(hidden_dim=8, num_layers=5),
    RFFNet(hidden_dim=8, learnable_coefficients=False),
    FourierNet(hidden_dim=8),
    FourierNet(hidden_dim=8, num_filters=1),
    GaborNet(hidden_dim=8),
    MLP(hidden_dim=8),
    ShapeNet(hidden_dim=8),
    ShapeNet(hidden_dim=8, block="shortcut", activation="tanh"),
]


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("width", [8, 32, 64])
def test_a_siren_of_three_layers_takes_six_h_squared_and_fourteen_h_per_pixel(
    width: int, side: int
) -> None:
    case = Case(field=Siren(hidden_dim=width), side=side)

    assert case.flop == side**2 * (6 * width**2 + 14 * width)


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_operations_are_those_that_torch_counts(field: FieldConfig) -> None:
    spec = field.spec(2, 1)
    params = {
        tensor.name: torch.rand(tensor.shape).requires_grad_(tensor.trainable)
        for tensor in spec.tensors
    }

    with FlopCounterMode(display=False) as counter:
        field.apply(params, torch.rand(5, 2)).sum().backward()

    assert flop_per_field_step(spec, 5) == counter.get_total_flops()


def test_a_siren_takes_a_sine_and_a_cosine_per_hidden_unit_and_pixel() -> None:
    # section 1 of the reference: 2h of each at three layers
    assert sines_per_field_step(Case(field=Siren(), side=8)) == 64 * 4 * 32
    assert sines_per_field_step(Case(field=MLP(), side=8)) == 0


@pytest.mark.parametrize("side", [5, 8, 28])
def test_targets_are_standardised_images_and_do_not_depend_on_their_number(side: int) -> None:
    many, few = targets(40, side), targets(3, side)

    assert many.shape == (40, side**2, 1)
    assert torch.equal(many[:3], few)
    assert float(many.mean()) == pytest.approx(0, abs=0.1)
    assert float(many.std()) == pytest.approx(1, abs=0.1)
    assert not torch.equal(many[0], many[1])


def test_more_fields_than_digits_repeat_them() -> None:
    many = targets(1800, 8)

    assert torch.equal(many[1797:], many[:3])


def test_smooth_images_are_smooth() -> None:
    image = targets(1, 28).reshape(28, 28)

    assert float(image.diff(dim=0).abs().max()) < 0.5 * float(image.max() - image.min())


def test_all_fields_start_from_the_shared_row_of_seed_zero() -> None:
    block = Case(field=Siren(hidden_dim=4), side=4).block(3)

    assert torch.equal(block.start[0], block.start[2])
    assert block.targets.shape == (3, 16, 1)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (Siren(), "siren 3x32 8x8"),
        (RFFNet(num_layers=5), "rffnet 5x32 8x8"),
        (FourierNet(hidden_dim=64), "fouriernet 4x64 8x8"),
    ],
)
def test_a_case_is_named_by_family_depth_width_and_grid(field: FieldConfig, name: str) -> None:
    assert Case(field=field, side=8).name == name


def test_the_full_run_measures_every_family_at_three_widths_and_two_sizes_once() -> None:
    config = BenchConfig()
    cases = [*config.headline, *config.others]

    assert len({case.name for case in cases}) == len(cases)
    for kind in ("siren", "rffnet", "fouriernet"):
        found = {(c.field.hidden_dim, c.side) for c in cases if c.field.kind == kind}
        assert found == {(width, side) for width in (8, 32, 64) for side in (8, 28)}
    assert {c.field.kind for c in cases} >= {"gabornet", "mlp"}
    assert [case.name for case in QUICK.headline] == [
        "siren 3x32 8x8", "siren 3x32 28x28", "rffnet 5x32 28x28", "fouriernet 4x32 28x28",
    ]  # fmt: skip


@pytest.mark.parametrize("config", [BenchConfig(), QUICK])
def test_a_config_survives_json(config: BenchConfig) -> None:
    assert config_from_mapping(BenchConfig, config_to_mapping(config)) == config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("repetitions", 0, "expected repetitions >= 1"),
        ("check_fields", 0, "expected check_fields >= 1"),
        ("check_steps", 0, "expected check_steps >= 1"),
        ("seconds", 0.0, "expected seconds > 0"),
        ("without", ("nobody",), "without: nobody is called 'nobody'; there are: one by one, jax"),
        ("without", ("vmapped",), "without: vmapped is what the others are compared with"),
        ("headline", (), "expected at least one headline case"),
    ],
)
def test_impossible_settings_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BenchConfig(), **{key: value})


def test_a_case_has_at_least_one_pixel() -> None:
    with pytest.raises(ConfigError, match="expected side >= 1"):
        config_from_mapping(Case, {"field": "siren", "side": 0})
