from __future__ import annotations

import dataclasses
import math

import pytest

from fitting import AdamW, FitConfig, Random, Shared, WarmupCosine
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError
from nefbench.fields import MLP, RFFNet, Siren
from nefbench.signals import Views


def test_a_config_is_named_after_its_field_its_width_and_its_start() -> None:
    assert FitConfig().config_name == "siren-h32-shared"
    assert FitConfig(field=MLP(hidden_dim=5), init=Random()).config_name == "mlp-h5-random"


def test_a_given_name_replaces_the_default() -> None:
    assert FitConfig(name="long-fit.2").config_name == "long-fit.2"


@pytest.mark.parametrize(
    ("fraction", "num_points", "expected"),
    [(1.0, 784, 784), (0.5, 784, 392), (0.5, 5, 2), (0.25, 784, 196), (0.01, 64, 1), (1e-9, 9, 1)],
)
def test_a_share_of_the_points_is_rounded_down_but_never_to_nothing(
    fraction: float, num_points: int, expected: int
) -> None:
    assert FitConfig(pixel_fraction=fraction).num_sampled(num_points) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "expected num_steps >= 1"),
        ({"pixel_fraction": 0.0}, "expected 0 < pixel_fraction <= 1"),
        ({"pixel_fraction": 1.01}, "expected 0 < pixel_fraction <= 1"),
        ({"pixel_fraction": math.nan}, "expected 0 < pixel_fraction <= 1"),
        ({"points_per_step": 0}, "expected an even points_per_step"),
        ({"points_per_step": 7}, "expected an even points_per_step"),
        ({"points_per_step": 200_002}, "expected an even points_per_step"),
        ({"until_psnr": 0.0}, "expected 0 < until_psnr < 100"),
        ({"until_psnr": 100.0}, "expected 0 < until_psnr < 100"),
        ({"until_psnr": math.nan}, "expected 0 < until_psnr < 100"),
        ({"num_refits": 0}, "expected num_refits >= 1"),
        ({"seed": 2**63 - 1, "num_refits": 2}, "expected num_refits >= 1"),
        ({"seed": -1}, "expected a seed from 0"),
        ({"seed": 2**63}, "expected a seed from 0"),
        ({"part_rows": 0}, "expected part_rows >= 1"),
        ({"name": ""}, "expected a name"),
        ({"name": "../x"}, "expected a name"),
        ({"name": "a b"}, "expected a name"),
        ({"name": "README.md"}, "expected a name"),
    ],
)
def test_a_value_out_of_range_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitConfig(**settings)  # type: ignore[arg-type]


def test_the_largest_seed_and_a_single_step_are_allowed() -> None:
    config = FitConfig(seed=2**63 - 1, num_steps=1, part_rows=1)

    assert (config.seed, config.num_steps, config.part_rows) == (2**63 - 1, 1, 1)


def test_a_config_survives_the_way_through_plain_data() -> None:
    config = FitConfig(
        field=RFFNet(hidden_dim=6, learnable_coefficients=False),
        init=Random(),
        optimizer=AdamW(learning_rate=3e-4, betas=(0.8, 0.99), weight_decay=0.1),
        schedule=WarmupCosine(warmup_steps=2, decay_steps=7),
        num_steps=11,
        pixel_fraction=0.3,
        until_psnr=31.5,
        views=Views(count=4, flip=True, rotation=10.0),
        num_refits=3,
        points_per_step=64,
        seed=2**62 + 1,
        name="x",
        part_rows=5,
    )

    assert config_from_mapping(FitConfig, config_to_mapping(config)) == config


def test_alternatives_are_chosen_by_their_kind() -> None:
    config = config_from_mapping(FitConfig, {"init": "random", "optimizer": {"kind": "sgd"}})

    assert config.init == Random()
    assert config.optimizer.kind == "sgd"
    with pytest.raises(ConfigError, match=r"optimizer\.kind: expected one of .*did you mean 'adam"):
        config_from_mapping(FitConfig, {"optimizer": {"kind": "adm"}})


def test_a_config_cannot_be_changed_only_replaced() -> None:
    config = FitConfig()

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_steps = 1  # type: ignore[misc]
    assert dataclasses.replace(config, field=Siren(hidden_dim=4)).init == Shared()
