from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nefbench.errors import DatasetFormatError
from nefbench.fields import GaborNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import Split
from nefbench.weights import (
    ConfigEntry,
    FieldRows,
    Manifest,
    NeuralDataset,
    load_all,
    load_neural_dataset,
    write_manifest,
)
from nefbench.weights.manifest import Output, SignalsEntry
from nefbench.weights.parts import write_part

FIELD = Siren(hidden_dim=4, num_layers=2)


def make_entry(*, out_dim: int = 1) -> ConfigEntry:
    """A config of ten fields: 0 to 6 train, 7 to 9 test."""
    return ConfigEntry(
        field=FIELD,
        in_dim=2,
        out_dim=out_dim,
        tensors=FIELD.spec(2, out_dim).layout,
        signals=SignalsEntry(
            name="toy",
            source="drawn",
            fingerprint="f" * 64,
            licence="MIT",
            grid_shape=(5, 4),
            mean=(0.5, 0.25, -1.0)[:out_dim],
            std=(0.25, 2.0, 0.5)[:out_dim],
            class_names=("cat", "dog"),
        ),
        splits=(Split("train", 0, 7), Split("test", 7, 10)),
        fit={},
        digest="d" * 64,
        engine="none",
        generator="none",
    )


def make_rows(start: int, stop: int) -> FieldRows:
    """Fields whose every column tells which field it is."""
    index = torch.arange(start, stop)
    return FieldRows(
        weights=index[:, None].float().repeat(1, FIELD.spec(2, 1).num_params),
        signal_index=100 + index,
        init_seed=torch.zeros(stop - start, dtype=torch.int64),
        loss=index / 10,
        status=("ok",) * (stop - start),
        labels=index % 2,
        quality={},
    )


def write_parts(folder: Path, name: str, places: list[tuple[str, int, int]]) -> NeuralDataset:
    entry = make_entry()
    parts = tuple(
        write_part(folder, name, entry, split, start, make_rows(start, stop))
        for split, start, stop in places
    )
    entry = dataclasses.replace(entry, parts=parts)
    write_manifest(folder, Manifest(configs={name: entry}))
    return load_neural_dataset(folder)


# Splits


