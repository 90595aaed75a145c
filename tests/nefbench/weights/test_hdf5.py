from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nefbench.config import digest
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren, evaluate
from nefbench.signals import Split
from nefbench.weights import (
    ConfigEntry,
    FieldRows,
    Manifest,
    NeuralDataset,
    load_neural_dataset,
    read_manifest,
    write_manifest,
)
from nefbench.weights.hdf5 import export_fit_a_nef, import_fit_a_nef
from nefbench.weights.manifest import SignalsEntry
from nefbench.weights.parts import write_part
from nefbench.weights.statistics import summarise_dataset

# Two inputs, four hidden units, three outputs: the fields of the golden vectors.
WITHOUT_OUTPUT_DIM = {"hidden_dim": 4, "num_layers": 3, "omega_0": 3.0}
SIREN_PARAMS = {"output_dim": 3, **WITHOUT_OUTPUT_DIM}
SIREN = {"name": "SIREN", "params": SIREN_PARAMS}
SIREN_LAYOUT = [
    ["kernel_net_0.linear.bias", [4]],
    ["kernel_net_0.linear.kernel", [2, 4]],
    ["kernel_net_1.linear.bias", [4]],
    ["kernel_net_1.linear.kernel", [4, 4]],
    ["output_linear.bias", [3]],
    ["output_linear.kernel", [4, 3]],
]
NUM_PARAMS = 47  # 4 + 8 + 4 + 16 + 3 + 12

OTHERS: dict[str, tuple[dict[str, Any], list[Any], FieldConfig]] = {
    "FourierNet": (
        {"output_dim": 3, "hidden_dim": 4, "num_filters": 3, "input_scale": 16, "weight_scale": 6},
        [
            ["filters_0.linear.bias", [4]],
            ["filters_0.linear.kernel", [2, 4]],
            ["filters_1.linear.bias", [4]],
            ["filters_1.linear.kernel", [2, 4]],
            ["filters_2.linear.bias", [4]],
            ["filters_2.linear.kernel", [2, 4]],
            ["linears_0.bias", [4]],
            ["linears_0.kernel", [4, 4]],
            ["linears_1.bias", [4]],
            ["linears_1.kernel", [4, 4]],
            ["output_linear.bias", [3]],
            ["output_linear.kernel", [4, 3]],
        ],
        FourierNet(hidden_dim=4, num_filters=3, input_scale=16.0, weight_scale=6.0),
    ),
    "RFFNet": (
        {
            "output_dim": 3,
            "hidden_dim": 4,
            "num_layers": 3,
            "std": 0.5,
            "learnable_coefficients": False,
        },
        [
            ["encoding.coefficients.kernel", [2, 2]],
            ["layers_0.linear.bias", [4]],
            ["layers_0.linear.kernel", [4, 4]],
            ["layers_1.linear.bias", [4]],
            ["layers_1.linear.kernel", [4, 4]],
            ["linear_final.bias", [3]],
            ["linear_final.kernel", [4, 3]],
        ],
        RFFNet(hidden_dim=4, num_layers=3, std=0.5, learnable_coefficients=False),
    ),
    "MLP": (
        {"output_dim": 3, "hidden_dim": 4, "num_layers": 2},
        [
            ["Dense_0.bias", [4]],
            ["Dense_0.kernel", [2, 4]],
            ["Dense_1.bias", [4]],
            ["Dense_1.kernel", [4, 4]],
            ["Dense_2.bias", [3]],
            ["Dense_2.kernel", [4, 3]],
        ],
        MLP(hidden_dim=4, num_layers=2),
    ),
}
ARCHITECTURES: dict[str, tuple[dict[str, Any], list[Any], FieldConfig]] = {
    "SIREN": (
        SIREN_PARAMS,
        SIREN_LAYOUT,
        Siren(hidden_dim=4, num_layers=3, omega_0=3.0),
    ),
    **OTHERS,
}

# Sorted as text these are 0-5, 10-12, 100-103, 12-100, 5-10.
RANGES = ((100, 103), (0, 5), (5, 10), (10, 12), (12, 100))


def size(layout: Sequence[Any]) -> int:
    return sum(math.prod(shape) for _, shape in layout)


def random_rows(count: int, num_params: int = NUM_PARAMS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, num_params), np.float32)


def write_file(
    folder: Path,
    start: int,
    rows: np.ndarray,
    *,
    labels: Any = None,
    layout: Sequence[Any] = SIREN_LAYOUT,
) -> Path:
    """Write one file with the calls of the published library."""
    path = folder / f"nefs_{start}-{start + len(rows)}.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("params", data=rows)
        text = file.create_dataset("param_config", (1,), dtype=h5py.special_dtype(vlen=str))
        text[0] = json.dumps(layout)
        if labels is not None:
            file.create_dataset("labels", data=labels)
    return path


def write_folder(
    folder: Path,
    *,
    ranges: Sequence[tuple[int, int]] = ((0, 5),),
    rows: np.ndarray | None = None,
    labels: Sequence[int] | None = None,
    nef: Any = SIREN,
    cfg: Any = None,
    layout: Sequence[Any] = SIREN_LAYOUT,
) -> np.ndarray:
    """Write a folder of the published library; returns the rows by index."""
    folder.mkdir(parents=True)
    (folder / "nef.json").write_text(json.dumps(nef))
    if cfg is not None:
        (folder / "cfg.json").write_text(json.dumps(cfg))
    first = min(start for start, _ in ranges)
    if rows is None:
        rows = random_rows(max(stop for _, stop in ranges) - first, size(layout))
    for start, stop in ranges:
        here = slice(start - first, stop - first)
        some_labels = None if labels is None else list(labels[here])
        write_file(folder, start, rows[here], labels=some_labels, layout=layout)
    return rows


def bits(values: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(values)).view(np.uint32)


def same_bits(first: Any, second: Any) -> bool:
    return np.array_equal(bits(first), bits(second))


