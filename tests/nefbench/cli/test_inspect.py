from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fitting import FitConfig, fit_dataset
from nefbench import plots
from nefbench.config import config_to_mapping
from nefbench.fields import Siren
from nefbench.metrics import nmi, set_ratio
from nefbench.signals import signals_from_array
from nefbench.signals.array_file import ArrayFileConfig
from nefbench.signals.views import Views
from nefbench.weights import load_neural_dataset, read_manifest, write_manifest


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_folder_is_described_in_words(nefbench: Any, digits_copy: Path) -> None:
    outcome = nefbench("inspect", "digits")

    assert (outcome.code, outcome.err) == (0, "")
    entry = load_neural_dataset(digits_copy).entry
    lines = outcome.out.splitlines()
    assert lines[:4] == [
        "config   siren-h8-shared",
        "field    siren: hidden_dim 8, num_layers 3, omega_0 9.0, preset fit-a-nef; "
        "105 weights in 6 tensors",
        "signals  digits, 8x8x1, 10 classes; scikit-learn load_digits (UCI optical recognition of "
        "handwritten digits); licence CC BY 4.0",
        f"fit      shared start, 60 steps, adam 0.001; engine {entry.engine}; "
        f"nefbench {entry.version}",
    ]
    assert lines[4].startswith("files    4 parts, ")
    assert lines[4].endswith(f"300 of 300 fields, complete; digest {entry.digest[:12]}")
    assert lines[5] == "check    every part agrees with its checksum"
    assert [line.split()[:3] for line in lines[8:11]] == [
        ["train", "180", "0"], ["validation", "60", "0"], ["test", "60", "0"],
    ]  # fmt: skip


def test_every_measure_of_the_last_split_is_shown(nefbench: Any, digits_copy: Path) -> None:
    outcome = nefbench("inspect", "digits")

    lines = [line.rstrip() for line in outcome.out.splitlines()]
    begin = lines.index("split test")
    entry = load_neural_dataset(digits_copy).entry
    quality = entry.summary["test"].quality
    names = [line.split()[0] for line in lines[begin + 2 : begin + 2 + len(quality)]]
    assert names == [*entry.metrics, "loss"]
    psnr_db = quality["psnr_db"]
    assert lines[begin + 2].split() == [
        "psnr_db", *(f"{psnr_db[key]:.4g}" for key in ("median", "worst_5_percent", "worst")),
    ]  # fmt: skip


def test_ratio_and_nmi_are_those_of_the_last_split(nefbench: Any, digits_copy: Path) -> None:
    outcome = nefbench("inspect", "digits")
    (shown,) = json.loads(nefbench("inspect", "digits", "--json").out).values()

    test = load_neural_dataset(digits_copy).split("test")
    assert test.labels is not None
    ratio = set_ratio(test.quality["psnr_off_db"], test.quality["psnr_db"])
    found = nmi(test.weights, test.labels)
    assert shown["measured"] == {
        "split": "test",
        "nmi": dataclasses.asdict(found),
        "nmi_missing": "",
        "ratio": dataclasses.asdict(ratio),
        "ratio_of": ["psnr_off_db", "psnr_db"],
        "median_steps": 60.0,
    }
    assert (
        f"nmi      {found.value:.2f} (k-means, k 10, 10 restarts, seed 0, 60 fields of split test)"
    ) in outcome.out.splitlines()
    assert (
        f"ratio    R {ratio.ratio_of_means:.4f} (ratio of means), {ratio.mean_of_ratios:.4f} "
        f"(mean of ratios): psnr_off_db over psnr_db, 60 fields of split test"
    ) in outcome.out.splitlines()


def test_clusters_of_a_single_class_are_not_compared(
    nefbench: Any, tiny: Path, rewrite_rows: Any
) -> None:
    rewrite_rows(tiny, "test", lambda rows: dataclasses.replace(rows, labels=torch.ones(10).long()))

    line = next(line for line in nefbench("inspect", tiny).out.splitlines() if line[:3] == "nmi")
    measured = json.loads(nefbench("inspect", tiny, "--json").out)["siren-h2-shared"]["measured"]

    assert line.startswith("nmi      not measured: expected fields of at least 2 classes")
    assert measured["nmi"] is None
    assert measured["nmi_missing"] == line.removeprefix("nmi      not measured: ")


