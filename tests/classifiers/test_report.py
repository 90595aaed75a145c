from __future__ import annotations

import json
import math

import pytest

from classifiers import ClassifierConfig, ClassifierReport, RegressionReport
from classifiers.evaluation import Calibration, PropertyErrors, ReliabilityBin
from classifiers.report import Epoch, RegressionEpoch, RegressionResult, SeedResult, Timing
from nefbench.config import config_from_mapping, config_to_mapping


def result(seed: int, train: float, validation: float, test: float) -> SeedResult:
    return SeedResult(
        seed=seed,
        best_epoch=1,
        train_accuracy=train,
        validation_accuracy=validation,
        test_accuracy=test,
        class_accuracy=(1.0, None),
        confusion=((0, 0, 3), (0, 1, 1 + seed)),
        calibration=Calibration(
            error=0.25 + seed,
            bins=(ReliabilityBin(num_rows=0, confidence=None, accuracy=None),),
        ),
        epochs=(Epoch(loss=2.0, validation_accuracy=validation, learning_rate=0.1),),
    )


def report(*results: SeedResult) -> ClassifierReport:
    return ClassifierReport(
        name="toy",
        config=ClassifierConfig(seeds=tuple(r.seed for r in results)),
        access="weights",
        class_names=("a", "b"),
        results=results,
        timings=tuple(
            Timing(epoch_seconds=(0.5,), step_seconds=0.4, rows_per_s=8.0, cpu_seconds=0.25)
            for _ in results
        ),
        num_parameters=1,
        num_rows={"train": 4, "validation": 2, "test": 2},
        num_excluded=0,
        num_skipped=0,
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


def test_confusion_is_summed_and_calibration_averaged_over_seeds() -> None:
    two = report(result(0, 0, 0, 0), result(1, 0, 0, 0))

    assert two.confusion == [[6, 3], [0, 0]]
    assert two.calibration_error == 0.75


def test_a_single_seed_has_no_spread() -> None:
    assert report(result(0, 1.0, 1.0, 0.5)).test_accuracy_sd == 0.0


def test_a_report_survives_the_way_through_json() -> None:
    two = report(result(0, 1.0, 0.75, 0.5), result(1, 0.5, 0.25, 1.0))

    assert config_from_mapping(ClassifierReport, json.loads(json.dumps(config_to_mapping(two)))) \
        == two  # fmt: skip


def regression(*r2: float) -> RegressionReport:
    errors = PropertyErrors(name="a", r2=0.5, mae=1.0, rmse=2.0)
    epochs = (RegressionEpoch(loss=None, validation_r2=None, learning_rate=0.1),)
    return RegressionReport(
        name="toy",
        config=ClassifierConfig(target="a"),
        access="function",
        results=tuple(
            RegressionResult(
                seed=seed, best_epoch=1, train_r2=1.0, validation_r2=0.5, test_r2=value,
                properties=(errors,), epochs=epochs,
            )
            for seed, value in enumerate(r2)
        ),
        timings=(),
        num_parameters=1,
        num_rows={"train": 4},
        num_excluded=0,
        num_skipped=1,
        baseline=(errors,),
        dataset_digest="d",
        seconds=1.5,
    )  # fmt: skip


def test_r2_is_the_mean_over_seeds_with_its_sample_standard_deviation() -> None:
    three = regression(0.2, 0.4, 0.9)

    assert three.test_r2 == pytest.approx(0.5)
    assert three.test_r2_sd == pytest.approx(math.sqrt(0.13))


def test_a_regression_survives_the_way_through_json() -> None:
    stored = json.loads(json.dumps(config_to_mapping(regression(0.2))))

    assert config_from_mapping(RegressionReport, stored) == regression(0.2)
