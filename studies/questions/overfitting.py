"""Overfitting by size of the classifier, on the same dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classifiers import ClassifierReport
from classifiers.report import Epoch
from classifiers.train import REPORT_NAME
from nefbench.config import config_from_mapping
from nefbench.plots.study import EpochCourse, Panel, courses_figure
from studies.questions.answer import Answer, Evidence, Unanswered, basis_of, grouped
from studies.results import TrialResult

_KEY = "overfitting-and-size"
_QUESTION = "Does the size of a classifier decide how much it overfits?"
_MOSTLY = 0.9
"""Training accuracy of a classifier that has learned most of its rows."""


@dataclass(frozen=True)
class _Trained:
    result: TrialResult
    kind: str
    epochs: tuple[Epoch, ...]

    @property
    def gap(self) -> float:
        return self.result.train_accuracy - self.result.test_accuracy

    @property
    def learned_after(self) -> int | None:
        """First epoch during which most training rows were right as they were seen."""
        known = (index for index, epoch in enumerate(self.epochs, 1) if _seen(epoch) >= _MOSTLY)
        return next(known, None)


def overfitting_and_size(evidence: Evidence) -> Answer | Unanswered:
    """Compare classifiers on the dataset that most of them were trained on.

    Of several trainings of a classifier of one size, the best on validation stands for all. Curves
    are those of its first seed.
    """
    datasets = grouped(evidence.results, lambda r: (r.dataset,))
    trainings = max(datasets.values(), key=len, default=[])
    results = [
        max(same, key=lambda r: r.validation_accuracy)
        for same in grouped(trainings, lambda r: (r.classifier, r.num_parameters)).values()
    ]
    if len(results) < 2:
        return Unanswered(_KEY, _QUESTION, "two classifiers trained on the same dataset")
    trained = [_trained(evidence, result) for result in results]
    trained.sort(key=lambda t: (t.kind, t.result.num_parameters))
    kinds = grouped(trained, lambda t: (t.kind,))
    first = results[0]
    where = f"{first.field} on {first.source}"
    level = ("chance", first.chance_accuracy)
    gaps = [one.gap for one in trained]
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"On {first.field} fields of {first.source}, {sum(gap > 0 for gap in gaps)} of "
            f"{len(trained)} classifiers have a higher training than test accuracy, by "
            f"{min(gaps):.3f} to {max(gaps):.3f}."
        ),
        details=tuple(_compared(kind, same) for (kind,), same in kinds.items()),
        basis=basis_of(results),
        columns=(
            "classifier", "model", "parameters", "train", "validation", "test", "gap",
            f"epochs to {_MOSTLY:.0%} of training rows",
        ),
        rows=[
            (
                one.result.classifier, one.kind, one.result.num_parameters,
                round(one.result.train_accuracy, 3), round(one.result.validation_accuracy, 3),
                round(one.result.test_accuracy, 3), round(one.gap, 3), one.learned_after,
            )
            for one in trained
        ],
        figure=courses_figure(
            [
                Panel(f"{kind}, {where}", [_course(one) for one in same], level)
                for (kind,), same in kinds.items()
            ]
        ),
        drawn_columns=(
            "classifier", "model", "num_parameters", "epoch", "train_accuracy_as_seen",
            "validation_accuracy",
        ),
        drawn=[
            (
                one.result.classifier, one.kind, one.result.num_parameters, index,
                epoch.train_accuracy, epoch.validation_accuracy,
            )
            for one in trained
            for index, epoch in enumerate(one.epochs, 1)
        ],
    )  # fmt: skip


def _compared(kind: str, same: Sequence[_Trained]) -> str:
    best = [one.result.validation_accuracy for one in same]
    sizes = [f"{one.result.num_parameters:,}" for one in same]
    epochs = [f"epoch {one.learned_after}" if one.learned_after else "none" for one in same]
    return (
        f"{kind} of {', '.join(sizes)} parameters: best validation accuracies lie within "
        f"{max(best) - min(best):.3f}; first epoch with {_MOSTLY:.0%} of the training rows right: "
        f"{', '.join(epochs)}"
    )


def _course(one: _Trained) -> EpochCourse:
    return EpochCourse(
        f"{one.result.classifier}, {one.result.num_parameters:,} parameters",
        [_seen(epoch) for epoch in one.epochs],
        [epoch.validation_accuracy for epoch in one.epochs],
    )


def _seen(epoch: Epoch) -> float:
    return float("nan") if epoch.train_accuracy is None else epoch.train_accuracy


def _trained(evidence: Evidence, result: TrialResult) -> _Trained:
    path: Path = evidence.store.training_folder(result.training) / REPORT_NAME
    mapping = json.loads(path.read_text(encoding="utf-8"))
    report = config_from_mapping(ClassifierReport, mapping)
    return _Trained(result, report.config.model.kind, report.results[0].epochs)
