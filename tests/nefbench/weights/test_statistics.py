from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fitting.quality import metric_names
from nefbench.fields import Siren
from nefbench.signals import Split, signals_from_array
from nefbench.weights import ConfigEntry, FieldRows, NeuralDataset
from nefbench.weights.manifest import SignalsEntry
from nefbench.weights.parts import write_part
from nefbench.weights.statistics import (
    HIGHER_IS_BETTER,
    Moments,
    merge_tensor_moments,
    summarise,
    summarise_dataset,
)

FIELD = Siren(hidden_dim=2, num_layers=2)  # tensors of 2, 4, 1 and 2 numbers


def make_rows(
    psnr: list[float],
    *,
    status: list[str] | None = None,
    loss: list[float] | None = None,
    labels: list[int] | None = None,
) -> FieldRows:
    count = len(psnr)
    return FieldRows(
        weights=torch.arange(9.0) + 100 * torch.arange(count)[:, None],
        signal_index=torch.arange(count),
        init_seed=torch.zeros(count, dtype=torch.int64),
        loss=torch.tensor(loss or [0.5] * count),
        status=tuple(status or ["ok"] * count),
        labels=None if labels is None else torch.tensor(labels),
        quality={"psnr_db": torch.tensor(psnr)},
    )


# Moments


def test_moments_of_three_numbers_are_those_worked_out_by_hand() -> None:
    moments = Moments().merge(torch.tensor([1.0, 2.0, 6.0]))

    # mean 3, deviations -2, -1, 3: squares 4 + 1 + 9 = 14
    assert moments == Moments(3, 3.0, 14.0)
    assert moments.std == math.sqrt(14 / 3)


def test_moments_of_nothing_have_no_spread() -> None:
    assert Moments().std == 0.0
    assert Moments().merge(torch.empty(0)) == Moments()


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_moments_merged_in_any_pieces_are_those_of_all_numbers(
    values: list[float], cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]

    moments = Moments()
    for start, stop in itertools.pairwise(edges):
        moments = moments.merge(torch.tensor(values[start:stop], dtype=torch.float32))

    assert moments.count == len(values)
    assert moments.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-9)
    assert moments.std == pytest.approx(np.std(values), rel=1e-9, abs=1e-6)


def test_a_small_spread_far_from_zero_survives_the_sums() -> None:
    """In float32, or as mean of squares minus square of mean, this spread would be lost."""
    draw = np.random.default_rng(0)
    values = (4096 + draw.integers(-8, 9, 3000) / 4096).astype(np.float32)

    moments = Moments()
    for piece in np.array_split(values, 7):
        moments = moments.merge(torch.from_numpy(piece))

    assert moments.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-14)
    assert moments.std == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def test_tensor_moments_pool_all_entries_of_a_tensor_over_ok_fields_only() -> None:
    spec = FIELD.spec(2, 1)
    rows = make_rows([1.0, 1.0, 1.0], status=["ok", "diverged", "ok"])
    rows.weights[1] = math.nan

    moments = merge_tensor_moments({name: Moments() for name, _ in spec.layout}, rows, spec)

    # Row r holds 100 r + (0 … 8); the first tensor is entries 0 and 1 of rows 0 and 2.
    assert moments["kernel_net_0.linear.bias"] == Moments(4, 100.5, 4 * (100**2 + 0.5**2))
    # The third tensor is entry 6: 6 and 206.
    assert moments["output_linear.bias"] == Moments(2, 106.0, 2 * 100.0**2)
    assert {name: m.count for name, m in moments.items()} == {
        "kernel_net_0.linear.bias": 4,
        "kernel_net_0.linear.kernel": 8,
        "output_linear.bias": 2,
        "output_linear.kernel": 4,
    }


# Summaries


def test_a_summary_has_median_bad_tail_and_worst_of_ok_fields() -> None:
    rows = make_rows(
        [30.0, 10.0, 20.0, 99.0, 40.0, 50.0],
        loss=[0.3, 0.5, 0.4, math.nan, 0.2, 0.1],
        status=["ok", "ok", "ok", "diverged", "ok", "ok"],
        labels=[0, 2, 2, 1, 0, 2],
    )

    summary = summarise(rows, 4)

    assert summary.num_fields == 6
    assert summary.status == {"diverged": 1, "ok": 5}
    assert summary.class_counts == (2, 1, 3, 0)
    # Sorted 10 20 30 40 50; the 5 % quantile lies 0.05 x 4 = 0.2 of the way from 10 to 20.
    assert summary.quality["psnr_db"] == {"median": 30.0, "worst_5_percent": 12.0, "worst": 10.0}
    # A low loss is good: 0.2 of the way from 0.5 back to 0.4. Stored in float32.
    assert summary.quality["loss"] == pytest.approx(
        {"median": 0.3, "worst_5_percent": 0.48, "worst": 0.5}, rel=1e-6
    )
    assert list(summary.quality) == ["psnr_db", "loss"]


