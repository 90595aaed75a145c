"""What a trial found, as it is kept with the trial and as the questions of a study read it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from classifiers import ClassifierReport
from fitting import FitConfig
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError
from studies.measures import DatasetMeasures

RESULT, COST, ERROR = "result", "cost", "error"
"""User attributes of a trial."""
_RUN = "run-"
"""User attributes of a study begin so: one for each run."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One dataset, one classifier, and what came out.

    Attributes:
        source: Name of the signals.
        field: Name of the fit.
        classifier: Name of the training.
        init: Kind of the start.
        num_steps: Optimizer steps of every field.
        hidden_features: Width of the fields.
        dataset: Key of the dataset in the store.
        training: Key of the training in the store.
        measures: Of the dataset.
        num_seeds: Trainings behind each accuracy.
        train_accuracy: Mean over seeds.
        validation_accuracy: Mean over seeds; what choices are made by.
        test_accuracy: Mean over seeds; for reports, never for choices.
        test_accuracy_sd: Sample standard deviation over seeds.
        chance_accuracy: One over the number of classes.
        majority_accuracy: Of always naming the commonest training class, test split.
        num_parameters: Of the classifier.
    """

    source: str
    field: str
    classifier: str
    init: str
    num_steps: int
    hidden_features: int
    dataset: str
    training: str
    measures: DatasetMeasures
    num_seeds: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    test_accuracy_sd: float
    chance_accuracy: float
    majority_accuracy: float
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class TrialCost:
    """What a trial took; no part of its result. Work found in the store costs nothing.

    Attributes:
        fit_seconds: Wall time of fitting, of a whole series where it yielded several datasets.
        train_seconds: Wall time of training.
        cpu_seconds: Time of all processors of the worker, fitting and training.
        gpu_seconds: Wall time during which it held a GPU.
    """

    fit_seconds: float
    train_seconds: float
    cpu_seconds: float
    gpu_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What one run of a study took that is of the machine and not of a trial.

    Attributes:
        host: The machine.
        device: Where it computed.
        workers: Processes that ran trials.
        seconds: Wall time.
        joules: Energy of the whole machine meanwhile, by counter; empty where none can be read.
    """

    host: str
    device: str
    workers: int
    seconds: float
    joules: dict[str, float]


def result_of(
    *,
    names: tuple[str, str, str],
    fit: FitConfig,
    keys: tuple[str, str],
    measures: DatasetMeasures,
    report: ClassifierReport,
) -> TrialResult:
    """Collect a result; names of source, field and classifier, keys of dataset and training."""
    return TrialResult(
        source=names[0],
        field=names[1],
        classifier=names[2],
        init=fit.init.kind,
        num_steps=fit.num_steps,
        hidden_features=fit.field.hidden_dim,
        dataset=keys[0],
        training=keys[1],
        measures=measures,
        num_seeds=len(report.results),
        train_accuracy=report.train_accuracy,
        validation_accuracy=report.validation_accuracy,
        test_accuracy=report.test_accuracy,
        test_accuracy_sd=report.test_accuracy_sd,
        chance_accuracy=report.chance_accuracy,
        majority_accuracy=report.majority_accuracy,
        num_parameters=report.num_parameters,
    )


def results_of(trials: Iterable[FrozenTrial]) -> list[TrialResult]:
    """Return the results of all finished trials, each once, ordered by what was done.

    A trial that was repeated, as after its worker died, gave the same result.
    """
    found = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and RESULT in trial.user_attrs:
            result = read_result(trial)
            found[result.dataset, result.training] = result
    return sorted(found.values(), key=_order)


def read_result(trial: FrozenTrial) -> TrialResult:
    """Return the result that is kept with a trial.

    Raises:
        ConfigError: If another version of nefbench wrote it.
    """
    try:
        return config_from_mapping(TrialResult, trial.user_attrs[RESULT])
    except ConfigError as error:
        raise ConfigError(
            f"trial {trial.number}: {error}: was it written by this version?"
        ) from None


def plain(result: TrialResult | TrialCost) -> dict[str, object]:
    """Return a result as it is kept with a trial."""
    return config_to_mapping(result)


def keep_run(study: Study, run: RunCost) -> None:
    """Keep with a study what a run of it took."""
    study.set_user_attr(f"{_RUN}{uuid.uuid4().hex}", config_to_mapping(run))


def runs_of(study: Study) -> list[RunCost]:
    """Return what the runs of a study took, killed ones left out."""
    return [
        config_from_mapping(RunCost, value)
        for key, value in study.user_attrs.items()
        if key.startswith(_RUN)
    ]


def _order(result: TrialResult) -> tuple[object, ...]:
    return (
        result.source, result.field, result.classifier, result.init, result.hidden_features,
        result.num_steps, result.training,
    )  # fmt: skip