def test_refits_views_and_a_target_of_quality_are_told(nefbench: Any, tmp_path: Path) -> None:
    images = torch.rand(4, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(
        field=Siren(hidden_dim=2, num_layers=2), num_steps=30, until_psnr=5.0, num_refits=2,
        views=Views(count=3, flip=True, rotation=20.0),
    )  # fmt: skip
    fit_dataset(signals_from_array(images), config, tmp_path / "d")

    outcome = nefbench("inspect", "d")

    lines = outcome.out.splitlines()
    assert lines[3].startswith(
        "fit      shared start, at most 30 steps until 5 dB, adam 0.001; 2 fits of each signal; "
        "3 views of each training signal; engine "
    )
    assert lines[6].split()[-1] == "steps"
    # 4 signals, each fitted twice to each of 3 views
    assert lines[8].split()[:3] == ["train", "24", "0"]
    steps = load_neural_dataset("d").split("train").provenance["num_steps"].double().quantile(0.5)
    assert lines[8].split()[-1] == f"{steps:.0f}"


def test_the_gallery_and_its_numbers_go_from_the_worst_field_to_the_best(
    nefbench: Any, digits_copy: Path
) -> None:
    outcome = nefbench("inspect", "digits")

    name = "gallery-digits-siren-h8-shared"
    line = f"gallery  {name}.png (from the worst PSNR to the best)"
    assert line in outcome.out.splitlines()
    with Image.open(f"{name}.png") as image:
        assert image.format == "PNG"
        assert image.width == 1400  # 7 inches
    assert Path(f"{name}.pdf").is_file()
    header, *rows = table(Path(f"{name}.csv"))
    assert header[0] == "signal_index"
    assert len(rows) == 10
    test = load_neural_dataset(digits_copy).split("test")
    assert test.labels is not None
    psnr_db = test.quality["psnr_db"]
    positions = [test.signal_index.tolist().index(int(row[0])) for row in rows]
    shown = psnr_db[positions]
    assert torch.equal(shown, shown.sort().values)
    assert (shown[0], shown[-1]) == (psnr_db.min(), psnr_db.max())
    for position, (_, label, quality) in zip(positions, rows, strict=True):
        assert label == str(int(test.labels[position]))
        assert quality == f"{psnr_db[position]:.1f} dB"


def test_the_gallery_goes_where_asked(nefbench: Any, tiny: Path, tmp_path: Path) -> None:
    outcome = nefbench("inspect", tiny, "--out", "pictures/of.tiny.png")

    assert "gallery  pictures/of.tiny.png " in outcome.out
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "of.tiny.csv", "of.tiny.pdf", "of.tiny.png",
    ]  # fmt: skip


def test_json_is_the_record_of_every_config(nefbench: Any, tiny: Path) -> None:
    outcome = nefbench("inspect", tiny, "--json")

    assert (outcome.code, outcome.err) == (0, "")
    entry = load_neural_dataset(tiny).entry
    (shown,) = json.loads(outcome.out).values()
    assert shown.pop("measured")["split"] == "test"
    assert shown == json.loads(json.dumps(config_to_mapping(entry)))


