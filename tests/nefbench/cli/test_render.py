from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fitting import FitConfig, fit_dataset
from nefbench.cli import pictures
from nefbench.fields import Siren, render
from nefbench.signals import signals_from_array
from nefbench.weights import load_neural_dataset, read_manifest, write_manifest
from nefbench.weights.surfaces import field_surface, surface

_ENDINGS = "--out: expected a .png, .npy, .obj, .ply, .stl or .off file (got {})"


def rendered(
    folder: Path, positions: list[int], grid: tuple[int, ...] | None = None, split: str = "test"
) -> Tensor:
    dataset = load_neural_dataset(folder)
    return dataset.render(dataset.split(split).weights[positions], grid)


def bytes_of(values: Tensor) -> Any:
    """8-bit pixels of values, computed apart from the command."""
    return np.round(255 * np.clip(values.numpy(), 0, 1)).astype(np.uint8)


def test_an_array_is_what_the_dataset_renders(nefbench: Any, tiny: Path) -> None:
    outcome = nefbench("render", tiny, "--out", "x.npy")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "wrote    x.npy: 10 fields, array 10x8x8x1\n"
    stored = np.load("x.npy")
    assert stored.dtype == np.float32
    assert np.array_equal(stored, rendered(tiny, list(range(10))).numpy())


def test_a_picture_holds_the_clipped_values_in_256_steps(nefbench: Any, tiny: Path) -> None:
    nefbench("render", tiny, "--out", "x.png", "--fields", "3:4", "--size", "5")

    with Image.open("x.png") as image:
        assert image.mode == "L"
        pixels = np.asarray(image)
    values = rendered(tiny, [3], (5, 5))
    assert np.array_equal(pixels, bytes_of(values)[0, ..., 0])
    assert len(np.unique(pixels)) > 3


def test_values_outside_the_unit_interval_are_clipped(nefbench: Any, digits_copy: Path) -> None:
    nefbench("render", "digits", "--out", "x.png", "--fields", "0:60", "--size", "20")
    nefbench("render", "digits", "--out", "x.npy", "--fields", "0:60", "--size", "20")

    values = rendered(digits_copy, list(range(60)), (20, 20))
    assert values.min() < 0  # or else there is nothing to clip
    assert values.max() > 1
    assert np.array_equal(np.load("x.npy"), values.numpy())
    with Image.open("x.png") as image:
        first = np.asarray(image)[:20, :20]
    assert np.array_equal(first, bytes_of(values)[0, ..., 0])


def test_the_size_is_height_by_width(nefbench: Any, tiny: Path) -> None:
    nefbench("render", tiny, "--out", "x.npy", "--fields", "2", "--size", "3x7")
    nefbench("render", tiny, "--out", "x.png", "--fields", "2", "--size", "3x7")

    assert np.array_equal(np.load("x.npy"), rendered(tiny, [2], (3, 7)).numpy())
    with Image.open("x.png") as image:
        assert image.size == (7, 3)  # PIL counts the width first
        assert np.array_equal(np.asarray(image), bytes_of(rendered(tiny, [2], (3, 7)))[0, ..., 0])


def test_several_fields_stand_in_a_square_with_white_gaps(nefbench: Any, tiny: Path) -> None:
    nefbench("render", tiny, "--out", "x.png", "--fields", "0:5", "--size", "4x6")

    with Image.open("x.png") as image:
        sheet = np.asarray(image)
    # five fields: three columns, two rows, two pixels between them
    assert sheet.shape == (2 * 4 + 2, 3 * 6 + 2 * 2)
    expected = np.full(sheet.shape, 255, np.uint8)
    for index, pixels in enumerate(bytes_of(rendered(tiny, list(range(5)), (4, 6)))[..., 0]):
        top, left = index // 3 * (4 + 2), index % 3 * (6 + 2)
        expected[top : top + 4, left : left + 6] = pixels
    assert np.array_equal(sheet, expected)


def test_fields_are_chosen_by_position_in_the_split_and_in_the_order_given(
    nefbench: Any, tiny: Path
) -> None:
    nefbench("render", tiny, "--out", "x.npy", "--split", "train", "--fields", "7,0,19")

    expected = rendered(tiny, [7, 0, 19], split="train")
    assert np.array_equal(np.load("x.npy"), expected.numpy())


def test_a_range_ends_with_the_split(nefbench: Any, tiny: Path) -> None:
    outcome = nefbench("render", tiny, "--out", "x.npy", "--fields", "8:99")

    assert outcome.out == "wrote    x.npy: 2 fields, array 2x8x8x1\n"


def test_at_most_sixteen_fields_are_shown_unless_asked_for(nefbench: Any, tiny: Path) -> None:
    outcome = nefbench("render", tiny, "--out", "x.npy", "--split", "train")

    assert "16 fields, array 16x8x8x1" in outcome.out


