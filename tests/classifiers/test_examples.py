from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from classifiers import examples_from_dataset, examples_from_signals
from fitting import FitConfig, run_fit
from nefbench.errors import DatasetFormatError, TrainingError
from nefbench.fields import Siren
from nefbench.signals import signals_from_array
from nefbench.weights import FieldRows, NeuralDataset, load_neural_dataset

FitTiny = Callable[..., NeuralDataset]
Rewrite = Callable[[Path, str, Callable[[FieldRows], FieldRows]], NeuralDataset]

SPLITS = [("train", 6), ("validation", 3), ("test", 3)]
LABELS = [0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2]


def with_status(rows: FieldRows, positions: list[int], status: str) -> FieldRows:
    changed = [status if i in positions else old for i, old in enumerate(rows.status)]
    return dataclasses.replace(rows, status=tuple(changed))


def with_weight(rows: FieldRows, positions: list[int], value: float) -> FieldRows:
    weights = rows.weights.clone()
    weights[positions, 3] = value
    return dataclasses.replace(rows, weights=weights)


def test_the_rows_and_labels_of_a_dataset_are_taken_split_by_split(fitted_digits: Path) -> None:
    dataset = load_neural_dataset(fitted_digits)

    examples = examples_from_dataset(dataset)

    assert list(examples.splits) == ["train", "validation", "test"]
    assert [len(part) for part in examples.splits.values()] == [180, 60, 60]
    for name, part in examples.splits.items():
        stored = dataset.split(name)
        assert stored.labels is not None
        assert torch.equal(part.rows, stored.weights)
        assert torch.equal(part.labels, stored.labels)
    assert examples.space.spec == dataset.spec
    assert examples.class_names == tuple("0123456789")
    assert examples.num_excluded == 0
    assert examples.digest == dataset.entry.digest
    assert examples.name == f"{fitted_digits} (siren-h8-shared)"


def test_diverged_fields_are_left_out_counted_and_reported(
    fit_tiny: FitTiny, rewrite_rows: Rewrite, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fit_tiny([0, 0, 0, *LABELS], [("train", 9), *SPLITS[1:]]).folder
    # A diverged field may hold NaN: it is not read.
    rewrite_rows(folder, "train", lambda r: with_weight(r, [1], math.nan))
    rewrite_rows(folder, "train", lambda r: with_status(r, [1], "diverged"))
    dataset = rewrite_rows(folder, "test", lambda r: with_status(r, [2], "diverged"))

    with caplog.at_level(logging.WARNING):
        examples = examples_from_dataset(dataset)

    kept = [0, *range(2, 9)]
    assert examples.num_excluded == 2
    assert torch.equal(examples.splits["train"].rows, dataset.split("train").weights[kept])
    assert examples.splits["train"].labels.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert examples.splits["test"].labels.tolist() == [0, 1]
    assert "2 diverged field(s) left out" in caplog.text


def test_a_dataset_without_labels_is_refused(fit_tiny: FitTiny) -> None:
    with pytest.raises(TrainingError, match="has no labels"):
        examples_from_dataset(fit_tiny(None, SPLITS))


@pytest.mark.parametrize(
    ("splits", "missing"),
    [
        ([("train", 12)], "no validation and no test split"),
        ([("train", 6), ("test", 6)], "no validation split"),
        ([("train", 6), ("validation", 6)], "no test split"),
    ],
)
def test_missing_splits_are_named(
    fit_tiny: FitTiny, splits: list[tuple[str, int]], missing: str
) -> None:
    with pytest.raises(TrainingError, match=missing):
        examples_from_dataset(fit_tiny(LABELS, splits))


def test_rows_without_a_label_are_refused_and_counted(
    fit_tiny: FitTiny, rewrite_rows: Rewrite
) -> None:
    folder = fit_tiny(LABELS, SPLITS).folder
    dataset = rewrite_rows(
        folder, "validation", lambda r: dataclasses.replace(r, labels=torch.tensor([0, -1, -1]))
    )

    with pytest.raises(TrainingError, match=r"split 'validation': 2 of 3 rows have no label"):
        examples_from_dataset(dataset)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_with_their_positions(
    fit_tiny: FitTiny, rewrite_rows: Rewrite, value: float
) -> None:
    folder = fit_tiny(LABELS, SPLITS).folder
    dataset = rewrite_rows(folder, "train", lambda r: with_weight(r, [1, 4], value))

    with pytest.raises(TrainingError, match=r"split 'train': 2 row\(s\) hold NaN.*\(first: 1, 4\)"):
        examples_from_dataset(dataset)


def test_positions_of_bad_weights_count_the_diverged_fields_before_them(
    fit_tiny: FitTiny, rewrite_rows: Rewrite
) -> None:
    folder = fit_tiny(LABELS, SPLITS).folder
    rewrite_rows(folder, "train", lambda r: with_status(r, [0], "diverged"))
    dataset = rewrite_rows(folder, "train", lambda r: with_weight(r, [0, 4], math.nan))

    with pytest.raises(TrainingError, match=r"1 row\(s\) hold NaN.*\(first: 4\)"):
        examples_from_dataset(dataset)


def test_only_the_first_five_positions_of_bad_weights_are_listed(
    fit_tiny: FitTiny, rewrite_rows: Rewrite
) -> None:
    folder = fit_tiny(LABELS, SPLITS).folder
    dataset = rewrite_rows(folder, "train", lambda r: with_weight(r, list(range(6)), math.nan))

    with pytest.raises(TrainingError, match=r"6 row\(s\).*\(first: 0, 1, 2, 3, 4\)"):
        examples_from_dataset(dataset)


def test_a_split_in_which_every_field_diverged_is_refused(
    fit_tiny: FitTiny, rewrite_rows: Rewrite
) -> None:
    folder = fit_tiny(LABELS, SPLITS).folder
    dataset = rewrite_rows(folder, "test", lambda r: with_status(r, [0, 1, 2], "diverged"))

    with pytest.raises(TrainingError, match="split 'test' is empty"):
        examples_from_dataset(dataset)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 1, 1, 2, 0, *LABELS[6:]], r"class 'c' has 1 member\(s\) in the training split"),
        ([0, 0, 1, 1, 0, 0, *LABELS[6:]], r"class 'c' has 0 member\(s\) in the training split"),
        ([1] * 12, "fewer than two classes"),
    ],
)
def test_a_class_that_cannot_be_learned_is_refused(
    fit_tiny: FitTiny, labels: list[int], message: str
) -> None:
    dataset = fit_tiny(labels, SPLITS, class_names=["a", "b", "c"])

    with pytest.raises(TrainingError, match=message):
        examples_from_dataset(dataset)


