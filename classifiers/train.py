"""Train a classifier or regressor on weights: fit on train, choose on validation, test once."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from classifiers.checkpoint import TrainedClassifier, checkpoint_name, save_classifier
from classifiers.config import ClassifierConfig
from classifiers.evaluation import (
    PropertyErrors,
    accuracy_of,
    calibration_of,
    confusion_of,
    errors_of,
)
from classifiers.examples import Examples, LabelledRows, examples_from_dataset
from classifiers.folder import REPORT_NAME, Finished, TrainingFolder
from classifiers.gauge_fixing import fix_gauge, reference_row
from classifiers.loop import Training
from classifiers.reader import WeightReader, read_rows
from classifiers.report import (
    ClassifierReport,
    Epoch,
    RegressionEpoch,
    RegressionReport,
    RegressionResult,
    SeedResult,
    Timing,
)
from nefbench.errors import Interrupted, TrainingError
from nefbench.weights import NeuralDataset

__all__ = ["REPORT_NAME", "Progress", "train_classifier", "train_on_examples", "train_regressor"]

Progress = Callable[[int, int, float], None]
"""Told ``(index of the seed, epoch, validation accuracy or R2)`` after every epoch."""

FixingProgress = Callable[[str, int, int], None]
"""Told ``("reference", "canonical" or "aligned", rows done, rows in all)``."""

Splits = dict[str, LabelledRows]
ResultT = TypeVar("ResultT", SeedResult, RegressionResult)


def train_classifier(
    dataset: NeuralDataset,
    config: ClassifierConfig,
    out: Path | str | None = None,
    *,
    device: str = "cpu",
    on_epoch: Progress = lambda *_: None,
    on_fixed: FixingProgress = lambda *_: None,
) -> ClassifierReport:
    """Train one classifier per seed on the weights of a neural dataset.

    Args:
        dataset: Weights with labels and the splits train, validation, test.
        config: The recipe.
        out: Folder for ``report.json`` and one checkpoint per seed; nothing is written if None.
            A training that was stopped goes on where it was, a finished one is read.
        device: ``cpu`` or ``cuda``.
        on_epoch: Progress.
        on_fixed: Progress of ``config.gauge_fixing``, which comes first, once for all seeds.

    Raises:
        TrainingError: If the dataset cannot be classified as it is, or ``out`` holds another
            training.
        DatasetFormatError: If it is unfinished or damaged.
        Interrupted: On Ctrl-C; finished seeds, and the one under way up to some seconds ago, are
            in ``out``.
    """
    if config.properties:
        raise TrainingError(f"target {config.target!r} is no class: use train_regressor")
    examples = examples_from_dataset(dataset, on_nan=config.on_nan)
    return train_on_examples(
        examples, config, out, device=device, on_epoch=on_epoch, on_fixed=on_fixed
    )


def train_on_examples(
    examples: Examples,
    config: ClassifierConfig,
    out: Path | str | None = None,
    *,
    device: str = "cpu",
    on_epoch: Progress = lambda *_: None,
    on_fixed: FixingProgress = lambda *_: None,
) -> ClassifierReport:
    """Train one classifier per seed on any labelled rows; see ``train_classifier``."""
    folder = TrainingFolder(_path(out), config, examples.digest)
    known = folder.report(ClassifierReport)
    if known is not None:
        return known
    trained = _train_seeds(
        examples, config, folder, _path(out), device, on_epoch, on_fixed, SeedResult,
        _classifier_result,
    )  # fmt: skip
    report = ClassifierReport(
        name=examples.name,
        config=config,
        access=config.model.access,
        class_names=examples.class_names,
        results=trained.results,
        timings=trained.timings,
        num_parameters=trained.num_parameters,
        num_rows={name: len(part) for name, part in examples.splits.items()},
        num_excluded=examples.num_excluded,
        num_skipped=examples.num_skipped,
        chance_accuracy=1 / len(examples.class_names),
        majority_accuracy=_majority_accuracy(examples),
        dataset_digest=examples.digest,
        seconds=trained.seconds,
    )
    folder.write_report(report)
    return report


def train_regressor(
    dataset: NeuralDataset,
    config: ClassifierConfig,
    out: Path | str | None = None,
    *,
    device: str = "cpu",
    on_epoch: Progress = lambda *_: None,
    on_fixed: FixingProgress = lambda *_: None,
) -> RegressionReport:
    """Train one network per seed that reads numeric properties of signals from weights.

    ``config.target`` names them. Every property is standardised by the mean and the standard
    deviation of the training split, the loss is the mean squared error, and the epoch is chosen
    by the validation R2, averaged over properties. Else as ``train_classifier``.
    """
    if not config.properties:
        raise TrainingError("target 'class' is no property: use train_classifier")
    examples = examples_from_dataset(dataset, config.properties, on_nan=config.on_nan)
    folder = TrainingFolder(_path(out), config, examples.digest)
    known = folder.report(RegressionReport)
    if known is not None:
        return known
    trained = _train_seeds(
        examples, config, folder, _path(out), device, on_epoch, on_fixed, RegressionResult,
        _regression_result,
    )  # fmt: skip
    report = RegressionReport(
        name=examples.name,
        config=config,
        access=config.model.access,
        results=trained.results,
        timings=trained.timings,
        num_parameters=trained.num_parameters,
        num_rows={name: len(part) for name, part in examples.splits.items()},
        num_excluded=examples.num_excluded,
        num_skipped=examples.num_skipped,
        baseline=_baseline(examples),
        dataset_digest=examples.digest,
        seconds=trained.seconds,
    )
    folder.write_report(report)
    return report


@dataclass(frozen=True)
class _Trained(Generic[ResultT]):
    results: tuple[ResultT, ...]
    timings: tuple[Timing, ...]
    num_parameters: int
    seconds: float


_Measure = Callable[[Training, WeightReader, Splits, ClassifierConfig], ResultT]


def _train_seeds(
    examples: Examples,
    config: ClassifierConfig,
    folder: TrainingFolder,
    out: Path | None,
    device: str,
    on_epoch: Progress,
    on_fixed: FixingProgress,
    kind: type[ResultT],
    measure: _Measure[ResultT],
) -> _Trained[ResultT]:
    begin = time.perf_counter()
    finished = folder.load(kind, torch.device(device))
    reference = None
    if len(finished) < len(config.seeds):
        examples, reference = _fixed(examples, config, on_fixed)
    splits = {
        name: LabelledRows(part.rows.to(device), part.labels.to(device))
        for name, part in examples.splits.items()
    }
    kept_seconds = sum(sum(item.timing.epoch_seconds) for item in finished)
    for index, seed in enumerate(config.seeds):
        if index < len(finished):
            continue
        training = Training(examples, splits, config, seed)
        folder.resume(training)
        kept_seconds += sum(record.seconds for record in training.records)
        try:
            _run(training, folder, partial(on_epoch, index))
        except KeyboardInterrupt as error:
            raise Interrupted(_where_stopped(training, index, config, out)) from error
        network = training.best_network()
        result = measure(training, network, splits, config)
        if out is not None:
            trained = TrainedClassifier(
                network.cpu(), config, examples.space, examples.class_names, examples.digest,
                examples.property_names, training.scale and training.scale.cpu(), reference,
            )  # fmt: skip
            save_classifier(trained, out / checkpoint_name(seed))
        item = Finished(result, _timing(training, splits), training.num_parameters)
        finished.append(item)
        folder.keep_finished(item)
    return _Trained(
        tuple(item.result for item in finished),
        tuple(item.timing for item in finished),
        finished[-1].num_parameters,
        kept_seconds + time.perf_counter() - begin,
    )


def _fixed(
    examples: Examples, config: ClassifierConfig, on_fixed: FixingProgress
) -> tuple[Examples, Tensor | None]:
    """Return examples in the form of ``config.gauge_fixing``, and the reference of ``aligned``.

    The reference is a function of the training rows: a training that was stopped finds the same
    one again when it goes on.
    """
    kind, space, splits = config.gauge_fixing, examples.space, examples.splits
    if kind == "none":
        return examples, None
    with torch.random.fork_rng(devices=[]):
        config.model.build(space, examples.num_outputs)  # what it cannot read shows now
    reference = None
    if kind == "aligned":
        on_rows = partial(on_fixed, "reference")
        reference = reference_row(space, splits["train"].rows, on_rows=on_rows)
    fixed, before, total = {}, 0, sum(map(len, splits.values()))

    def count(before: int, done: int, _: int) -> None:
        on_fixed(kind, before + done, total)

    for name, part in splits.items():
        rows = fix_gauge(kind, space, part.rows, reference, on_rows=partial(count, before))
        fixed[name] = LabelledRows(rows, part.labels)
        before += len(part)
    return dataclasses.replace(examples, splits=fixed), reference


def _run(
    training: Training, folder: TrainingFolder, on_epoch: Callable[[int, float], None]
) -> None:
    while not training.is_done:
        training.run_epoch()
        folder.keep(training)
        score = training.records[-1].score
        try:
            on_epoch(len(training.records), math.nan if score is None else score)
        except BaseException:  # whatever stops the training here, the epoch is over
            folder.keep(training, now=True)
            raise


def _where_stopped(
    training: Training, index: int, config: ClassifierConfig, out: Path | None
) -> str:
    done = (
        f"interrupted after {len(training.records)} of {config.num_epochs} epochs of seed "
        f"{training.seed} ({index} of {len(config.seeds)} seeds are done)"
    )
    if out is None:
        return f"{done}; nothing was kept"
    return f"{done}: the same command continues from the last state in {out}"


def _timing(training: Training, splits: Splits) -> Timing:
    records = training.records
    step_seconds = sum(record.step_seconds for record in records)
    return Timing(
        epoch_seconds=tuple(record.seconds for record in records),
        step_seconds=step_seconds,
        rows_per_s=len(records) * len(splits["train"]) / step_seconds,
        cpu_seconds=sum(record.cpu_seconds for record in records),
    )


def _classifier_result(
    training: Training, network: WeightReader, splits: Splits, config: ClassifierConfig
) -> SeedResult:
    train, test = splits["train"], splits["test"]
    train_logits = read_rows(network, train.rows, config.batch_size)
    logits = read_rows(network, test.rows, config.batch_size)
    counts = torch.bincount(test.labels, minlength=logits.shape[1]).tolist()
    is_right = logits.argmax(1) == test.labels
    rights = torch.bincount(test.labels[is_right], minlength=logits.shape[1]).tolist()
    epochs = tuple(
        Epoch(
            loss=record.loss,
            train_accuracy=record.train_accuracy,
            validation_accuracy=_known(record.score),
            learning_rate=record.learning_rate,
        )
        for record in training.records
    )
    return SeedResult(
        seed=training.seed,
        best_epoch=training.best_epoch,
        train_accuracy=accuracy_of(train_logits, train.labels),
        validation_accuracy=epochs[training.best_epoch - 1].validation_accuracy,
        test_accuracy=accuracy_of(logits, test.labels),
        class_accuracy=tuple(
            right / count if count else None for right, count in zip(rights, counts, strict=True)
        ),
        confusion=confusion_of(logits, test.labels),
        calibration=calibration_of(logits, test.labels),
        epochs=epochs,
    )


def _regression_result(
    training: Training, network: WeightReader, splits: Splits, config: ClassifierConfig
) -> RegressionResult:
    scale = training.scale
    assert scale is not None, "a regressor has a scale"
    best = training.records[training.best_epoch - 1].score
    if best is None:
        raise TrainingError(
            f"seed {training.seed}: no epoch gave finite predictions; lower learning_rate "
            f"({config.learning_rate:g}) or set gradient_clip"
        )
    measured = {}
    for name in ("train", "test"):
        part = splits[name]
        predicted = scale(read_rows(network, part.rows, config.batch_size))
        measured[name] = errors_of(predicted, part.labels, config.properties)
    return RegressionResult(
        seed=training.seed,
        best_epoch=training.best_epoch,
        train_r2=_mean_r2(measured["train"]),
        validation_r2=best,
        test_r2=_mean_r2(measured["test"]),
        properties=measured["test"],
        epochs=tuple(
            RegressionEpoch(
                loss=record.loss, validation_r2=record.score, learning_rate=record.learning_rate
            )
            for record in training.records
        ),
    )


def _known(accuracy: float | None) -> float:
    assert accuracy is not None, "an accuracy is always finite"
    return accuracy


def _mean_r2(errors: tuple[PropertyErrors, ...]) -> float:
    return sum(error.r2 for error in errors) / len(errors)


def _majority_accuracy(examples: Examples) -> float:
    commonest = examples.splits["train"].labels.mode().values
    return float((examples.splits["test"].labels == commonest).to(torch.float64).mean())


def _baseline(examples: Examples) -> tuple[PropertyErrors, ...]:
    values = examples.splits["test"].labels
    mean = examples.splits["train"].labels.mean(0).expand(values.shape)
    return errors_of(mean, values, examples.property_names)


def _path(out: Path | str | None) -> Path | None:
    return None if out is None else Path(out)
