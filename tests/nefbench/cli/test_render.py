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
from nefbench.fields import Siren
from nefbench.signals import signals_from_array
from nefbench.weights import load_neural_dataset


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


def test_fields_on_a_line_become_an_array_and_no_picture(nefbench: Any, tmp_path: Path) -> None:
    waves = torch.rand(3, 6, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    fit_dataset(signals_from_array(waves), config, tmp_path / "d")

    picture = nefbench("render", "d", "--split", "train", "--out", "x.png")
    array = nefbench("render", "d", "--split", "train", "--out", "x.npy", "--size", "9")

    assert picture.error == "--out: only images become a .png; write these fields to .npy"
    assert array.out == "wrote    x.npy: 3 fields, array 3x9x1\n"
    assert nefbench("render", "d", "--split", "train", "--out", "x.npy", "--size", "9x9").error == (
        "--size: these fields have 1 dimensions (got '9x9')"
    )


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
        (["--out", "x.jpg"], "--out: expected a .png or .npy file (got 'x.jpg')"),
        (["--out", "x"], "--out: expected a .png or .npy file (got 'x')"),
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