def test_a_class_that_never_occurs_is_no_obstacle(fit_tiny: FitTiny) -> None:
    dataset = fit_tiny(LABELS, SPLITS, class_names=["a", "b", "c", "never"])

    assert examples_from_dataset(dataset).class_names == ("a", "b", "c", "never")


def test_a_class_that_is_missing_outside_the_training_split_is_a_warning(
    fit_tiny: FitTiny, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = fit_tiny([*LABELS[:6], 0, 1, 1, 0, 1, 2], SPLITS, class_names=["a", "b", "c"])

    with caplog.at_level(logging.WARNING):
        examples_from_dataset(dataset)

    assert [record.getMessage() for record in caplog.records] == [
        f"{dataset.folder} ({dataset.name}): split 'validation' has no 'c'"
    ]


def test_an_unfinished_dataset_is_refused_with_the_command_that_continues(tmp_path: Path) -> None:
    images = torch.rand(12, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    signals = signals_from_array(images, LABELS, splits=SPLITS)
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    dataset = run_fit(signals, config, tmp_path / "d", only=(0, 6)).dataset

    message = f"is not finished: 6 of 12 fields; continue with: nefbench fit {tmp_path / 'd'}"
    with pytest.raises(DatasetFormatError, match=re.escape(message)):
        examples_from_dataset(dataset)


def test_raw_values_of_signals_become_rows() -> None:
    pixels = np.arange(12 * 2 * 3 * 1, dtype=np.uint8).reshape(12, 2, 3, 1)
    signals = signals_from_array(pixels, LABELS, splits=SPLITS, name="ramps")

    examples = examples_from_signals(signals)

    assert torch.equal(
        torch.cat([part.rows for part in examples.splits.values()]),
        torch.from_numpy(pixels.reshape(12, 6)).float() / 255,
    )
    assert torch.cat([part.labels for part in examples.splits.values()]).tolist() == LABELS
    assert [len(part) for part in examples.splits.values()] == [6, 3, 3]
    assert examples.space.spec.num_params == 6
    assert examples.class_names == ("0", "1", "2")
    assert examples.digest == signals.fingerprint
    assert examples.name == "ramps (raw values)"


def test_signals_without_labels_are_refused() -> None:
    signals = signals_from_array(np.eye(12).reshape(12, 3, 4, 1), splits=SPLITS)

    with pytest.raises(TrainingError, match="array has no labels"):
        examples_from_signals(signals)


def test_signals_without_a_test_split_are_refused() -> None:
    signals = signals_from_array(
        np.eye(12).reshape(12, 3, 4, 1), LABELS, splits=[("train", 9), ("validation", 3)]
    )

    with pytest.raises(TrainingError, match="no test split"):
        examples_from_signals(signals)
