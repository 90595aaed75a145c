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
from classifiers.examples import is_first_of_signal
from fitting import FitConfig, run_fit
from nefbench.errors import DatasetFormatError, TrainingError
from nefbench.fields import Siren
from nefbench.signals import signals_from_array
from nefbench.weights import (
    FieldRows,
    NeuralDataset,
    load_neural_dataset,
    read_manifest,
    write_manifest,
)
from nefbench.weights.parts import read_part, write_part

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


def with_properties(dataset: NeuralDataset, factors: dict[str, float]) -> NeuralDataset:
    """Give every field properties: a factor times the index of its signal."""
    entry = dataclasses.replace(dataset.entry, properties=tuple(factors))
    parts = []
    for part in dataset.entry.parts:
        rows = read_part(dataset.folder, dataset.name, dataset.entry, part)
        index = rows.signal_index.double()
        rows = dataclasses.replace(rows, properties={k: f * index for k, f in factors.items()})
        parts.append(write_part(dataset.folder, dataset.name, entry, part.split, part.start, rows))
    entry = dataclasses.replace(entry, parts=tuple(parts))
    write_manifest(dataset.folder, read_manifest(dataset.folder).with_config(dataset.name, entry))
    return load_neural_dataset(dataset.folder)


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


def test_weights_that_are_not_finite_can_be_left_out_and_are_counted(
    fit_tiny: FitTiny, rewrite_rows: Rewrite, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fit_tiny([0, 0, 0, *LABELS], [("train", 9), *SPLITS[1:]]).folder
    rewrite_rows(folder, "train", lambda r: with_weight(r, [1, 2], math.nan))
    rewrite_rows(folder, "train", lambda r: with_status(r, [2], "diverged"))
    dataset = rewrite_rows(folder, "test", lambda r: with_weight(r, [0], math.inf))

    examples = examples_from_dataset(dataset, on_nan="skip")

    assert (examples.num_skipped, examples.num_excluded) == (2, 1)
    assert [len(part) for part in examples.splits.values()] == [7, 3, 2]
    assert "2 field(s) with NaN or infinite weights left out" in caplog.text


def test_training_sees_every_field_of_a_signal_and_the_other_splits_the_first(
    fit_tiny: FitTiny, rewrite_rows: Rewrite
) -> None:
    def repeat(rows: FieldRows) -> FieldRows:
        # Two fits of each of the signals 0, 1, 2: in a part, fits follow each other.
        index = torch.tensor([0, 1, 2, 0, 1, 2]) + int(rows.signal_index[0])
        return dataclasses.replace(rows, signal_index=index)

    labels = [0, 1, 0, 0, 1, 0] * 3
    folder = fit_tiny(labels, [("train", 6), ("validation", 6), ("test", 6)]).folder
    for split in ("train", "validation", "test"):
        dataset = rewrite_rows(folder, split, repeat)
    dataset = rewrite_rows(folder, "test", lambda r: with_status(r, [0], "diverged"))

    examples = examples_from_dataset(dataset)

    assert [len(part) for part in examples.splits.values()] == [6, 3, 3]
    validation, test = (dataset.split(name).weights for name in ("validation", "test"))
    assert torch.equal(examples.splits["validation"].rows, validation[:3])
    # The first fit of signal 0 diverged: its second one takes its place.
    assert torch.equal(examples.splits["test"].rows, test[[1, 2, 3]])


def test_of_several_views_validation_and_test_take_the_first() -> None:
    count = 6
    rows = FieldRows(
        weights=torch.zeros(count, 3),
        signal_index=torch.tensor([0, 1, 2, 0, 1, 2]),
        init_seed=torch.zeros(count, dtype=torch.int64),
        loss=torch.zeros(count),
        status=("ok",) * count,
        labels=None,
        quality={},
        provenance={"view": torch.tensor([1, 0, 1, 0, 1, 0])},
    )

    assert is_first_of_signal(rows).tolist() == [False, True, False, True, False, True]


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


def test_properties_of_a_dataset_become_columns_in_the_order_asked_for(
    fit_tiny: FitTiny,
) -> None:
    dataset = with_properties(fit_tiny(None, SPLITS), {"age": 2.0, "height": 3.0})

    examples = examples_from_dataset(dataset, ("height", "age"))

    assert examples.property_names == ("height", "age")
    assert examples.class_names == ()
    assert examples.num_outputs == 2
    for name, part in examples.splits.items():
        index = dataset.split(name).signal_index.double()
        assert part.labels.dtype == torch.float64
        assert torch.equal(part.labels, torch.stack([3 * index, 2 * index], dim=1))


@pytest.mark.parametrize(
    ("properties", "target", "message"),
    [
        ({}, "age", "has no property 'age'; it has none"),
        ({"age": 1.0}, "aeg", "has no property 'aeg'; did you mean 'age'?; it has age"),
        ({"age": math.nan}, "age", "split 'train': 6 of 6 rows have no 'age'"),
        ({"age": 0.0}, "age", "split 'train': 'age' is 0 in every row; there is nothing to pred"),
    ],
)
def test_a_property_that_cannot_be_predicted_is_refused(
    fit_tiny: FitTiny, properties: dict[str, float], target: str, message: str
) -> None:
    dataset = with_properties(fit_tiny(None, SPLITS), properties)

    with pytest.raises(TrainingError) as caught:
        examples_from_dataset(dataset, target)

    assert message in str(caught.value)


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