def test_a_missing_folder_of_the_picture_is_made(nefbench: Any, tiny: Path) -> None:
    assert nefbench("render", tiny, "--out", "new/deep/x.png").code == 0
    assert Path("new/deep/x.png").is_file()


def test_colour_fields_become_a_colour_picture(nefbench: Any, tmp_path: Path) -> None:
    images = torch.rand(3, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    fit_dataset(signals_from_array(images), config, tmp_path / "d")

    nefbench("render", "d", "--split", "train", "--out", "x.png", "--fields", "1")

    with Image.open("x.png") as image:
        assert (image.mode, image.size) == ("RGB", (5, 4))
        assert np.array_equal(np.asarray(image), bytes_of(rendered(tmp_path / "d", [1], None,
                                                                   "train"))[0])  # fmt: skip


def test_fields_on_a_line_become_an_array_or_a_picture_of_lines(
    nefbench: Any, tmp_path: Path
) -> None:
    waves = torch.rand(3, 6, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    fit_dataset(signals_from_array(waves), config, tmp_path / "d")

    picture = nefbench("render", "d", "--split", "train", "--out", "x.png", "--size", "50")
    array = nefbench("render", "d", "--split", "train", "--out", "x.npy", "--size", "9")

    assert picture.out == "wrote    x.png: 3 fields, array 3x50x1\n"
    with Image.open("x.png") as image:
        assert image.size[0] == 960  # two columns of 2.4 inches
    assert array.out == "wrote    x.npy: 3 fields, array 3x9x1\n"
    assert nefbench("render", "d", "--split", "train", "--out", "x.npy", "--size", "9x9").error == (
        "--size: these fields have 1 dimensions (got '9x9')"
    )
    assert not list(tmp_path.glob("*.pdf"))


def test_volumes_become_a_picture_of_their_middle_slices(nefbench: Any, tmp_path: Path) -> None:
    volumes = torch.rand(2, 4, 5, 6, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    dataset = fit_dataset(signals_from_array(volumes), config, tmp_path / "d")

    outcome = nefbench("render", "d", "--split", "train", "--out", "x.png")

    assert outcome.out == "wrote    x.png: 2 fields, array 2x4x5x6x1\n"
    assert Path("x.png").is_file()
    values = dataset.render(dataset.split("train").weights)
    figure = pictures.slices_figure(dataset, values, ["a", "b"])
    drawn = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    assert [image.shape for image in drawn] == [(5, 6), (5, 6), (4, 6), (4, 6), (4, 5), (4, 5)]
    assert np.array_equal(drawn[1], values[1, 2, :, :, 0].clamp(0, 1))
    assert np.array_equal(drawn[2], values[0, :, 2, :, 0].clamp(0, 1))
    assert np.array_equal(drawn[5], values[1, :, :, 3, 0].clamp(0, 1))


def test_black_and_white_are_the_ends_of_the_range_of_values(nefbench: Any, tiny: Path) -> None:
    manifest = read_manifest(tiny)
    (name,), entry = manifest.configs, manifest.configs["siren-h2-shared"]
    signals = dataclasses.replace(entry.signals, value_range=(-1.0, 3.0))
    # the parts do not depend on the range
    changed = dataclasses.replace(entry, signals=signals)
    write_manifest(tiny, manifest.with_config(name, changed))

    nefbench("render", tiny, "--out", "x.png", "--fields", "2")
    nefbench("render", tiny, "--out", "x.npy", "--fields", "2")

    values = rendered(tiny, [2])
    assert np.array_equal(np.load("x.npy"), values.numpy())
    with Image.open("x.png") as image:
        assert np.array_equal(np.asarray(image), bytes_of((values + 1) / 4)[0, ..., 0])


def test_of_two_channels_the_first_is_shown_and_the_line_says_so(
    nefbench: Any, tmp_path: Path
) -> None:
    images = torch.rand(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    fit_dataset(signals_from_array(images), config, tmp_path / "d")

    outcome = nefbench("render", "d", "--split", "train", "--out", "x.png", "--fields", "1")

    assert outcome.out == "wrote    x.png: 1 field, array 1x4x5x2, channel 0 of 2\n"
    with Image.open("x.png") as image:
        expected = bytes_of(rendered(tmp_path / "d", [1], None, "train"))[0, ..., 0]
        assert np.array_equal(np.asarray(image), expected)


# Shapes


def test_shapes_become_arrays_of_the_probability_of_being_inside(
    nefbench: Any, blobs: Path
) -> None:
    outcome = nefbench("render", blobs, "--out", "x.npy", "--size", "9", "--fields", "0:2")

    assert outcome.out == "wrote    x.npy: 2 fields, array 2x9x9x9x1\n"
    values = np.load("x.npy")
    assert values[0, 4, 4, 4, 0] > 0.99  # the middle
    assert values[0, 0, 0, 0, 0] < 0.01  # a corner of the box


def test_one_shape_becomes_the_mesh_asked_for(nefbench: Any, blobs: Path, tmp_path: Path) -> None:
    outcome = nefbench("render", blobs, "--out", "new/x.obj", "--size", "16", "--fields", "2,2")

    assert (outcome.code, outcome.err) == (0, "")
    lines = Path("new/x.obj").read_text().splitlines()
    faces = sum(line.startswith("f ") for line in lines)
    assert outcome.out == f"wrote    new/x.obj: 1 mesh, grid 16x16x16, {faces:,} triangles\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.obj"]
    vertices = np.array([[float(word) for word in line.split()[1:]] for line in lines
                         if line.startswith("v ")])  # fmt: skip
    # field 2 of the test split is the sixth: its centre is (0.06, -0.03, 0.012)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    assert middle == pytest.approx([0.06, -0.03, 0.012], abs=0.005)
    assert vertices.max(0) - vertices.min(0) == pytest.approx(math.pi / 4, abs=0.02)


@pytest.mark.parametrize("ending", ["obj", "ply", "stl", "off"])
def test_several_shapes_become_files_named_after_their_signals(
    nefbench: Any, blobs: Path, tmp_path: Path, ending: str
) -> None:
    outcome = nefbench("render", blobs, "--out", f"x.{ending}", "--size", "8", "--fields", "4,0")

    # signal 104 is the first of the test split
    assert outcome.out.startswith(f"wrote    x-108.{ending} … x-104.{ending}: 2 meshes, grid 8x8x8")
    assert sorted(path.name for path in tmp_path.glob("x*")) == [
        f"x-104.{ending}",
        f"x-108.{ending}",
    ]


def test_fits_of_the_same_signal_are_told_apart_by_their_position_in_the_split(
    nefbench: Any, blobs: Path, tmp_path: Path, rewrite_rows: Any
) -> None:
    index = torch.tensor([7, 7, 8, 9, 9, 9])
    rewrite_rows(blobs, "test", lambda rows: dataclasses.replace(rows, signal_index=index))

    nefbench("render", blobs, "--out", "x.off", "--size", "8", "--fields", "0:4")

    names = sorted(path.name for path in tmp_path.glob("x*"))
    assert names == ["x-7-0.off", "x-7-1.off", "x-8.off", "x-9.off"]


def test_shapes_become_a_picture_and_nothing_else(
    nefbench: Any, blobs: Path, tmp_path: Path
) -> None:
    outcome = nefbench("render", blobs, "--out", "x.png", "--size", "8")

    assert outcome.out.startswith("wrote    x.png: 6 surfaces, grid 8x8x8, ")
    assert [path.name for path in tmp_path.glob("x*")] == ["x.png"]


@pytest.mark.parametrize("ending", ["png", "ply"])
def test_fields_without_a_surface_are_named_and_the_others_written(
    nefbench: Any, blobs: Path, tmp_path: Path, rewrite_rows: Any, ending: str
) -> None:
    def spoil(rows: Any) -> Any:
        weights = rows.weights.clone()
        weights[1] = math.nan
        weights[3] = 0  # a logit of 0 everywhere: nothing is above it
        return dataclasses.replace(rows, weights=weights)

    rewrite_rows(blobs, "test", spoil)

    some = nefbench("render", blobs, "--out", f"x.{ending}", "--size", "8", "--fields", "0:4")
    none = nefbench("render", blobs, "--out", f"y.{ending}", "--size", "8", "--fields", "3,1")

    assert some.code == 0
    assert some.err == "warning: no surface on a grid of 8x8x8: fields [1, 3]\n"
    assert ": 2 " in some.out
    assert none.error == "--fields: none of [3, 1] has a surface on a grid of 8x8x8"
    assert not list(tmp_path.glob("y*"))


def test_a_shape_that_stays_off_every_sample_has_no_surface(nefbench: Any, blobs: Path) -> None:
    # two samples per side are the corners of the box
    assert nefbench("render", blobs, "--out", "x.obj", "--size", "2", "--fields", "0").error == (
        "--fields: none of [0] has a surface on a grid of 2x2x2"
    )
    assert nefbench("render", blobs, "--out", "x.obj", "--size", "1", "--fields", "0").error == (
        "--size: a surface takes at least 2 samples per side"
    )
    assert nefbench("render", blobs, "--out", "x.obj", "--size", "8x").error == (
        "--size: expected N or ZxYxX (got '8x')"
    )


def test_images_have_no_meshes(nefbench: Any, tiny: Path) -> None:
    assert nefbench("render", tiny, "--out", "x.obj").error == (
        "--out: only shapes have meshes; write a .png or .npy (got 'x.obj')"
    )


def test_the_surface_of_occupancy_is_found_more_exactly_than_the_probability_shows_it(
    blobs_made: Path,
) -> None:
    dataset = load_neural_dataset(blobs_made)
    row = dataset.split("test").weights[0]
    row = row * torch.where(torch.arange(len(row)) < 12, 1, 20)  # 20 times the logit

    mesh = field_surface(dataset, row, (12, 12, 12))
    step = surface(dataset.render(row[None], (12, 12, 12))[0, ..., 0], 0.5)

    def error(vertices: Tensor) -> float:
        return float(render(dataset.field, dataset.spec, row[None], vertices).abs().mean())

    assert error(mesh.vertices) < 0.3 * error(step.vertices)


# Wrong requests


def test_fields_that_diverged_have_no_picture_but_an_array(
    nefbench: Any, tiny: Path, rewrite_rows: Any
) -> None:
    def spoil(rows: Any) -> Any:
        weights = rows.weights.clone()
        weights[[1, 4]] = math.nan
        return dataclasses.replace(rows, weights=weights)

    rewrite_rows(tiny, "test", spoil)

    picture = nefbench("render", tiny, "--out", "x.png", "--fields", "4,0,1")
    others = nefbench("render", tiny, "--out", "x.png", "--fields", "0,2,3")
    array = nefbench("render", tiny, "--out", "x.npy")

    assert picture.error == "--fields: [4, 1] diverged and have no picture; leave them out"
    assert others.code == array.code == 0
    assert np.isnan(np.load("x.npy")).any(axis=(1, 2, 3)).tolist() == [
        index in (1, 4) for index in range(10)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.jpg"], _ENDINGS.format("'x.jpg'")),
        (["--out", "x"], _ENDINGS.format("'x'")),
        (["--size", "0"], "--size: expected N or HxW (got '0')"),
        (["--size", "8x"], "--size: expected N or HxW (got '8x')"),
        (["--size", "8X8"], "--size: expected N or HxW (got '8X8')"),
        (["--size", "-8"], "--size: expected N or HxW (got '-8')"),
        (["--size", "8x8x8"], "--size: these fields have 2 dimensions (got '8x8x8')"),
        (["--fields", "x"], "--fields: expected A:B or I,J,… (got 'x')"),
        (["--fields", "3:"], "--fields: expected A:B or I,J,… (got '3:')"),
        (["--fields", "1,,2"], "--fields: expected A:B or I,J,… (got '1,,2')"),
        (["--fields", "3:3"], "--fields 3:3: the split has fields 0 to 9"),
        (["--fields", "10"], "--fields 10: the split has fields 0 to 9"),
        (["--fields", "10:12"], "--fields 10:12: the split has fields 0 to 9"),
        (["--split", "tset"], "tiny (siren-h2-shared) has no split 'tset'; it has train, valida"),
        (["--config", "other"], "tiny has no config 'other'; it has siren-h2-shared"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_no_picture(
    nefbench: Any, tiny: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = [] if "--out" in arguments else ["--out", "x.png"]

    outcome = nefbench("render", tiny, *out, *arguments)

    assert outcome.error.startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_neural_dataset_is_refused(
    nefbench: Any, unusable: tuple[Path, str]
) -> None:
    folder, message = unusable

    assert nefbench("render", folder, "--out", "x.png").error.startswith(message)


def test_a_damaged_part_is_refused_with_the_command_that_repairs_it(
    nefbench: Any, damaged: tuple[Path, str, str]
) -> None:
    folder, message, remedy = damaged

    error = nefbench("render", folder, "--out", "x.png").error

    assert error.startswith(message)
    assert error.endswith(f"fit this part again with: nefbench {remedy}")
    assert nefbench("render", folder, "--split", "train", "--out", "x.png").code == 0


def test_one_of_several_configs_has_to_be_chosen(
    nefbench: Any, tiny: Path, tiny_settings: list[str]
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", tiny, "--set", "name=other")

    assert nefbench("render", tiny, "--out", "x.png").error == (
        "tiny holds several configs (siren-h2-shared, other); choose one with --config"
    )
    assert nefbench("render", tiny, "--out", "x.png", "--config", "other").code == 0


def test_a_split_that_is_not_finished_is_refused_with_the_command_that_continues(
    nefbench: Any, tiny_settings: list[str]
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", "d", "--only", "0:10")

    assert nefbench("render", "d", "--out", "x.png").error == (
        "d (siren-h2-shared): no field of split 'test' is finished; "
        "continue with: nefbench fit d --config siren-h2-shared"
    )
