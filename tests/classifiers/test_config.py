from __future__ import annotations

import math
from typing import Any

import pytest

from classifiers import MLP, Augmentation, ClassifierConfig
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError


def test_the_default_is_the_setting_of_independent_replications() -> None:
    config = ClassifierConfig()

    assert config.model == MLP(
        hidden_dims=(1024, 512, 256), activation="gelu", batch_norm=False, dropout=0.1
    )
    assert config.learning_rate == 1e-3
    assert config.num_epochs == 100
    assert config.patience == 15
    assert config.noise_std == 0.0
    assert config.seeds == (0, 1, 2)
    assert (config.schedule, config.warmup_steps) == ("constant", 0)
    assert (config.gauge_fixing, config.augmentation) == ("none", Augmentation())
    assert (config.gradient_clip, config.ema_decay, config.precision) == (None, None, "float32")
    assert (config.compile, config.on_nan, config.target) == (False, "stop", "class")


@pytest.mark.parametrize(
    ("target", "properties"), [("class", ()), ("age", ("age",)), (("a", "b"), ("a", "b"))]
)
def test_the_target_is_the_class_or_one_or_several_properties(
    target: Any, properties: tuple[str, ...]
) -> None:
    assert ClassifierConfig(target=target).properties == properties


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, r"expected learning_rate > 0 \(got 0.0\)"),
        ({"learning_rate": -1.0}, "expected learning_rate > 0"),
        ({"learning_rate": math.inf}, "expected learning_rate > 0"),
        ({"learning_rate": math.nan}, "expected learning_rate > 0"),
        ({"weight_decay": -1e-9}, "expected weight_decay >= 0"),
        ({"weight_decay": math.nan}, "expected weight_decay >= 0"),
        ({"noise_std": -0.1}, "expected noise_std >= 0"),
        ({"noise_std": math.inf}, "expected noise_std >= 0"),
        ({"batch_size": 1}, r"expected batch_size >= 2 \(got 1\)"),
        ({"num_epochs": 0}, r"expected num_epochs >= 1 \(got 0\)"),
        ({"patience": 0}, r"expected patience >= 1 \(got 0\)"),
        ({"warmup_steps": -1}, r"expected warmup_steps >= 0 \(got -1\)"),
        ({"gradient_clip": 0.0}, r"expected gradient_clip > 0 \(got 0.0\)"),
        ({"gradient_clip": math.nan}, "expected gradient_clip > 0"),
        ({"ema_decay": 1.0}, r"expected 0 < ema_decay < 1 \(got 1.0\)"),
        ({"ema_decay": 0.0}, "expected 0 < ema_decay < 1"),
        (
            {"gauge_fixing": "aligned", "augmentation": Augmentation(gauge=("sign", "phase"))},
            r"^gauge_fixing = 'aligned' takes away what augmentation\.gauge = \['sign', 'phase'\] "
            r"brings in; leave out one of them$",
        ),
        (
            {"gauge_fixing": "canonical", "augmentation": Augmentation(gauge=("sign",))},
            "gauge_fixing = 'canonical' takes away",
        ),
        ({"target": ()}, "expected target 'class', or properties that differ"),
        ({"target": ("a", "a")}, "expected target 'class', or properties that differ"),
        ({"target": ("a", "class")}, "expected target 'class', or properties that differ"),
        ({"seeds": ()}, "expected seeds that differ"),
        ({"seeds": (1, 2, 1)}, r"expected seeds that differ and are >= 0 \(got \(1, 2, 1\)\)"),
        ({"seeds": (-1,)}, "expected seeds that differ and are >= 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"gauge_fixing": "aligned", "augmentation": Augmentation(flip=True, rotation=10.0)},
     {"weight_decay": 0.0}, {"batch_size": 2}, {"num_epochs": 1}, {"patience": 1},
     {"patience": None}, {"seeds": (7,)}],
)  # fmt: skip
def test_the_values_on_the_border_are_accepted(settings: dict[str, Any]) -> None:
    ClassifierConfig(**settings)


def test_a_configuration_survives_the_way_through_plain_data() -> None:
    config = ClassifierConfig(
        model=MLP(hidden_dims=(3,), activation="relu", batch_norm=True, dropout=0.0),
        patience=None,
        seeds=(4, 5),
        target=("a", "b"),
        augmentation=Augmentation(gauge=("sign",), mixup=0.2),
    )

    assert config_from_mapping(ClassifierConfig, config_to_mapping(config)) == config


def test_the_form_of_the_rows_is_part_of_the_plain_data_and_one_of_three() -> None:
    config = ClassifierConfig(gauge_fixing="aligned")

    assert config_from_mapping(ClassifierConfig, config_to_mapping(config)) == config
    with pytest.raises(ConfigError, match=r"gauge_fixing: .*'canonical'.*got 'algined'"):
        config_from_mapping(ClassifierConfig, {"gauge_fixing": "algined"})


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.kind: .*'mlp'.*got 'mpl'"):
        config_from_mapping(ClassifierConfig, {"model": {"kind": "mpl"}})
