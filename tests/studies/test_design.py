from __future__ import annotations

import dataclasses

import optuna
import pytest

from classifiers import ClassifierConfig
from fitting import FitConfig, Random
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError
from nefbench.fields import RFFNet, Siren
from nefbench.signals import DigitsConfig
from studies.design import Grid, Search, StudyConfig, grid_params, steps_of, suggest_point
from studies.space import Choice, ClassifierSpace, FitSpace, Integer

optuna.logging.set_verbosity(optuna.logging.ERROR)

STEPS = Choice(values=(5, 50))
STARTS = Choice(values=("shared", "random"))
ONE = StudyConfig(
    name="one",
    sources={"digits": DigitsConfig()},
    fields={"siren": FitSpace(space={"init.kind": STARTS, "num_steps": STEPS})},
    design=Grid(),
)
SEVERAL = StudyConfig(
    name="several",
    sources={"digits": DigitsConfig(), "few": DigitsConfig(max_signals=600)},
    fields={
        "siren": FitSpace(fit=FitConfig(field=Siren(hidden_dim=8)), space={"num_steps": STEPS}),
        "rffnet": FitSpace(fit=FitConfig(field=RFFNet(hidden_dim=8), num_steps=7)),
    },
    classifiers={
        "mlp": ClassifierSpace(),
        "short": ClassifierSpace(
            classifier=ClassifierConfig(num_epochs=2), space={"batch_size": Choice(values=(8, 16))}
        ),
    },
    design=Grid(),
)


def test_names_that_are_no_choice_are_no_parameters() -> None:
    assert grid_params(ONE) == [
        {"init.kind": "shared", "num_steps": 5},
        {"init.kind": "random", "num_steps": 5},
        {"init.kind": "shared", "num_steps": 50},
        {"init.kind": "random", "num_steps": 50},
    ]


def test_a_grid_over_everything_has_every_combination_once_short_fits_first() -> None:
    params = grid_params(SEVERAL)

    # Two sources, three fits (5, 50 and 7 steps), three trainings.
    assert len(params) == len(set(map(repr, params))) == 2 * 3 * 3
    steps = [p.get("siren.num_steps", 7) for p in params]
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert {"source": "few", "field": "siren", "classifier": "short", "siren.num_steps": 50,
            "short.batch_size": 16} in params  # fmt: skip


def test_of_fits_with_as_many_steps_the_widest_come_first() -> None:
    widths = Choice(values=(4, 16, 8))
    space = FitSpace(space={"field.hidden_dim": widths, "num_steps": STEPS})
    config = dataclasses.replace(ONE, fields={"siren": space})

    points = [(p["num_steps"], p["field.hidden_dim"]) for p in grid_params(config)]

    assert points == [(5, 16), (5, 8), (5, 4), (50, 16), (50, 8), (50, 4)]


def test_a_trial_of_the_grid_becomes_the_point_that_its_parameters_say() -> None:
    study = optuna.create_study()
    study.enqueue_trial(
        {"source": "few", "field": "siren", "classifier": "short", "siren.num_steps": 50,
         "short.batch_size": 16}
    )  # fmt: skip

    point = suggest_point(study.ask(), SEVERAL)

    assert (point.source, point.field, point.classifier) == ("few", "siren", "short")
    assert point.fit == FitConfig(field=Siren(hidden_dim=8), num_steps=50)
    assert point.training == ClassifierConfig(num_epochs=2, batch_size=16)


def test_a_point_of_a_study_of_one_needs_no_names() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"init.kind": "random", "num_steps": 5})

    point = suggest_point(study.ask(), ONE)

    assert point.fit == FitConfig(init=Random(), num_steps=5)
    assert (point.source, point.field, point.classifier) == ("digits", "siren", "mlp")


def test_a_grid_knows_which_steps_one_fit_shall_yield() -> None:
    assert steps_of(ONE, "siren") == (5, 50)
    assert steps_of(SEVERAL, "rffnet") == ()
    assert steps_of(dataclasses.replace(ONE, design=Search()), "siren") == ()


def test_how_long_a_search_goes_on_is_no_part_of_what_it_is() -> None:
    short = dataclasses.replace(ONE, design=Search(num_trials=3))
    long = dataclasses.replace(ONE, design=Search(num_trials=9))

    assert short.identity == long.identity
    assert short.identity != dataclasses.replace(ONE, design=Search(seed=1)).identity


def test_a_study_survives_the_way_through_plain_data() -> None:
    assert config_from_mapping(StudyConfig, config_to_mapping(SEVERAL)) == SEVERAL


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sources": {}}, "at least one of sources"),
        ({"fields": {"a.b": FitSpace()}}, "names of letters.*'a.b'"),
        ({"name": "a/b"}, "names of letters.*'a/b'"),
        ({"fields": {"siren": FitSpace(space={"num_steps": Integer(low=1, high=2)})}},
         "a grid needs choices"),
        ({"classifiers": {"r": ClassifierSpace(classifier=ClassifierConfig(target="x"))}},
         "compares accuracies"),
    ],
)  # fmt: skip
def test_a_study_without_sense_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(ONE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"num_trials": 0}, "num_trials >= 1"),
        ({"objectives": ()}, "one or two different objectives"),
        ({"objectives": ("quality",), "pruning": True}, "pruning needs validation_accuracy"),
        ({"seed": -1}, "expected a seed"),
    ],
)
def test_a_search_without_sense_is_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Search(**settings)  # type: ignore[arg-type]


def test_an_unknown_objective_is_refused_with_the_choice() -> None:
    mapping = config_to_mapping(dataclasses.replace(ONE, design=Search()))
    mapping["design"]["objectives"] = ["test_accuracy"]

    with pytest.raises(ConfigError, match=r"design.objectives"):
        config_from_mapping(StudyConfig, mapping)