def test_a_split_of_diverged_fields_has_counts_and_no_quality() -> None:
    rows = make_rows([1.0, 2.0], status=["diverged", "diverged"], labels=[1, 1])

    summary = summarise(rows, 2)

    assert summary.num_fields == 2
    assert summary.status == {"diverged": 2}
    assert summary.quality == {}
    assert summary.class_counts == (0, 2)


def test_a_column_that_was_never_measured_is_left_out() -> None:
    rows = make_rows([1.0, 2.0], loss=[math.nan, math.nan])

    assert list(summarise(rows, 0).quality) == ["psnr_db"]


def test_a_ratio_to_nothing_counts_nowhere() -> None:
    rows = make_rows([1.0, 2.0, 9.0])
    rows = dataclasses.replace(rows, quality={"iou_ratio": torch.tensor([0.5, math.nan, 0.7])})

    quality = summarise(rows, 0).quality["iou_ratio"]

    assert quality["median"] == pytest.approx(0.6)
    assert quality["worst"] == pytest.approx(0.5)


def test_signals_without_labels_have_no_class_counts() -> None:
    assert summarise(make_rows([1.0]), 0).class_counts == ()


def test_the_range_of_a_property_is_over_all_rows_whatever_their_status() -> None:
    rows = make_rows([1.0, 2.0, 3.0], status=["ok", "ok", "diverged"])
    mass = torch.tensor([0.5, -1.0, 8.0], dtype=torch.float64)

    summary = summarise(dataclasses.replace(rows, properties={"mass": mass}), 0)

    assert summary.properties == {"mass": (-1.0, 8.0)}
    assert summarise(rows, 0).properties == {}


def test_every_measure_of_a_fit_has_a_direction() -> None:
    image = signals_from_array(np.linspace(0, 1, 20).reshape(1, 5, 4, 1))
    volume = signals_from_array(np.linspace(0, 1, 24).reshape(1, 2, 3, 4, 1))

    assert {*metric_names(image), *metric_names(volume), "loss"} <= HIGHER_IS_BETTER.keys()
    lower = {name for name, higher in HIGHER_IS_BETTER.items() if not higher}
    assert lower == {"mse", "mae", "simse", "loss"}


# A whole dataset


def make_dataset(folder: Path) -> NeuralDataset:
    entry = ConfigEntry(
        field=FIELD,
        in_dim=2,
        out_dim=1,
        tensors=FIELD.spec(2, 1).layout,
        signals=SignalsEntry(
            name="toy", source="drawn", fingerprint="f", licence="MIT", grid_shape=(5, 4),
            mean=(0.5,), std=(0.25,), class_names=("cat", "dog"),
        ),
        splits=(Split("train", 0, 5), Split("test", 5, 7)),
        fit={}, digest="d", engine="none", generator="none", metrics=("psnr_db",),
    )  # fmt: skip
    first = make_rows([10.0, 20.0], labels=[0, 1])
    second = make_rows([30.0, 40.0, 50.0], labels=[1, 1, 1], status=["ok", "ok", "diverged"])
    test = make_rows([5.0, 7.0], labels=[0, 0])
    test.weights.mul_(2)
    parts = (
        write_part(folder, "a", entry, "train", 0, first),
        write_part(folder, "a", entry, "train", 2, second),
        write_part(folder, "a", entry, "test", 5, test),
    )
    return NeuralDataset(folder, "a", dataclasses.replace(entry, parts=parts))


def test_a_dataset_is_summarised_per_split_over_all_its_parts(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)

    entry = summarise_dataset(dataset)

    assert list(entry.summary) == ["train", "test"]
    train, test = entry.summary["train"], entry.summary["test"]
    assert (train.num_fields, train.status, train.class_counts) == (
        5, {"diverged": 1, "ok": 4}, (1, 4),
    )  # fmt: skip
    assert train.quality["psnr_db"]["median"] == 25.0
    assert train.quality["psnr_db"]["worst"] == 10.0
    assert (test.num_fields, test.status, test.class_counts) == (2, {"ok": 2}, (2, 0))
    assert test.quality["psnr_db"]["median"] == 6.0


def test_tensor_statistics_are_those_of_the_training_split(tmp_path: Path) -> None:
    entry = summarise_dataset(make_dataset(tmp_path))

    rows = np.arange(9.0) + 100 * np.array([[0], [1], [0], [1]])  # the ok rows of two parts
    kernel = rows[:, 2:6]
    assert entry.tensor_statistics["kernel_net_0.linear.kernel"] == pytest.approx(
        (kernel.mean(), kernel.std()), rel=1e-12
    )
    assert list(entry.tensor_statistics) == [name for name, _ in FIELD.spec(2, 1).layout]


def test_summarising_changes_nothing_else_of_the_entry(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)

    entry = summarise_dataset(dataset)

    assert dataclasses.replace(entry, summary={}, tensor_statistics={}) == dataset.entry
