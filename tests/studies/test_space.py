from __future__ import annotations

import optuna
import pytest

from classifiers import ClassifierConfig
from fitting import Adam, AdamW, FitConfig, Random, Shared
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError
from nefbench.fields import RFFNet, Siren
from studies.space import (
    Choice,
    ClassifierSpace,
    FitSpace,
    Integer,
    Real,
    grid_values,
    suggest_classifier_config,
    suggest_fit_config,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = FitSpace(
    fit=FitConfig(field=RFFNet(hidden_dim=16)),
    space={
        "init.kind": Choice(values=("shared", "random")),
        "num_steps": Choice(values=(5, 15)),
        "optimizer.kind": Choice(values=("adam", "adamw")),
        "optimizer.weight_decay": Real(
            low=1e-8, high=1e-2, log=True, when={"optimizer.kind": "adamw"}
        ),
        "field.hidden_dim": Integer(low=4, high=128, log=True, multiple_of=2),
    },
)


def fixed_trial(**params: object) -> optuna.Trial:
    study = optuna.create_study()
    study.enqueue_trial({name.replace("__", "."): value for name, value in params.items()})
    return study.ask()


def test_a_trial_sets_the_keys_of_the_space_and_nothing_else() -> None:
    trial = fixed_trial(
        init__kind="random", num_steps=15, optimizer__kind="adamw",
        optimizer__weight_decay=1e-4, field__hidden_dim=32,
    )  # fmt: skip

    config = suggest_fit_config(trial, SPACE)

    assert config == FitConfig(
        field=RFFNet(hidden_dim=32), init=Random(), num_steps=15,
        optimizer=AdamW(weight_decay=1e-4),
    )  # fmt: skip


def test_a_key_whose_condition_does_not_hold_is_not_asked_for() -> None:
    trial = fixed_trial(optimizer__kind="adam", init__kind="shared", field__hidden_dim=8)

    config = suggest_fit_config(trial, SPACE)

    assert "optimizer.weight_decay" not in trial.params
    assert config.optimizer == Adam()
    assert config.init == Shared()


def test_a_suggested_width_is_rounded_down_to_a_multiple() -> None:
    config = suggest_fit_config(fixed_trial(field__hidden_dim=37), SPACE)

    assert config.field.hidden_dim == 36


def test_parameters_can_have_a_prefix() -> None:
    trial = optuna.create_study().ask()

    suggest_fit_config(trial, SPACE, "rffnet.")

    assert set(trial.params) >= {"rffnet.init.kind", "rffnet.num_steps"}


def test_classifiers_are_searched_in_the_same_way() -> None:
    space = ClassifierSpace(space={"learning_rate": Real(low=1e-4, high=1e-2, log=True)})
    trial = fixed_trial(learning_rate=5e-3)

    assert suggest_classifier_config(trial, space) == ClassifierConfig(learning_rate=5e-3)


def test_a_grid_is_every_combination_that_the_conditions_allow() -> None:
    values = list(
        grid_values(
            {
                "optimizer.kind": Choice(values=("adam", "adamw")),
                "optimizer.weight_decay": Choice(
                    values=(0.0, 0.1), when={"optimizer.kind": "adamw"}
                ),
                "num_steps": Choice(values=(1, 2)),
            }
        )
    )

    assert values == [
        {"optimizer.kind": "adam", "num_steps": 1},
        {"optimizer.kind": "adam", "num_steps": 2},
        {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.0, "num_steps": 1},
        {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.0, "num_steps": 2},
        {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.1, "num_steps": 1},
        {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.1, "num_steps": 2},
    ]


def test_a_space_survives_the_way_through_plain_data() -> None:
    assert config_from_mapping(FitSpace, config_to_mapping(SPACE)) == SPACE


# Refusals


@pytest.mark.parametrize(
    ("key", "dimension", "text"),
    [
        ("field.num_filters", Choice(values=(2,)), r"'field.num_filters' = 2: unknown key"),
        ("field.omega_0", Real(low=-1, high=9), r"'field.omega_0' = -1.*omega_0"),
        ("num_steps", Integer(low=0, high=9), r"'num_steps' = 0: expected num_steps >= 1"),
        ("init.kind", Choice(values=("warm",)), r"'init.kind' = 'warm': .*expected one of"),
        ("num_steps", Choice(values=(1,), when={"init.kind": "shared"}), "listed before it"),
    ],
)  # fmt: skip
def test_a_space_that_the_fit_does_not_have_is_refused_at_once(
    key: str, dimension: Choice | Integer | Real, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        FitSpace(fit=FitConfig(field=Siren()), space={key: dimension})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Choice(values=()), "at least one value"),
        (lambda: Choice(values=(1, 1)), "different values"),
        (lambda: Integer(low=3, high=2), "low <= high"),
        (lambda: Real(low=0, high=1, log=True), "low > 0 for a logarithm"),
        (lambda: Integer(low=2, high=9, multiple_of=4), "multiple_of from 1 to low = 2"),
    ],
)
def test_a_dimension_without_sense_is_refused(make: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()  # type: ignore[operator]


def test_one_and_true_are_different_choices() -> None:
    assert Choice(values=(1, True)).values == (1, True)


def test_a_grid_over_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="'num_steps': a grid needs choices"):
        list(grid_values({"num_steps": Integer(low=1, high=9)}))
