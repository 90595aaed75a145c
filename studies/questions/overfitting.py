"""Overfitting by size of the classifier, on the same dataset."""

from __future__ import annotations

import json
from pathlib import Path

from classifiers import ClassifierReport
from classifiers.train import REPORT_NAME
from nefbench.config import config_from_mapping
from nefbench.plots.study import PointPanel, PointSet, points_figure
from studies.questions.answer import Answer, Evidence, Unanswered, basis_of, grouped
from studies.results import TrialResult

_KEY = "overfitting-and-size"
_QUESTION = "Does the size of a classifier decide how much it overfits?"


def overfitting_and_size(evidence: Evidence) -> Answer | Unanswered:
    """Compare classifiers on the dataset that most of them were trained on.

    Of several trainings of a classifier of one size, the best on validation stands for all.
    """
    datasets = grouped(evidence.results, lambda r: (r.dataset,))
    trainings = max(datasets.values(), key=len, default=[])
    results = [
        max(same, key=lambda r: r.validation_accuracy)
        for same in grouped(trainings, lambda r: (r.classifier, r.num_parameters)).values()
    ]
    if len(results) < 2:
        return Unanswered(_KEY, _QUESTION, "two classifiers trained on the same dataset")
    results = sorted(results, key=lambda r: (r.classifier, r.num_parameters))
    sets, drawn = [], []
    where = f"{results[0].field} on {results[0].source}"
    for result in results:
        label = f"{result.classifier}, {result.num_parameters:,} parameters"
        epochs = _report(evidence, result).results[0].epochs
        places = [float(epoch) for epoch in range(1, len(epochs) + 1)]
        heights = [epoch.validation_accuracy for epoch in epochs]
        sets.append(PointSet(label, places, heights, joined=True))
        drawn += [
            (result.classifier, result.num_parameters, epoch, height)
            for epoch, height in zip(places, heights, strict=True)
        ]
    gaps = [r.train_accuracy - r.test_accuracy for r in results]
    first = results[0]
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"On {first.field} fields of {first.source} the gap between training and test accuracy "
            f"goes from {min(gaps):.3f} to {max(gaps):.3f} over {len(results)} classifiers of "
            f"{min(r.num_parameters for r in results):,} to "
            f"{max(r.num_parameters for r in results):,} parameters."
        ),
        details=(),
        basis=basis_of(results),
        columns=("classifier", "parameters", "train", "validation", "test", "gap"),
        rows=[
            (
                r.classifier, r.num_parameters, round(r.train_accuracy, 3),
                round(r.validation_accuracy, 3), round(r.test_accuracy, 3), round(gap, 3),
            )
            for r, gap in zip(results, gaps, strict=True)
        ],
        figure=points_figure(
            [PointPanel(where, sets, ("chance", first.chance_accuracy))],
            x="epoch",
            y="validation accuracy",
        ),
        drawn_columns=("classifier", "num_parameters", "epoch", "validation_accuracy"),
        drawn=drawn,
    )  # fmt: skip


def _report(evidence: Evidence, result: TrialResult) -> ClassifierReport:
    path: Path = evidence.store.training_folder(result.training) / REPORT_NAME
    return config_from_mapping(ClassifierReport, json.loads(path.read_text(encoding="utf-8")))