def test_a_split_joins_its_parts_in_order_of_their_fields(tmp_path: Path) -> None:
    places = [("test", 7, 10), ("train", 5, 7), ("train", 0, 2), ("train", 2, 5)]
    dataset = write_parts(tmp_path, "a", places)

    rows = dataset.split("train")

    assert rows.signal_index.tolist() == [100, 101, 102, 103, 104, 105, 106]
    assert rows.weights[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert rows.labels is not None
    assert rows.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert torch.equal(rows.loss, torch.arange(7) / 10)
    assert dataset.split("test").signal_index.tolist() == [107, 108, 109]


def test_an_unfinished_split_holds_its_finished_fields(tmp_path: Path) -> None:
    dataset = write_parts(tmp_path, "a", [("train", 5, 7)])

    assert dataset.split("train").signal_index.tolist() == [105, 106]


def test_a_split_without_a_finished_field_says_how_to_continue(tmp_path: Path) -> None:
    dataset = write_parts(tmp_path, "a", [("train", 5, 7)])

    with pytest.raises(DatasetFormatError, match="no field of split 'test' is finished") as caught:
        dataset.split("test")
    assert str(caught.value).endswith(f"nefbench fit {tmp_path} --config a")


def test_an_unknown_split_is_named_with_the_known_ones(tmp_path: Path) -> None:
    dataset = write_parts(tmp_path, "a", [("train", 5, 7)])

    with pytest.raises(DatasetFormatError, match=r"no split 'validation'; it has train, test$"):
        dataset.split("validation")


def test_a_damaged_part_is_not_passed_over(tmp_path: Path) -> None:
    dataset = write_parts(tmp_path, "a", [("train", 0, 5), ("train", 5, 7)])
    (tmp_path / "a" / "train" / "part-000005-000007.parquet").unlink()

    with pytest.raises(DatasetFormatError, match=r"part-000005-000007\.parquet is missing"):
        dataset.split("train")


def test_a_dataset_is_complete_when_every_planned_field_is_there(tmp_path: Path) -> None:
    whole = write_parts(tmp_path / "whole", "a", [("train", 0, 7), ("test", 7, 10)])
    half = write_parts(tmp_path / "half", "a", [("train", 0, 7)])

    whole.require_complete()
    with pytest.raises(DatasetFormatError, match="not finished: 7 of 10 fields") as caught:
        half.require_complete()
    assert str(caught.value).endswith(f"nefbench fit {tmp_path / 'half'} --config a")


def test_a_dataset_says_what_its_rows_are(tmp_path: Path) -> None:
    dataset = write_parts(tmp_path, "a", [("train", 0, 7)])

    assert dataset.field == FIELD
    assert dataset.spec == FIELD.spec(2, 1)
    assert dataset.split_names == ("train", "test")
    assert dataset.class_names == ("cat", "dog")


# Rendering


def one_by_one(entry: ConfigEntry, rows: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """Pixel after pixel in float64: x runs fastest and comes first, both from -1 to 1."""
    height, width = grid_shape
    images = torch.empty(len(rows), height, width, entry.out_dim, dtype=torch.float64)
    for n, row in enumerate(rows.double()):
        params = entry.spec.unflatten(row)
        for i in range(height):
            for j in range(width):
                point = [-1 + 2 * j / (width - 1), -1 + 2 * i / (height - 1)]
                value = entry.field.apply(params, torch.tensor(point, dtype=torch.float64))
                for c in range(entry.out_dim):
                    raw = value[c] * entry.signals.std[c] + entry.signals.mean[c]
                    images[n, i, j, c] = raw
    return images


@pytest.mark.parametrize("grid_shape", [None, (3, 7)])
def test_rendering_evaluates_every_field_at_every_pixel_in_raw_values(
    grid_shape: tuple[int, int] | None,
) -> None:
    entry = make_entry(out_dim=3)
    params = FIELD.init(2, 3, Draws(0, (0, 1, 2)))
    rows = entry.spec.flatten(params) + 0.1

    images = NeuralDataset(Path(), "a", entry).render(rows, grid_shape)

    expected = one_by_one(entry, rows, grid_shape or (5, 4))
    assert images.shape == (3, *(grid_shape or (5, 4)), 3)
    # float32 and a phase of up to 30: 2e-5 of values about 1.
    torch.testing.assert_close(images.double(), expected, rtol=0, atol=2e-5)


def test_rendered_values_are_not_clipped() -> None:
    entry = make_entry()
    rows = torch.zeros(1, entry.spec.num_params)
    rows[:, entry.spec.slices()["output_linear.bias"]] = 10.0

    image = NeuralDataset(Path(), "a", entry).render(rows)

    assert torch.equal(image, torch.full((1, 5, 4, 1), 3.0))  # 10 x 0.25 + 0.5


def test_rendering_without_a_known_grid_asks_for_one() -> None:
    entry = make_entry()
    unknown = dataclasses.replace(entry.signals, grid_shape=())
    dataset = NeuralDataset(Path(), "a", dataclasses.replace(entry, signals=unknown))
    rows = torch.zeros(1, entry.spec.num_params)

    with pytest.raises(ValueError, match=r"expected a grid of 2 dimensions \(got \(\)\)"):
        dataset.render(rows)
    with pytest.raises(ValueError, match=r"got \(3, 3, 3\)"):
        dataset.render(rows, (3, 3, 3))
    assert dataset.render(rows, (2, 3)).shape == (1, 2, 3, 1)


# Shapes and volumes


def cosines(centre: tuple[float, float, float], scale: float = 1.0) -> Tensor:
    """One row of ``Siren(hidden_dim=3, num_layers=2, omega_0=1)``: a sum of cosines around a point.

    ``scale * (sum_i cos(2 pi (p_i - centre_i)) - 1)``, as sines with a phase of a quarter turn.
    """
    turn = 2 * math.pi
    params = {
        "kernel_net_0.linear.bias": math.pi / 2 - turn * torch.tensor(centre),
        "kernel_net_0.linear.kernel": turn * torch.eye(3),
        "output_linear.bias": torch.tensor([-scale]),
        "output_linear.kernel": torch.full((3, 1), scale),
    }
    return COSINES.spec(3, 1).flatten(params)


COSINES = Siren(hidden_dim=3, num_layers=2, omega_0=1.0)


def dataset_in_space(output: Output, grid_shape: tuple[int, ...] = ()) -> NeuralDataset:
    signals = dataclasses.replace(make_entry().signals, output=output, grid_shape=grid_shape)
    entry = dataclasses.replace(
        make_entry(),
        field=COSINES,
        in_dim=3,
        tensors=COSINES.spec(3, 1).layout,
        signals=dataclasses.replace(signals, mean=(0.0,), std=(2.0,)),
    )
    return NeuralDataset(Path(), "a", entry)


def test_shapes_are_rendered_over_their_box_with_axes_z_y_x() -> None:
    rows = torch.stack([cosines((0.1, -0.2, 0.3)), cosines((0.0, 0.05, 0.0))])

    values = dataset_in_space("signed-distance").render(rows, (3, 4, 5))

    assert values.shape == (2, 3, 4, 5, 1)
    z, y, x = (torch.linspace(-0.55, 0.55, size) for size in (3, 4, 5))
    for row, (cx, cy, cz) in enumerate([(0.1, -0.2, 0.3), (0.0, 0.05, 0.0)]):
        waves = [(2 * math.pi * (axis - c)).cos() for axis, c in ((z, cz), (y, cy), (x, cx))]
        expected = waves[0][:, None, None] + waves[1][:, None] + waves[2] - 1
        # twice: the spread of the values; 1e-5: sine and cosine in float32
        torch.testing.assert_close(values[row, ..., 0], 2 * expected, rtol=0, atol=1e-5)


def test_occupancy_is_rendered_as_the_probability_of_being_inside() -> None:
    rows = cosines((0.0, 0.0, 0.0), scale=3.0)[None]

    probability = dataset_in_space("occupancy").render(rows, (5, 5, 5))
    logits = dataset_in_space("occupancy").outputs(rows, (5, 5, 5))

    assert torch.equal(logits, dataset_in_space("signed-distance").render(rows, (5, 5, 5)))
    assert torch.equal(probability, logits.sigmoid())
    # in the middle, three cosines of 1: a logit of 2 * 3 * (3 - 1)
    assert probability[0, 2, 2, 2, 0] == torch.tensor(12.0).sigmoid()


def test_shapes_are_rendered_on_64_samples_per_side_unless_asked_otherwise() -> None:
    rows = cosines((0.0, 0.0, 0.0))[None]

    assert dataset_in_space("occupancy").render(rows).shape == (1, 64, 64, 64, 1)
    with pytest.raises(ValueError, match=r"expected a grid of 3 dimensions \(got \(8, 8\)\)"):
        dataset_in_space("occupancy").render(rows, (8, 8))


def test_volumes_are_rendered_in_raw_values_on_their_grid() -> None:
    rows = cosines((0.1, 0.2, 0.3))[None]

    values = dataset_in_space("values", (2, 3, 4)).render(rows)

    z, y, x = (torch.linspace(-1, 1, size) for size in (2, 3, 4))
    waves = [(2 * math.pi * (axis - c)).cos() for axis, c in ((z, 0.3), (y, 0.2), (x, 0.1))]
    expected = 2 * (waves[0][:, None, None] + waves[1][:, None] + waves[2] - 1)
    torch.testing.assert_close(values[0, ..., 0], expected, rtol=0, atol=1e-5)


# Opening


def write_configs(folder: Path, *names: str) -> None:
    write_manifest(folder, Manifest(configs={name: make_entry() for name in names}))


def test_a_single_config_needs_no_name(tmp_path: Path) -> None:
    write_configs(tmp_path, "siren-h4-shared")

    dataset = load_neural_dataset(str(tmp_path))

    assert (dataset.folder, dataset.name) == (tmp_path, "siren-h4-shared")
    assert dataset.entry == make_entry()


def test_one_of_several_configs_is_chosen_by_name(tmp_path: Path) -> None:
    gabor = GaborNet(hidden_dim=2)
    other = dataclasses.replace(make_entry(), field=gabor, tensors=gabor.spec(2, 1).layout)
    write_manifest(tmp_path, Manifest(configs={"b": make_entry(), "a": other}))

    assert load_neural_dataset(tmp_path, "a").field == gabor
    with pytest.raises(DatasetFormatError, match=r"several configs \(b, a\); choose one with"):
        load_neural_dataset(tmp_path)


def test_an_unknown_config_gets_a_suggestion_and_the_list(tmp_path: Path) -> None:
    write_configs(tmp_path, "siren-h4-shared", "mlp")

    with pytest.raises(DatasetFormatError) as caught:
        load_neural_dataset(tmp_path, "siren-h4-shard")
    assert "did you mean 'siren-h4-shared'?" in str(caught.value)
    assert str(caught.value).endswith("it has siren-h4-shared, mlp")


def test_a_folder_without_configs_holds_no_fields_yet(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest())

    with pytest.raises(DatasetFormatError, match="holds no fields yet"):
        load_neural_dataset(tmp_path)
    assert load_all(tmp_path) == []


def test_all_configs_are_opened_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    write_configs(tmp_path, "b", "c", "a")

    datasets = load_all(tmp_path)

    assert [dataset.name for dataset in datasets] == ["b", "c", "a"]
    assert all(dataset.folder == tmp_path for dataset in datasets)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_reading_leaves_no_pool_of_threads_that_could_abort_the_end(tmp_path: Path) -> None:
    write_parts(tmp_path, "siren-h4-shared", [("train", 0, 4), ("train", 4, 7), ("test", 7, 10)])
    script = """
import os, sys
from nefbench.weights import load_neural_dataset
dataset = load_neural_dataset(sys.argv[1])
before = len(os.listdir("/proc/self/task"))
dataset.split("train")
print(len(os.listdir("/proc/self/task")) - before)
"""

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, encoding="utf-8", check=True, timeout=120,
    )  # fmt: skip

    assert int(done.stdout) <= 1  # the memory pool keeps one