def test_json_draws_nothing(nefbench: Any, tiny: Path, tmp_path: Path) -> None:
    nefbench("inspect", tiny, "--json")

    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_an_unfinished_config_says_so_and_has_no_gallery(
    nefbench: Any, tiny_settings: list[str], tmp_path: Path
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", "d", "--only", "0:10")

    outcome = nefbench("inspect", "d")

    assert outcome.code == 0
    assert "10 of 40 fields, NOT FINISHED; digest" in outcome.out
    (shown,) = json.loads(nefbench("inspect", "d", "--json").out).values()
    assert shown["measured"] is None
    assert "gallery" not in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_every_config_of_a_folder_is_shown_or_the_one_asked_for(
    nefbench: Any, tiny: Path, tiny_settings: list[str], tmp_path: Path
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", tiny, "--set", "name=other")

    both = nefbench("inspect", tiny)
    one = nefbench("inspect", tiny, "--config", "other", "--out", "one.png")

    configs = [line for line in both.out.splitlines() if line.startswith("config")]
    assert configs == ["config   siren-h2-shared", "config   other"]
    assert (tmp_path / "gallery-tiny-siren-h2-shared.png").is_file()
    assert (tmp_path / "gallery-tiny-other.png").is_file()
    assert one.out.startswith("config   other\n")
    assert one.out.count("config  ") == 1
    assert (tmp_path / "one.png").is_file()


def test_one_picture_cannot_hold_several_configs(
    nefbench: Any, tiny: Path, tiny_settings: list[str], tmp_path: Path
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", tiny, "--set", "name=other")

    assert nefbench("inspect", tiny, "--out", "one.png").error == (
        "--out is one picture, tiny holds several configs; add --config"
    )
    assert not (tmp_path / "one.png").exists()


@pytest.mark.parametrize("out", [".", "/"])
def test_a_picture_needs_a_name(nefbench: Any, tiny: Path, out: str) -> None:
    assert nefbench("inspect", tiny, "--out", out).error == (
        f"--out: expected a file name (got {out!r})"
    )


def test_a_config_that_is_not_there_is_refused(nefbench: Any, tiny: Path) -> None:
    assert nefbench("inspect", tiny, "--config", "siren-h2-sharde").error == (
        "tiny has no config 'siren-h2-sharde'; did you mean 'siren-h2-shared'?; "
        "it has siren-h2-shared"
    )


def test_a_folder_that_is_no_neural_dataset_is_refused(
    nefbench: Any, unusable: tuple[Path, str]
) -> None:
    folder, message = unusable

    assert nefbench("inspect", folder).error.startswith(message)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_damaged_part_is_found_without_being_asked_for(
    nefbench: Any, damaged: tuple[Path, str, str], more: list[str]
) -> None:
    folder, message, remedy = damaged

    outcome = nefbench("inspect", folder, *more)

    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.endswith(f"nefbench {remedy}\n")
    assert "agrees with its checksum" not in outcome.out


def test_diverged_fields_are_not_drawn(nefbench: Any, tiny: Path, rewrite_rows: Any) -> None:
    rewrite_rows(
        tiny, "test",
        lambda rows: dataclasses.replace(rows, status=("diverged",) * 4 + rows.status[4:]),
    )  # fmt: skip

    nefbench("inspect", tiny)

    test = load_neural_dataset(tiny).split("test")
    shown = {int(row[0]) for row in table(Path("gallery-tiny-siren-h2-shared.csv"))[1:]}
    assert shown == set(test.signal_index[4:].tolist())


def test_a_config_in_which_everything_diverged_has_no_picture(
    nefbench: Any, tiny: Path, rewrite_rows: Any, tmp_path: Path
) -> None:
    rewrite_rows(tiny, "test", lambda rows: dataclasses.replace(rows, status=("diverged",) * 10))

    outcome = nefbench("inspect", tiny)

    assert outcome.code == 0
    assert "gallery  no picture: no field is ok" in outcome.out
    assert not list(tmp_path.glob("*.png"))


def test_a_field_without_a_label_is_not_drawn_as_one_of_the_last_class(
    nefbench: Any, tiny: Path, rewrite_rows: Any
) -> None:
    rewrite_rows(tiny, "test", lambda rows: dataclasses.replace(rows, labels=torch.full((10,), -1)))

    nefbench("inspect", tiny)

    rows = table(Path("gallery-tiny-siren-h2-shared.csv"))[1:]
    assert {row[1] for row in rows} == {"no label"}


def test_fields_of_signals_without_classes_are_drawn_with_their_quality(
    nefbench: Any, fit_tiny: Any
) -> None:
    fit_tiny(None, [("train", 3)])

    outcome = nefbench("inspect", "tiny")

    assert "0 classes" in outcome.out
    rows = table(Path("gallery-tiny-siren-h2-shared.csv"))[1:]
    assert len(rows) == 3
    assert all(len(row) == 2 and row[1].endswith(" dB") for row in rows)


def test_properties_are_shown_with_their_range_over_all_splits(
    nefbench: Any, tmp_path: Path
) -> None:
    array = np.random.default_rng(0).random((8, 4, 4, 1))
    np.savez(tmp_path / "x.npz", signals=array, mass=np.arange(8) - 0.5, nu=np.full(8, 1e-3))
    signals = ArrayFileConfig(path="x.npz", properties=("mass", "nu"), test_size=2).open()
    field = Siren(hidden_dim=2, num_layers=2)
    fit_dataset(signals, FitConfig(field=field, num_steps=1), "d")

    outcome = nefbench("inspect", "d")

    assert "numbers  mass from -0.5 to 6.5, nu from 0.001 to 0.001" in outcome.out.splitlines()


def test_an_empty_neural_dataset_is_described_as_such(nefbench: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "nefbench.json").write_text('{"format_version": 1, "configs": {}}')

    outcome = nefbench("inspect", "d")

    assert (outcome.code, outcome.out) == (0, "d holds no fields yet\n")


# Other signals than images


def test_shapes_are_drawn_from_the_worst_held_out_iou_to_the_best(
    nefbench: Any, blobs: Path
) -> None:
    outcome = nefbench("inspect", blobs)

    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert lines[2] == ("signals  blobs, occupancy in 3 dimensions, 2 classes; drawn; licence MIT")
    # the test split has IoU 0.9 - 0.4 / 9 * (4 to 9): median 0.611, worst 0.5; R 0.859
    assert lines[9].split() == ["test", "6", "0", "0.611", "0.511", "0.500", "0.511", "0.859"]
    # the mean of iou_uniform is 0.6111, that of iou 0.7111
    (ratio,) = [line for line in lines if line.startswith("ratio")]
    assert ratio.startswith("ratio    R 0.8594 (ratio of means), 0.85")
    assert ratio.endswith("(mean of ratios): iou_uniform over iou, 6 fields of split test")
    assert lines[-2] == "gallery  gallery-blobs-siren.png (from the worst IoU to the best)"
    rows = table(Path("gallery-blobs-siren.csv"))[1:]
    assert [row[0] for row in rows] == ["109", "108", "107", "106", "105", "104"]
    assert rows[0] == ["109", "flat", "IoU 0.500"]
    with Image.open("gallery-blobs-siren.png") as image:
        assert image.width == 1400  # 7 inches


def test_a_shape_without_surface_keeps_its_place_in_the_gallery(
    nefbench: Any, blobs: Path, rewrite_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite_rows(
        blobs, "test",
        lambda rows: dataclasses.replace(
            rows, weights=torch.where(torch.arange(6)[:, None] == 5, 0.0, rows.weights)
        ),
    )  # fmt: skip
    drawn = []
    monkeypatch.setattr(plots, "surfaces_figure", lambda surfaces, **more: drawn.extend(surfaces)
                        or plots.surfaces.surfaces_figure(surfaces, **more))  # fmt: skip

    nefbench("inspect", blobs)

    assert drawn[0].caption == "flat\nIoU 0.500\nno surface"
    assert [len(surface.faces) > 0 for surface in drawn] == [False] + [True] * 5


def test_without_scikit_image_shapes_are_described_and_not_drawn(
    nefbench: Any, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.measure", None)

    outcome = nefbench("inspect", blobs)

    assert outcome.code == 0
    assert outcome.out.splitlines()[-2] == (
        "gallery  no picture: a mesh of a shape needs scikit-image: pip install 'nefbench[shapes]'"
    )


@pytest.mark.parametrize("grid", [(9,), (4, 5, 6), (4, 7)])
def test_signals_on_any_grid_have_a_gallery(
    nefbench: Any, tmp_path: Path, grid: tuple[int, ...]
) -> None:
    array = torch.rand(3, *grid, 2, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    fit_dataset(signals_from_array(array), config, tmp_path / "d")

    outcome = nefbench("inspect", "d")

    assert outcome.code == 0
    note = "" if len(grid) == 1 else ", channel 0 of 2"
    assert outcome.out.splitlines()[-2] == (
        f"gallery  gallery-d-siren-h2-shared.png (from the worst PSNR to the best{note})"
    )
    assert len(table(Path("gallery-d-siren-h2-shared.csv"))) == 4
    assert "nmi" not in outcome.out


def test_where_the_fitted_grid_is_not_known_there_is_no_picture(nefbench: Any, tiny: Path) -> None:
    manifest = read_manifest(tiny)
    entry = manifest.configs["siren-h2-shared"]
    signals = dataclasses.replace(entry.signals, grid_shape=())
    changed = dataclasses.replace(entry, signals=signals)
    write_manifest(tiny, manifest.with_config("siren-h2-shared", changed))

    outcome = nefbench("inspect", tiny)

    assert "gallery  no picture: the fitted grid is not known" in outcome.out
