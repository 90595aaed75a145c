"""A study as data: which signals, fits and classifiers, and how combinations of them are chosen."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from classifiers import ClassifierConfig
from fitting import FitConfig
from nefbench.config import config_to_mapping
from nefbench.signals import SignalsConfig
from studies.space import (
    Choice,
    ClassifierSpace,
    FitSpace,
    Value,
    grid_values,
    suggest_classifier_config,
    suggest_fit_config,
)

if TYPE_CHECKING:
    from optuna import Trial

Objective = Literal["validation_accuracy", "quality"]
"""What is maximised: the accuracy of the classifier on validation fields, mean over its seeds; or
the mean quality of the fields on the points fitted to (PSNR in dB, IoU)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Every combination of choices, short fits first."""

    kind: Literal["grid"] = "grid"

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the value of a trial is."""
        return ("validation_accuracy",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Trials chosen by a sampler from what earlier ones found."""

    kind: Literal["search"] = "search"
    num_trials: int = 100
    """Trials in all; a finished study goes on when this is raised."""
    objectives: tuple[Objective, ...] = ("validation_accuracy",)
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """``tpe``: multivariate tree-structured Parzen estimator (Bergstra et al. 2011; Falkner et al.
    2018), grouped where keys are conditional; ``nsga2``: Deb et al. 2002, for two objectives."""
    pruning: bool = False
    """Stop a training whose validation accuracy is below the median of earlier trials at the same
    epoch (after five trials and two epochs)."""
    seed: int = 0
    """Of the sampler. One worker repeats the same trials; several depend on who is first."""

    def __post_init__(self) -> None:
        if self.num_trials < 1:
            raise ValueError(f"expected num_trials >= 1 (got {self.num_trials})")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"expected one or two different objectives (got {self.objectives})")
        if self.pruning and self.objectives != ("validation_accuracy",):
            raise ValueError("pruning needs validation_accuracy as the only objective")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"expected a seed from 0 to 2**32 - 1 (got {self.seed})")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The content of a TOML file for ``nefbench study``."""

    name: str
    """Name of the study in its storage."""
    sources: dict[str, SignalsConfig]
    """What is fitted, by a name for tables and figures."""
    fields: dict[str, FitSpace]
    """How it is fitted, and what of that is varied, by a name: one for each architecture."""
    classifiers: dict[str, ClassifierSpace] = dataclasses.field(
        default_factory=lambda: {"mlp": ClassifierSpace()}
    )
    """What reads the weights, by a name."""
    design: Grid | Search = Search()

    def __post_init__(self) -> None:
        tables: dict[str, Mapping[str, object]] = {
            "sources": self.sources, "fields": self.fields, "classifiers": self.classifiers,
        }  # fmt: skip
        for what, named in tables.items():
            if not named:
                raise ValueError(f"expected at least one of {what}")
        for name in (self.name, *self.sources, *self.fields, *self.classifiers):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"expected names of letters, digits, '_', '+' and '-' (got {name!r})"
                )
        for label, space in self.classifiers.items():
            if space.classifier.properties:
                raise ValueError(f"classifiers.{label}: a study compares accuracies; leave target")
        if isinstance(self.design, Grid):
            num_points(self)

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs of one study have in common, as plain data: all but how long it goes on."""
        mapping = config_to_mapping(self)
        mapping["design"].pop("num_trials", None)
        return mapping


@dataclass(frozen=True)
class Point:
    """One combination: what a trial does.

    Attributes:
        source: Name of the signals.
        field: Name of the fit.
        classifier: Name of the training.
        fit: The fit.
        training: The training.
    """

    source: str
    field: str
    classifier: str
    fit: FitConfig
    training: ClassifierConfig


def suggest_point(trial: Trial, config: StudyConfig) -> Point:
    """Let a trial choose a combination.

    Parameters are named ``source``, ``field`` and ``classifier`` where there are several, and by
    the keys of the spaces; keys are preceded by ``FIELD.`` or ``CLASSIFIER.`` where there are
    several of those, keys of the only classifier by ``classifier.``.
    """
    source = _suggest_name(trial, "source", config.sources)
    field = _suggest_name(trial, "field", config.fields)
    classifier = _suggest_name(trial, "classifier", config.classifiers)
    return Point(
        source=source,
        field=field,
        classifier=classifier,
        fit=suggest_fit_config(trial, config.fields[field], _fit_prefix(config, field)),
        training=suggest_classifier_config(
            trial, config.classifiers[classifier], _training_prefix(config, classifier)
        ),
    )


def grid_params(config: StudyConfig) -> list[dict[str, Value]]:
    """Return the parameters of every point of a grid: short fits first, of these wide fields first.

    So the first trials are fits of different series, each of which yields all numbers of steps, and
    of several workers none waits long for the series of another: the longest begin first.

    Raises:
        ConfigError: If a key is varied over a range.
    """
    points = sorted(_grid_points(config), key=lambda p: (p[0].num_steps, -p[0].field.hidden_dim))
    return [params for _, params in points]


def num_points(config: StudyConfig) -> int:
    """Number of trials of a grid; see ``grid_params``."""
    return len(grid_params(config))


def steps_of(config: StudyConfig, field: str) -> tuple[int, ...]:
    """Numbers of steps that a grid will ask of a field: one fit yields them all."""
    dimension = config.fields[field].space.get("num_steps")
    if not isinstance(config.design, Grid) or not isinstance(dimension, Choice):
        return ()
    return tuple(value for value in dimension.values if isinstance(value, int))


def _grid_points(config: StudyConfig) -> Iterator[tuple[FitConfig, dict[str, Value]]]:
    for source in config.sources:
        for field, fit in config.fields.items():
            for values in grid_values(fit.space):
                one = fit.config(values)
                for classifier, training in config.classifiers.items():
                    for others in grid_values(training.space):
                        names = {"source": source, "field": field, "classifier": classifier}
                        yield (
                            one,
                            _named(config, names)
                            | _prefixed(_fit_prefix(config, field), values)
                            | _prefixed(_training_prefix(config, classifier), others),
                        )


def _named(config: StudyConfig, names: Mapping[str, str]) -> dict[str, Value]:
    counts = {
        "source": len(config.sources),
        "field": len(config.fields),
        "classifier": len(config.classifiers),
    }
    return {what: name for what, name in names.items() if counts[what] > 1}


def _prefixed(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    return {f"{prefix}{key}": value for key, value in values.items()}


_Named = TypeVar("_Named")


def _suggest_name(trial: Trial, what: str, named: Mapping[str, _Named]) -> str:
    names = list(named)
    return names[0] if len(names) == 1 else str(trial.suggest_categorical(what, names))


def _fit_prefix(config: StudyConfig, field: str) -> str:
    return f"{field}." if len(config.fields) > 1 else ""


def _training_prefix(config: StudyConfig, classifier: str) -> str:
    return f"{classifier}." if len(config.classifiers) > 1 else "classifier."