def make_dataset(
    folder: Path,
    *,
    field: FieldConfig | None = None,
    sizes: Sequence[tuple[str, int]] = (("train", 5), ("validation", 2), ("test", 3)),
    part_rows: int = 2,
    weights: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    status: Sequence[str] | None = None,
    properties: Sequence[str] = (),
) -> tuple[NeuralDataset, torch.Tensor]:
    """Make a small neural dataset as a fit would; returns it with its rows by index."""
    field = field or Siren(hidden_dim=4, num_layers=3, omega_0=3.0)
    spec = field.spec(2, 3)
    total = sum(count for _, count in sizes)
    weights = torch.from_numpy(random_rows(total, spec.num_params)) if weights is None else weights
    labels = torch.arange(total) % 3 if labels is None else labels
    status = status or ["ok"] * total
    numbers = torch.arange(total, dtype=torch.float64) / 3.0**20
    splits, start = [], 0
    for split_name, count in sizes:
        splits.append(Split(split_name, start, start + count))
        start += count
    fit = {"field": {"kind": field.kind}, "init": {"kind": "shared"}}
    entry = ConfigEntry(
        field=field, in_dim=2, out_dim=3, tensors=spec.layout, splits=tuple(splits), fit=fit,
        signals=SignalsEntry(
            name="stripes", source="a test", fingerprint="00", licence="CC0", grid_shape=(4, 6),
            mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), class_names=("a", "b", "c"),
        ),
        digest=digest(fit), engine="by hand", generator="none", properties=tuple(properties),
    )  # fmt: skip
    parts = []
    for split in splits:
        for low in range(split.start, split.stop, part_rows):
            here = slice(low, min(low + part_rows, split.stop))
            count = here.stop - here.start
            rows = FieldRows(
                weights=weights[here], signal_index=torch.arange(low, here.stop),
                init_seed=torch.zeros(count, dtype=torch.int64), loss=torch.full((count,), 0.5),
                status=tuple(status[here]), labels=labels[here], quality={},
                properties=dict.fromkeys(properties, numbers[here]),
            )  # fmt: skip
            parts.append(write_part(folder, "made", entry, split.name, low, rows))
    entry = dataclasses.replace(entry, parts=tuple(parts))
    entry = summarise_dataset(NeuralDataset(folder, "made", entry))
    write_manifest(folder, Manifest(configs={"made": entry}))
    return NeuralDataset(folder, "made", entry), weights


# Properties


def test_properties_go_out_and_come_back_to_the_last_digit(tmp_path: Path) -> None:
    dataset, _ = make_dataset(tmp_path / "made", properties=("mass", "loss"))

    export_fit_a_nef(dataset, tmp_path / "SIREN", rows_per_file=4)
    back = import_fit_a_nef(
        tmp_path / "SIREN", tmp_path / "back", splits=[("train", 5), ("test", 5)], part_rows=3
    )

    with h5py.File(tmp_path / "SIREN" / "nefs_4-8.hdf5") as file:
        assert file["mass"][()].tolist() == [index / 3.0**20 for index in range(4, 8)]
    assert back.entry.properties == ("mass", "loss")
    assert back.split("test").properties["loss"].tolist() == [i / 3.0**20 for i in range(5, 10)]
    assert back.entry.summary["train"].properties["mass"] == (0.0, 4 / 3.0**20)


def test_a_property_called_like_an_array_of_the_format_is_not_exported(tmp_path: Path) -> None:
    dataset, _ = make_dataset(tmp_path / "made", properties=("labels",))

    with pytest.raises(DatasetFormatError, match="has an array 'labels' of its own"):
        export_fit_a_nef(dataset, tmp_path / "SIREN")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.pop("mass"), "has no readable array 'mass'"),
        (lambda file: file["mass"].write_direct(np.full(10, np.nan)), "expected finite numbers in"),
        (
            lambda file: (file.pop("mass"), file.create_dataset("mass", data=np.ones(9))),
            "expected 'mass' to be 10 real numbers",
        ),
    ],
)
def test_recorded_properties_that_cannot_be_read_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    dataset, _ = make_dataset(tmp_path / "made", properties=("mass",))
    (path,) = export_fit_a_nef(dataset, tmp_path / "SIREN")
    with h5py.File(path, "a") as file:
        change(file)

    with pytest.raises(DatasetFormatError, match=reason):
        import_fit_a_nef(tmp_path / "SIREN", tmp_path / "back")


# Importing rows


def test_rows_are_imported_bit_by_bit_in_numeric_order(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "SIREN", ranges=RANGES)
    (tmp_path / "SIREN" / "metadata.json").write_text("{}")

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", part_rows=30)

    fields = dataset.split("train")
    assert same_bits(fields.weights, rows)
    assert fields.signal_index.tolist() == list(range(103))
    assert fields.init_seed.tolist() == [0] * 103
    assert [(part.start, part.stop) for part in dataset.entry.parts] == [
        (0, 30), (30, 60), (60, 90), (90, 103),
    ]  # fmt: skip


