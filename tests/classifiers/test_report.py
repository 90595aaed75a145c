from __future__ import annotations

import json
import math

import pytest

from classifiers import ClassifierConfig, ClassifierReport
from classifiers.report import Epoch, SeedResult
from nefbench.config import config_from_mapping, config_to_mapping


def result(seed: int, train: float, validation: float, test: float) -> SeedResult:
    return SeedResult(
        seed=seed,
        best_epoch=1,
        train_accuracy=train,
        validation_accuracy=validation,
        test_accuracy=test,
        epochs=(Epoch(loss=2.0, validation_accuracy=validation),),
    )


def report(*results: SeedResult) -> ClassifierReport:
    return ClassifierReport(
        name="toy",
        config=ClassifierConfig(seeds=tuple(r.seed for r in results)),
        results=results,
        num_parameters=1,
        num_rows={"train": 4, "validation": 2, "test": 2},
        num_excluded=0,
        chance_accuracy=0.5,
        majority_accuracy=0.5,
        dataset_digest="d",
        seconds=1.5,
    )


def test_accuracies_are_means_over_seeds() -> None:
    two = report(result(0, 1.0, 0.75, 0.5), result(1, 0.5, 0.25, 1.0))

    assert two.train_accuracy == 0.75
    assert two.validation_accuracy == 0.5
    assert two.test_accuracy == 0.75


def test_the_spread_is_the_sample_standard_deviation_of_the_test_accuracy() -> None:
    three = report(result(0, 0, 0, 0.2), result(1, 0, 0, 0.4), result(2, 0, 0, 0.9))

    # mean 0.5; squares 0.09 + 0.01 + 0.16 = 0.26, over two
    assert three.test_accuracy_sd == pytest.approx(math.sqrt(0.13))


def test_a_single_seed_has_no_spread() -> None:
    assert report(result(0, 1.0, 1.0, 0.5)).test_accuracy_sd == 0.0


def test_a_report_survives_the_way_through_json() -> None:
    two = report(result(0, 1.0, 0.75, 0.5), result(1, 0.5, 0.25, 1.0))

    assert config_from_mapping(ClassifierReport, json.loads(json.dumps(config_to_mapping(two)))) \
        == two  # fmt: skip