def test_fields_keep_their_index_when_files_start_late(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "SIREN", ranges=((100, 103), (98, 100)))

    dataset = import_fit_a_nef(
        tmp_path / "SIREN", tmp_path / "out", splits=[("train", 3), ("test", 2)]
    )

    assert dataset.entry.splits == (Split("train", 98, 101), Split("test", 101, 103))
    assert dataset.split("test").signal_index.tolist() == [101, 102]
    assert same_bits(dataset.split("test").weights, rows[3:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_becomes_the_field_of_the_same_function(
    tmp_path: Path, name: str
) -> None:
    params, layout, field = ARCHITECTURES[name]
    rows = write_folder(tmp_path / name, nef={"name": name, "params": params}, layout=layout)

    dataset = import_fit_a_nef(tmp_path / name, tmp_path / "out")

    assert dataset.field == field
    assert (dataset.entry.in_dim, dataset.entry.out_dim) == (2, 3)
    assert [[tensor, list(shape)] for tensor, shape in dataset.spec.layout] == layout
    assert same_bits(dataset.split("train").weights, rows)


def test_fields_from_space_to_one_channel_are_occupancies_of_shapes(tmp_path: Path) -> None:
    layout = [[name, [3, *shape[1:]] if index == 1 else shape]
              for index, (name, shape) in enumerate(SIREN_LAYOUT)]  # fmt: skip
    layout = [[name, [*shape[:-1], 1] if "output" in name else shape] for name, shape in layout]
    nef = {"name": "SIREN", "params": {**SIREN["params"], "output_dim": 1}}
    write_folder(tmp_path / "S", nef=nef, layout=layout)

    dataset = import_fit_a_nef(tmp_path / "S", tmp_path / "out")

    assert (dataset.entry.in_dim, dataset.entry.out_dim) == (3, 1)
    assert dataset.entry.signals.output == "occupancy"
    assert "box" in dataset.entry.signals.coordinates


# p_k = sin(1 + 1.7 k) / 2 at (-1, -1), (0, 0), (0.25, -0.5), (1, 1); an independent computation in
# float64, six decimals (reference neural-datasets.md, 1.9).
GOLDEN = {
    "SIREN": [
        [-0.526678, 1.044063, 0.257635],
        [-1.317637, 0.195339, 1.267301],
        [-1.247185, 0.067006, 1.229918],
        [0.329929, 0.514885, -0.462609],
    ],
    "FourierNet": [
        [-0.421818, -0.029818, 0.429502],
        [-0.581116, 0.031677, 0.572953],
        [-0.577615, 0.021231, 0.572144],
        [-0.714717, 0.132191, 0.680652],
    ],
    "RFFNet": [
        [0.111278, 0.127443, -0.144119],
        [0.076278, 0.119819, -0.107154],
        [0.023778, -0.002720, -0.023077],
        [0.055788, 0.106622, -0.083264],
    ],
    "MLP": [
        [-0.223871, 0.553519, 0.081235],
        [-0.397118, 0.517016, 0.263889],
        [-0.386315, 0.524977, 0.251034],
        [-0.192789, 0.681114, 0.017274],
    ],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_an_imported_row_evaluates_to_the_golden_values(tmp_path: Path, name: str) -> None:
    params, layout, _ = ARCHITECTURES[name]
    row = 0.5 * np.sin(1 + 1.7 * np.arange(size(layout)))
    write_folder(
        tmp_path / name,
        ranges=((0, 1),),
        rows=row[None].astype(np.float32),
        nef={"name": name, "params": params},
        layout=layout,
    )

    dataset = import_fit_a_nef(tmp_path / name, tmp_path / "out")

    coords = torch.tensor([[-1, -1], [0, 0], [0.25, -0.5], [1, 1]], dtype=torch.float64)
    weights = dataset.split("train").weights.double()
    values = evaluate(dataset.field, dataset.spec, weights, coords)[0]
    # 2e-6: weights rounded to float32 (3e-8 each, factors up to 9), values to six decimals.
    expected = torch.tensor(GOLDEN[name], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=2e-6)


def test_rows_with_nan_or_infinity_are_diverged_and_keep_their_bits(tmp_path: Path) -> None:
    rows = random_rows(5)
    bits(rows)[1, 3] = 0x7FA12345  # a signalling NaN with a payload
    rows[2, 0], rows[3, 46], rows[4, 1] = -np.inf, np.nan, -0.0
    write_folder(tmp_path / "SIREN", rows=rows)

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    fields = dataset.split("train")
    assert fields.status == ("ok", "diverged", "diverged", "diverged", "ok")
    assert same_bits(fields.weights, rows)
    assert dataset.entry.summary["train"].status == {"diverged": 3, "ok": 2}


def test_a_folder_of_diverged_fields_only_is_imported(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN", rows=np.full((5, NUM_PARAMS), np.nan, np.float32))

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert dataset.entry.summary["train"].status == {"diverged": 5}


def test_numbers_of_the_other_byte_order_mean_the_same(tmp_path: Path) -> None:
    rows = random_rows(5)
    write_folder(tmp_path / "SIREN", rows=rows.astype(">f4"))

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert same_bits(dataset.split("train").weights, rows)


@settings(max_examples=15, deadline=None)
@given(
    patterns=st.lists(
        st.lists(st.integers(0, 2**32 - 1), min_size=NUM_PARAMS, max_size=NUM_PARAMS),
        min_size=2,
        max_size=5,
    )
)
def test_every_bit_pattern_survives_the_way_in_and_out(patterns: list[list[int]]) -> None:
    rows = np.array(patterns, np.uint32).view(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder / "SIREN", ranges=((1, len(rows)), (0, 1)), rows=rows)

        dataset = import_fit_a_nef(folder / "SIREN", folder / "out")
        (path,) = export_fit_a_nef(dataset, folder / "back")

        assert same_bits(dataset.split("train").weights, rows)
        with h5py.File(path) as file:
            assert same_bits(file["params"][()], rows)


# Importing the record


def test_the_record_says_what_is_known_and_that_the_rest_is_not(tmp_path: Path) -> None:
    cfg = {"dataset": {"name": "Blobs"}, "train": {"num_steps": 500}}
    write_folder(tmp_path / "SIREN", cfg=cfg)

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    entry = dataset.entry
    assert dataset.name == "siren-h4-imported"
    assert entry.fit == {
        "imported_from": "fit-a-nef",
        "nef": SIREN,
        "cfg": cfg,
        "name": "siren-h4-imported",
        "init": {"kind": "unknown"},
    }
    assert (entry.engine, entry.generator, entry.metrics) == ("fit-a-nef", "unknown", ())
    assert (entry.signals.name, entry.signals.source) == ("Blobs", "fit-a-nef folder SIREN")
    assert (entry.signals.grid_shape, entry.signals.coordinates) == ((), "unknown")
    assert (entry.signals.mean, entry.signals.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert entry.splits == (Split("train", 0, 5),)


def test_the_stored_dataset_is_the_returned_one_and_its_manifest_plain_json(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path / "SIREN", labels=[0, 1, 2, 1, 0])

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", name="mine")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "out" / "nefbench.json").read_text(), parse_constant=refuse)
    assert load_neural_dataset(tmp_path / "out", "mine") == dataset
    assert dataset.entry.is_complete


def test_the_unknown_loss_is_nan_per_field_and_absent_from_the_summary(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "SIREN")

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert dataset.split("train").loss.isnan().all()
    assert dataset.entry.summary["train"].quality == {}
    mean, std = dataset.entry.tensor_statistics["output_linear.bias"]
    # Places 4 + 8 + 4 + 16 = 32 to 34 of a row.
    assert mean == pytest.approx(rows[:, 32:35].mean(dtype=np.float64), rel=1e-9)
    assert std == pytest.approx(rows[:, 32:35].std(dtype=np.float64), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "channels", "grid_shape", "mean"),
    [
        ("MNIST", 1, (28, 28), (0.13066047,)),
        ("CIFAR10", 3, (32, 32), (0.49186882, 0.48265392, 0.44717726)),
        ("MicroImageNet", 3, (64, 64), (0.46433758, 0.43394157, 0.38213177)),
    ],
)
def test_a_data_set_of_the_library_is_scaled_with_its_constants(
    tmp_path: Path, name: str, channels: int, grid_shape: tuple[int, int], mean: tuple[float, ...]
) -> None:
    layout = [*SIREN_LAYOUT[:4], ["output_linear.bias", [channels]],
              ["output_linear.kernel", [4, channels]]]  # fmt: skip
    nef = {"name": "SIREN", "params": {**WITHOUT_OUTPUT_DIM, "output_dim": channels}}
    write_folder(
        tmp_path / "SIREN",
        nef=nef,
        cfg={"dataset": {"name": name}},
        layout=layout,
        labels=[3, 0, 1, 1, 0],
    )

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    signals = dataset.entry.signals
    assert (signals.name, signals.grid_shape, signals.mean) == (name, grid_shape, mean)
    assert signals.class_names == tuple("0123456789")
    rows = dataset.split("train").weights[:1]
    corner = evaluate(dataset.field, dataset.spec, rows, torch.tensor([[-1.0, -1.0]]))[0, 0]
    expected = corner * torch.tensor(signals.std) + torch.tensor(signals.mean)
    torch.testing.assert_close(dataset.render(rows)[0, 0, 0], expected)


def test_constants_that_do_not_fit_the_fields_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path / "SIREN", cfg={"dataset": {"name": "MNIST"}})  # three channels

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert dataset.entry.signals.mean == (0.0, 0.0, 0.0)
    assert "are not MNIST as in cfg.json" in caplog.text


@pytest.mark.parametrize("cfg", [{}, {"dataset": "MNIST"}, {"dataset": {"name": 7}}])
def test_a_cfg_without_a_data_set_is_only_recorded(tmp_path: Path, cfg: Any) -> None:
    write_folder(tmp_path / "SIREN", cfg=cfg)

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert dataset.entry.fit["cfg"] == cfg
    assert dataset.entry.signals.name == "SIREN"


def test_a_missing_output_dim_is_that_of_the_tensors(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN", nef={"name": "SIREN", "params": WITHOUT_OUTPUT_DIM})

    assert import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out").entry.out_dim == 3


def test_keys_that_only_shape_the_start_may_be_missing_or_unknown_to_us(tmp_path: Path) -> None:
    params, layout, _ = OTHERS["FourierNet"]
    short = {key: params[key] for key in ("output_dim", "hidden_dim", "num_filters")}
    write_folder(
        tmp_path / "FourierNet", nef={"name": "FourierNet", "params": short}, layout=layout
    )
    params, layout, field = OTHERS["RFFNet"]
    nef = {"name": "RFFNet", "params": {**params, "numerator": 2.0}}
    write_folder(tmp_path / "RFFNet", nef=nef, layout=layout)

    fourier = import_fit_a_nef(tmp_path / "FourierNet", tmp_path / "out")
    rff = import_fit_a_nef(tmp_path / "RFFNet", tmp_path / "out")

    # 256 and 6 are the library's own defaults.
    assert fourier.field == FourierNet(
        hidden_dim=4, num_filters=3, input_scale=256.0, weight_scale=6.0
    )
    assert rff.field == field


def test_other_arrays_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path / "SIREN")
    with h5py.File(tmp_path / "SIREN" / "nefs_0-5.hdf5", "a") as file:
        file.create_dataset("pose", data=[1, 2, 3, 4, 5])

    import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert "nefs_0-5.hdf5: not imported: pose" in caplog.text


# Importing labels and splits


def test_labels_follow_their_fields_through_files_and_splits(tmp_path: Path) -> None:
    labels = [i % 7 for i in range(103)]
    write_folder(tmp_path / "SIREN", ranges=RANGES, labels=labels)

    dataset = import_fit_a_nef(
        tmp_path / "SIREN",
        tmp_path / "out",
        splits=[("train", 50), ("validation", 3), ("test", 50)],
        part_rows=11,
    )

    assert dataset.class_names == ("0", "1", "2", "3", "4", "5", "6")
    stored = [dataset.split(name).labels for name in dataset.split_names]
    assert torch.cat([part for part in stored if part is not None]).tolist() == labels
    # 50 to 52 are 1, 2 and 3 modulo 7.
    assert dataset.entry.summary["validation"].class_counts == (0, 1, 1, 1, 0, 0, 0)


def test_classes_take_the_names_they_are_given(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN", labels=[0, 1, 1, 0, 1])

    dataset = import_fit_a_nef(
        tmp_path / "SIREN", tmp_path / "out", class_names=["cat", "dog", "owl"]
    )

    assert dataset.class_names == ("cat", "dog", "owl")


def test_fields_without_labels_have_none(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN")

    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert dataset.class_names == ()
    assert dataset.split("train").labels is None


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", ">i8", "uint64"])
def test_labels_may_be_of_any_whole_number_type(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path / "SIREN", ranges=((0, 5),))
    write_file(tmp_path / "SIREN", 0, random_rows(5), labels=np.array([4, 0, 1, 2, 3], kind))

    labels = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out").split("train").labels

    assert labels is not None
    assert labels.tolist() == [4, 0, 1, 2, 3]


# The folder it goes to


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_import_again_changes_nothing_however_files_are_cut(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "a" / "SIREN", ranges=((0, 5), (5, 12)), labels=[0, 1] * 6)
    write_folder(tmp_path / "b" / "SIREN", ranges=((0, 12),), rows=rows, labels=[0, 1] * 6)

    first = import_fit_a_nef(tmp_path / "a" / "SIREN", tmp_path / "out", part_rows=4)
    before = content(tmp_path / "out")
    again = import_fit_a_nef(tmp_path / "b" / "SIREN", tmp_path / "out", part_rows=3)

    assert again == first
    assert content(tmp_path / "out") == before


def test_another_import_of_the_same_name_is_refused(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "a" / "SIREN")
    rows[4, 46] = np.nextafter(rows[4, 46], np.float32(9))
    write_folder(tmp_path / "b" / "SIREN", rows=rows)
    import_fit_a_nef(tmp_path / "a" / "SIREN", tmp_path / "out")
    before = content(tmp_path / "out")

    with pytest.raises(ConfigError, match=r"another config 'siren-h4-imported' .*fingerprint"):
        import_fit_a_nef(tmp_path / "b" / "SIREN", tmp_path / "out")
    with pytest.raises(ConfigError, match="another config 'siren-h4-imported'"):
        import_fit_a_nef(
            tmp_path / "a" / "SIREN", tmp_path / "out", splits=[("train", 4), ("test", 1)]
        )

    assert content(tmp_path / "out") == before
    import_fit_a_nef(tmp_path / "b" / "SIREN", tmp_path / "out", name="other")
    assert list(read_manifest(tmp_path / "out").configs) == ["siren-h4-imported", "other"]


def test_an_import_goes_beside_the_configs_that_are_there(tmp_path: Path) -> None:
    made, weights = make_dataset(tmp_path / "out")
    write_folder(tmp_path / "SIREN")

    import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", name="theirs")

    assert list(read_manifest(tmp_path / "out").configs) == ["made", "theirs"]
    assert same_bits(made.split("train").weights, weights[:5])


def test_a_stopped_import_continues_with_the_finished_parts(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN")
    out = tmp_path / "out"
    import_fit_a_nef(tmp_path / "SIREN", out, name="x", part_rows=2)
    finished = content(out)
    # A process that was killed after its first part leaves this:
    write_manifest(out, Manifest())
    (out / "x" / "train" / "part-000002-000004.parquet").unlink()
    (out / "x" / "train" / "part-000004-000005.parquet").unlink()
    (out / "x" / "train" / ".part-000002-000004.parquet.99999999.tmp").write_bytes(b"half")
    kept = out / "x" / "train" / "part-000000-000002.parquet"
    inode = kept.stat().st_ino

    import_fit_a_nef(tmp_path / "SIREN", out, name="x", part_rows=2)

    assert content(out) == finished
    assert kept.stat().st_ino == inode


def test_files_that_belong_to_no_config_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN")
    out = tmp_path / "out"
    import_fit_a_nef(tmp_path / "SIREN", out, name="x", part_rows=2)
    write_manifest(out, Manifest())

    with pytest.raises(DatasetFormatError, match=r"part-000000-000002\.parquet belongs to no"):
        import_fit_a_nef(tmp_path / "SIREN", out, name="x", part_rows=5)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    (tmp_path / "file").write_text("")

    for out in (tmp_path / "notes", tmp_path / "file"):
        with pytest.raises(DatasetFormatError, match="choose a new or empty folder"):
            import_fit_a_nef(tmp_path / "SIREN", out)

    assert content(tmp_path / "notes") == {"mine.txt": b"keep me"}


# What can be wrong with the source: each case spoils a folder with files 0-5 and 5-8.


def edit(key: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Replace one array of the second file."""

    def apply(folder: Path) -> None:
        with h5py.File(folder / "nefs_5-8.hdf5", "a") as file:
            value = change(file[key][()])
            del file[key]
            if value is not None:
                file.create_dataset(key, data=value)

    return apply


def relayout(change: Callable[[list[Any]], Any]) -> Callable[[Path], object]:
    return edit(
        "param_config", lambda _: [json.dumps(change(json.loads(json.dumps(SIREN_LAYOUT))))]
    )


def rename(source: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / source).rename(folder / target)


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def nef(**params: Any) -> Callable[[Path], object]:
    """Change params of nef.json; None removes a key."""
    changed = {**SIREN_PARAMS, **params}
    kept = {key: value for key, value in changed.items() if value is not None}
    return write("nef.json", json.dumps({"name": "SIREN", "params": kept}))


def cut(size: int) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "nefs_5-8.hdf5"
        path.write_bytes(path.read_bytes()[:size])

    return apply


def remove_files(folder: Path) -> None:
    for path in folder.glob("*.hdf5"):
        path.unlink()


def make_folder(folder: Path) -> None:
    (folder / "nefs_5-8.hdf5").unlink()
    (folder / "nefs_5-8.hdf5").mkdir()


def make_group(folder: Path) -> None:
    with h5py.File(folder / "nefs_5-8.hdf5", "a") as file:
        del file["params"]
        file.create_group("params")


def spoil_checksummed_rows(folder: Path) -> None:
    with h5py.File(folder / "nefs_5-8.hdf5", "a") as file:
        rows = file["params"][()]
        del file["params"]
        stored = file.create_dataset("params", data=rows, chunks=(3, NUM_PARAMS), fletcher32=True)
        file.flush()
        place = stored.id.get_chunk_info(0).byte_offset
    with (folder / "nefs_5-8.hdf5").open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\x55")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no nef.json": (rename("nef.json", "net.json"), r"has no nef\.json; expected the folder of"),
    "no files": (
        remove_files,
        r"has no nefs_\*\.hdf5",
    ),
    "nef.json is no JSON": (write("nef.json", "{"), r"nef\.json is not readable JSON"),
    "nef.json is no text": (
        lambda folder: (folder / "nef.json").write_bytes(b"\xff"),
        r"nef\.json is not readable JSON",
    ),
    "nef.json is a list": (write("nef.json", "[1]"), r"expected a JSON object \(got \[1\]\)"),
    "nef.json nests without end": (write("nef.json", "[" * 100_000), "is not readable JSON"),
    "cfg.json is no JSON": (write("cfg.json", "no"), r"cfg\.json is not readable JSON"),
    "cfg.json holds NaN": (write("cfg.json", '{"a": NaN}'), r"cfg\.json is not readable JSON"),
    "cfg.json holds half a character": (
        write("cfg.json", '{"a": "\\ud800"}'),
        r"cfg\.json is not readable JSON",
    ),
    "unknown architecture": (
        write("nef.json", '{"name": "Siren", "params": {}}'),
        r"one of SIREN, RFFNet, FourierNet, MLP \(got 'Siren'\)",
    ),
    "no architecture": (write("nef.json", '{"params": {}}'), r"expected name .*\(got None\)"),
    "GaborNet": (
        write("nef.json", '{"name": "GaborNet", "params": {}}'),
        "no storage order for GaborNet",
    ),
    "no params in nef.json": (write("nef.json", '{"name": "SIREN"}'), "expected params to be an"),
    "missing key": (nef(omega_0=None), "missing key 'omega_0' in params of SIREN"),
    "mistyped key": (nef(omega_O=3.0), "unknown key 'omega_O' in params; did you mean 'omega_0'"),
    "foreign key": (nef(preset="paper"), "unknown key 'preset' in params; SIREN has output_dim"),
    "value of another kind": (nef(hidden_dim="4"), r"hidden_dim: .*\(got '4'\)"),
    "value out of range": (nef(num_layers=1), r"expected num_layers >= 2 \(got 1\)"),
    "output_dim of another kind": (nef(output_dim=3.0), r"output_dim .*whole number .*got 3\.0"),
    "output_dim out of range": (nef(output_dim=0), r"output_dim .*>= 1 \(got 0\)"),
    "other output_dim": (
        nef(output_dim=1),
        r"place 4 expected 'output_linear.bias' of shape \[1\] .*of shape \[3\]",
    ),
    "other width": (
        nef(hidden_dim=5),
        r"place 0 expected 'kernel_net_0.linear.bias' of shape \[5\] \(got .* of shape \[4\]\)",
    ),
    "more layers": (
        nef(num_layers=4),
        r"place 4 expected 'kernel_net_2.linear.bias' .*\(got 'output_linear.bias'",
    ),
    "no param_config": (edit("param_config", lambda _: None), "no readable array 'param_config'"),
    "param_config is a number": (edit("param_config", lambda _: [1]), "expected param_config to"),
    "param_config is two strings": (
        edit("param_config", lambda text: [text[0], text[0]]),
        "expected param_config to be one string",
    ),
    "param_config is no JSON": (edit("param_config", lambda _: ["[["]), r"\(got b'\[\['\)"),
    "param_config is another list": (relayout(lambda _: [["a", 4]]), "list of .name, shape."),
    "param_config has no kernel": (
        lambda folder: [
            write_file(folder, 0, random_rows(5, 4), layout=[["kernel_net_0.linear.bias", [4]]])
        ],
        "has no kernel of shape",
    ),
    "another name": (
        relayout(lambda layout: [["net_0.bias", [4]], *layout[1:]]),
        r"nefs_5-8\.hdf5: .*place 0 expected 'kernel_net_0.linear.bias' .*\(got 'net_0.bias'",
    ),
    "another order": (
        relayout(lambda layout: [layout[1], layout[0], *layout[2:]]),
        r"place 0 expected 'kernel_net_0.linear.bias' .*\(got 'kernel_net_0.linear.kernel'",
    ),
    "another shape": (
        relayout(lambda layout: [*layout[:3], [layout[3][0], [8, 2]], *layout[4:]]),
        r"place 3 expected .*of shape \[4, 4\] \(got .*of shape \[8, 2\]\)",
    ),
    "a tensor too few": (relayout(lambda layout: layout[:5]), r"place 5 .*\(got nothing\)"),
    "a tensor too many": (
        relayout(lambda layout: [*layout, ["extra", [1]]]),
        r"place 6 expected nothing \(got 'extra' of shape \[1\]\)",
    ),
    "no params": (edit("params", lambda _: None), "no readable array 'params'"),
    "params is a group": (make_group, "no readable array 'params'"),
    "rows of another width": (
        edit("params", lambda rows: rows[:, :46]),
        r"expected params of shape \[3, 47\], .*\(got \[3, 46\]\)",
    ),
    "rows of another type": (
        edit("params", lambda rows: rows.astype(np.float64)),
        r"expected params in float32 \(got float64\)",
    ),
    "params of another rank": (
        edit("params", lambda rows: rows[:, :, None]),
        r"\(got \[3, 47, 1\]\)",
    ),
    "rows too few": (edit("params", lambda rows: rows[:2]), r"\[3, 47\], .*\(got \[2, 47\]\)"),
    "labels too few": (
        edit("labels", lambda labels: labels[:2]),
        r"expected labels to be 3 whole numbers \(got shape \[2\]",
    ),
    "labels of another rank": (edit("labels", lambda labels: labels[:, None]), r"shape \[3, 1\]"),
    "labels below zero": (edit("labels", lambda _: [0, -1, 0]), r"expected labels >= 0 \(got -1"),
    "labels with fractions": (edit("labels", lambda _: [0.0, 1.0, 2.0]), r"shape \[3\], float64"),
    "labels in one file only": (
        edit("labels", lambda _: None),
        r"nefs_5-8\.hdf5 has no labels; expected labels in all files",
    ),
    "labels without end": (
        edit("labels", lambda _: np.array([2**63, 0, 0], np.uint64)),
        r"a name for each of the classes 0 to 9223372036854775808 \(got 0",
    ),
    "a gap": (rename("nefs_5-8.hdf5", "nefs_7-10.hdf5"), "fields 5 to 6 are missing .*nefs_0-5"),
    "an overlap": (rename("nefs_5-8.hdf5", "nefs_4-7.hdf5"), "field.* 4 to 4 are in both"),
    "the same twice": (
        lambda folder: shutil.copy(folder / "nefs_5-8.hdf5", folder / "nefs_05-8.hdf5"),
        "fields 5 to 7 are in both",
    ),
    "a name without numbers": (
        rename("nefs_5-8.hdf5", "nefs_rest.hdf5"),
        r"nefs_rest\.hdf5: expected a name nefs_<a>-<b>\.hdf5",
    ),
    "a name with an empty range": (rename("nefs_5-8.hdf5", "nefs_5-5.hdf5"), "with a < b"),
    "a file cut in its rows": (cut(3000), r"nefs_5-8\.hdf5 is not a readable HDF5 file \("),
    "a file cut in its head": (cut(30), "is not a readable HDF5 file"),
    "an empty file": (cut(0), "is not a readable HDF5 file"),
    "garbage": (
        lambda folder: (folder / "nefs_5-8.hdf5").write_bytes(b"\x89PNG" * 500),
        "is not a readable HDF5 file",
    ),
    "a folder in place of a file": (
        make_folder,
        "is not a readable HDF5 file",
    ),
    "damaged rows": (spoil_checksummed_rows, "is not a readable HDF5 file"),
    "a record of another kind": (
        write("cfg.json", '{"nefbench": 1}'),
        "expected a record of the signals under 'nefbench'",
    ),
    "a record with a bad value": (
        write("cfg.json", '{"nefbench": {"signals": {"name": 1}}}'),
        r"nefbench\.signals: ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_source_is_one_clear_line_and_nothing_is_written(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    write_folder(tmp_path / "SIREN", ranges=((0, 5), (5, 8)), labels=[0, 1, 2, 0, 1, 2, 0, 1])
    spoil(tmp_path / "SIREN")

    with pytest.raises(DatasetFormatError, match=message) as caught:
        import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out")

    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([("train", 3), ("test", 1)], r"add up to the 5 fields .*train 3, test 1, together 4"),
        ([("train", 6)], "together 6"),
        ([("train", 5), ("test", 0)], "at least one field"),
        ([("train", 6), ("test", -1)], "at least one field"),
        ([("train", 3), ("train", 2)], r"each split once.*\(got train, train\)"),
        ([("train", 3), ("val", 2)], r"out of train, validation, test \(got train, val\)"),
        ([], r"add up to the 5 fields"),
    ],
)
def test_splits_that_do_not_fit_are_refused(
    tmp_path: Path, splits: list[tuple[str, int]], message: str
) -> None:
    write_folder(tmp_path / "SIREN")

    with pytest.raises(DatasetFormatError, match=message):
        import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", splits=splits)

    assert not (tmp_path / "out").exists()


def test_class_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "plain")
    write_folder(tmp_path / "labelled", labels=[0, 1, 2, 0, 1])

    with pytest.raises(DatasetFormatError, match="has no labels; leave out the class names"):
        import_fit_a_nef(tmp_path / "plain", tmp_path / "out", class_names=["a"])
    with pytest.raises(DatasetFormatError, match=r"classes 0 to 2 \(got 2 class names\)"):
        import_fit_a_nef(tmp_path / "labelled", tmp_path / "out", class_names=["a", "b"])

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", ".", "../up", "a/b", "-x", "a b"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "SIREN")

    with pytest.raises(ConfigError, match="expected a name of letters"):
        import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", name=name)


def test_parts_hold_at_least_one_row(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN")

    with pytest.raises(ConfigError, match=r"expected part_rows >= 1 \(got 0\)"):
        import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", part_rows=0)


# Export


def test_an_export_is_the_published_layout(tmp_path: Path) -> None:
    dataset, weights = make_dataset(tmp_path / "made")

    paths = export_fit_a_nef(dataset, tmp_path / "SIREN", rows_per_file=4)

    assert [path.name for path in paths] == ["nefs_0-4.hdf5", "nefs_4-8.hdf5", "nefs_8-10.hdf5"]
    assert sorted(path.name for path in (tmp_path / "SIREN").iterdir()) == [
        "cfg.json", "nef.json", "nefs_0-4.hdf5", "nefs_4-8.hdf5", "nefs_8-10.hdf5",
    ]  # fmt: skip
    assert json.loads((tmp_path / "SIREN" / "nef.json").read_text()) == SIREN
    with h5py.File(paths[1]) as file:
        assert set(file) == {"params", "param_config", "labels"}
        assert file["params"].dtype == np.float32
        assert same_bits(file["params"][()], weights[4:8])
        assert file["param_config"].shape == (1,)
        assert h5py.check_string_dtype(file["param_config"].dtype).length is None
        assert json.loads(file["param_config"][0].decode("utf-8")) == SIREN_LAYOUT
        assert file["labels"].dtype == np.int64
        assert file["labels"][()].tolist() == [1, 2, 0, 1]
        assert not file.attrs
        assert file["params"].chunks is None
        assert file["params"].compression is None


@pytest.mark.parametrize("rows_per_file", [1, 3, 10, 5000])
def test_files_are_cut_as_asked_whatever_the_parts(tmp_path: Path, rows_per_file: int) -> None:
    dataset, weights = make_dataset(tmp_path / "made")

    paths = export_fit_a_nef(dataset, tmp_path / "SIREN", rows_per_file=rows_per_file)

    rows, labels = [], []
    for path in paths:
        with h5py.File(path) as file:
            rows.append(file["params"][()])
            labels += file["labels"][()].tolist()
    assert [len(part) for part in rows[:-1]] == [rows_per_file] * (len(rows) - 1)
    assert same_bits(np.concatenate(rows), weights)
    assert labels == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_an_export_imports_as_the_same_fields_and_signals(tmp_path: Path) -> None:
    weights = torch.from_numpy(random_rows(10))
    weights[3, 5], weights[4, 6], weights[7, 0] = math.nan, -0.0, math.inf
    status = ["ok"] * 10
    status[3] = status[7] = "diverged"
    dataset, _ = make_dataset(tmp_path / "made", weights=weights, status=status)

    export_fit_a_nef(dataset, tmp_path / "SIREN", rows_per_file=3)
    back = import_fit_a_nef(
        tmp_path / "SIREN",
        tmp_path / "back",
        splits=[("train", 5), ("validation", 2), ("test", 3)],
    )

    assert back.field == dataset.field
    assert back.entry.splits == dataset.entry.splits
    signals = dataset.entry.signals
    assert dataclasses.replace(back.entry.signals, fingerprint=signals.fingerprint) == signals
    for name in dataset.split_names:
        ours, theirs = dataset.split(name), back.split(name)
        assert same_bits(theirs.weights, ours.weights)
        assert theirs.labels is not None
        assert theirs.labels.tolist() == ours.labels.tolist()  # type: ignore[union-attr]
        assert theirs.status == ours.status


def test_an_import_exports_as_the_same_files(tmp_path: Path) -> None:
    cfg = {"dataset": {"name": "Blobs"}, "seeds": [0, 1]}
    labels = [i % 4 for i in range(103)]
    write_folder(tmp_path / "SIREN", ranges=RANGES, labels=labels, cfg=cfg)
    dataset = import_fit_a_nef(tmp_path / "SIREN", tmp_path / "out", part_rows=7)

    (path,) = export_fit_a_nef(dataset, tmp_path / "back")

    stored = []
    for start, stop in sorted(RANGES):
        with h5py.File(tmp_path / "SIREN" / f"nefs_{start}-{stop}.hdf5") as file:
            stored.append(file["params"][()])
    with h5py.File(path) as file:
        assert path.name == "nefs_0-103.hdf5"
        assert same_bits(file["params"][()], np.concatenate(stored))
        assert file["labels"][()].tolist() == labels
    assert json.loads((tmp_path / "back" / "nef.json").read_text()) == SIREN
    written = json.loads((tmp_path / "back" / "cfg.json").read_text())
    assert {key: written[key] for key in cfg} == cfg
    assert set(written) == {*cfg, "nefbench"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_described_in_the_words_of_the_library(
    tmp_path: Path, name: str
) -> None:
    params, layout, field = ARCHITECTURES[name]
    dataset, _ = make_dataset(tmp_path / "made", field=field)

    (path,) = export_fit_a_nef(dataset, tmp_path / name)

    written = json.loads((tmp_path / name / "nef.json").read_text())
    assert written == {"name": name, "params": params}
    with h5py.File(path) as file:
        assert json.loads(file["param_config"][0]) == layout


def test_an_unset_weight_scale_is_written_as_what_was_used(tmp_path: Path) -> None:
    for preset, expected in (("fit-a-nef", 6.0), ("original", 1.0)):
        field = FourierNet(hidden_dim=4, preset=preset)  # type: ignore[arg-type]
        dataset, _ = make_dataset(tmp_path / preset, field=field)

        export_fit_a_nef(dataset, tmp_path / preset / "FourierNet")

        written = json.loads((tmp_path / preset / "FourierNet" / "nef.json").read_text())
        assert written["params"]["weight_scale"] == expected


def test_frequencies_without_the_factor_two_pi_keep_their_function(tmp_path: Path) -> None:
    field = RFFNet(hidden_dim=4, std=0.7, preset="paper")
    dataset, weights = make_dataset(tmp_path / "made", field=field)
    export_fit_a_nef(dataset, tmp_path / "RFFNet")

    back = import_fit_a_nef(tmp_path / "RFFNet", tmp_path / "back")

    coords = torch.tensor([[-1.0, 0.5], [0.3, 0.9]], dtype=torch.float64)
    expected = evaluate(field, dataset.spec, weights.double(), coords)
    values = evaluate(back.field, back.spec, back.split("train").weights.double(), coords)
    # float64, 1e-12: std / (2 pi) and back
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)


def test_fields_that_the_format_cannot_say_are_refused(tmp_path: Path) -> None:
    gabor, _ = make_dataset(tmp_path / "gabor", field=GaborNet(hidden_dim=4, num_filters=2))
    paper, _ = make_dataset(tmp_path / "paper", field=Siren(hidden_dim=4, preset="paper"))

    with pytest.raises(DatasetFormatError, match=r"orders for SIREN, RFFNet.*\(got gabornet"):
        export_fit_a_nef(gabor, tmp_path / "out")
    with pytest.raises(DatasetFormatError, match="would read the rows as sin"):
        export_fit_a_nef(paper, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_only_a_complete_dataset_is_exported(tmp_path: Path) -> None:
    dataset, _ = make_dataset(tmp_path / "made")
    parts = dataset.entry.parts
    unfinished = dataclasses.replace(dataset.entry, parts=parts[:-1])
    # As many rows as planned, but the first part twice and the second not at all.
    doubled = dataclasses.replace(dataset.entry, parts=(parts[0], parts[0], *parts[2:]))

    with pytest.raises(DatasetFormatError, match="is not finished: 9 of 10 fields"):
        export_fit_a_nef(NeuralDataset(dataset.folder, "made", unfinished), tmp_path / "out")
    with pytest.raises(DatasetFormatError, match="expected parts without gap or overlap"):
        export_fit_a_nef(NeuralDataset(dataset.folder, "made", doubled), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_damaged_part_leaves_no_folder_that_could_be_imported(tmp_path: Path) -> None:
    dataset, _ = make_dataset(tmp_path / "made")
    last = dataset.folder / "made" / dataset.entry.parts[-1].file_name
    last.write_bytes(last.read_bytes()[:-1])

    with pytest.raises(DatasetFormatError, match="the file was cut or replaced"):
        export_fit_a_nef(dataset, tmp_path / "out", rows_per_file=5)

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["nefs_0-5.hdf5"]


def test_fields_without_a_label_are_refused(tmp_path: Path) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, -1, -1, 2])
    dataset, _ = make_dataset(tmp_path / "made", labels=labels)

    with pytest.raises(DatasetFormatError, match="2 fields of split 'test' have no label"):
        export_fit_a_nef(dataset, tmp_path / "out")


def test_diverged_fields_that_look_like_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = torch.from_numpy(random_rows(10))
    weights[0] = math.nan
    dataset, _ = make_dataset(
        tmp_path / "made", weights=weights, status=["diverged", "diverged", *["ok"] * 8]
    )

    with caplog.at_level(logging.WARNING):
        export_fit_a_nef(dataset, tmp_path / "out")

    assert "1 fields with status 'diverged' have finite weights" in caplog.text


def test_an_export_goes_to_a_new_or_empty_folder(tmp_path: Path) -> None:
    dataset, _ = make_dataset(tmp_path / "made")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    before = content(dataset.folder)

    export_fit_a_nef(dataset, tmp_path / "empty")
    for used in (dataset.folder, tmp_path / "empty", tmp_path / "file"):
        with pytest.raises(DatasetFormatError, match="is in use; choose a new or empty folder"):
            export_fit_a_nef(dataset, used)

    assert content(dataset.folder) == before


def test_files_hold_at_least_one_row(tmp_path: Path) -> None:
    dataset, _ = make_dataset(tmp_path / "made")

    with pytest.raises(ConfigError, match=r"expected rows_per_file >= 1 \(got 0\)"):
        export_fit_a_nef(dataset, tmp_path / "out", rows_per_file=0)


# Without h5py


def test_h5py_is_asked_for_at_first_use_only(tmp_path: Path) -> None:
    write_folder(tmp_path / "SIREN")
    make_dataset(tmp_path / "made")
    program = """
import sys
from pathlib import Path
sys.modules["h5py"] = None
from nefbench.errors import MissingDependencyError
from nefbench.weights import load_neural_dataset
from nefbench.weights.hdf5 import export_fit_a_nef, import_fit_a_nef
here = Path(sys.argv[1])
for call in (
    lambda: import_fit_a_nef(here / "SIREN", here / "out"),
    lambda: export_fit_a_nef(load_neural_dataset(here / "made"), here / "out"),
):
    try:
        call()
    except MissingDependencyError as error:
        print(error)
"""

    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines() == [
        "reading .hdf5 needs h5py: pip install 'nefbench[hdf5]'",
        "writing .hdf5 needs h5py: pip install 'nefbench[hdf5]'",
    ]
    assert not (tmp_path / "out").exists()
