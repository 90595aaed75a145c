from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from classifiers import MLP, ClassifierConfig, ClassifierReport
from fitting import Adam
from nefbench.config import config_from_mapping
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig
from nefbench.weights import NeuralDataset, load_all
from studies.demo import DemoReport, run_demo
from studies.recipes import FitRecipe

RECIPE = FitRecipe(
    signals=DigitsConfig(max_signals=200, validation_size=40, test_size=60),
    field=Siren(hidden_dim=8, omega_0=9.0),
    optimizer=Adam(learning_rate=1e-2),
    num_steps=30,
)
CLASSIFIER = ClassifierConfig(model=MLP(hidden_dims=(32,)), num_epochs=5, seeds=(0,))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, DemoReport]]:
    """Folder and report of a demo on 200 digits; not to be changed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("demo") / "out"
    yield out, run_demo(out, recipe=RECIPE, classifier=CLASSIFIER)
    torch.set_num_threads(threads)


def datasets(out: Path) -> dict[str, NeuralDataset]:
    return {dataset.name: dataset for dataset in load_all(out / "dataset")}


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_table_compares_two_starts_with_pixels(demo: tuple[Path, DemoReport]) -> None:
    _, report = demo

    assert [row.name for row in report.rows] == ["shared", "random", "pixels"]
    assert report.chance_accuracy == 0.1
    assert report.num_seeds == 1
    for row in report.rows:
        assert 0 <= row.test_accuracy <= 1
        assert row.test_accuracy_sd == 0.0  # one seed
    assert (report.rows[2].psnr_db_median, report.rows[2].num_diverged) == (None, None)


def test_both_starts_are_fitted_with_the_recipe_into_one_folder(
    demo: tuple[Path, DemoReport],
) -> None:
    found = datasets(demo[0])

    assert list(found) == ["siren-h8-shared", "siren-h8-random"]
    for dataset in found.values():
        assert dataset.entry.is_complete
        assert dataset.field == RECIPE.field
        assert dataset.entry.num_fields == 200
        assert dataset.entry.fit["num_steps"] == 30


def test_the_quality_in_the_table_is_that_of_all_fields(demo: tuple[Path, DemoReport]) -> None:
    out, report = demo

    for row, dataset in zip(report.rows, datasets(out).values(), strict=False):
        fields = [dataset.split(split) for split in dataset.split_names]
        psnr_db = torch.cat([part.quality["psnr_db"] for part in fields]).sort().values
        assert row.num_diverged == 0
        assert psnr_db[99] <= row.psnr_db_median <= psnr_db[100]  # type: ignore[operator]


def test_the_accuracies_in_the_table_are_those_of_the_saved_reports(
    demo: tuple[Path, DemoReport],
) -> None:
    out, report = demo

    for row, name in zip(
        report.rows, ["siren-h8-shared", "siren-h8-random", "pixels"], strict=True
    ):
        stored = config_from_mapping(
            ClassifierReport, json.loads((out / "classifiers" / name / "report.json").read_text())
        )
        assert stored.config == CLASSIFIER
        assert row.test_accuracy == stored.test_accuracy
        assert row.train_accuracy == stored.train_accuracy
        assert (out / "classifiers" / name / "classifier-seed0.pt").is_file()


def test_three_figures_lie_beside_their_numbers(demo: tuple[Path, DemoReport]) -> None:
    out, report = demo

    assert report.figures == tuple(
        (out / f"{name}.png").as_posix() for name in ("gallery", "accuracy", "weights")
    )
    for figure in report.figures:
        with Image.open(figure) as image:
            assert image.format == "PNG"
        assert Path(figure).with_suffix(".pdf").is_file()


def test_the_numbers_of_the_figures_are_those_of_the_results(
    demo: tuple[Path, DemoReport],
) -> None:
    out, report = demo
    shared, random = datasets(out).values()

    header, *rows = table(out / "accuracy.csv")
    assert header == ["input", "test_accuracy_mean", "test_accuracy_sd"]
    assert [(name, float(mean), float(sd)) for name, mean, sd in rows] == [
        (row.name, row.test_accuracy, row.test_accuracy_sd) for row in report.rows
    ]

    header, *rows = table(out / "weights.csv")
    assert header == ["start", "class", "pc1", "pc2"]
    assert [row[0] for row in rows] == ["shared"] * 60 + ["random"] * 60
    points = torch.tensor([[float(value) for value in row[2:]] for row in rows[:60]])
    weights = shared.split("test").weights.double()
    singular = torch.linalg.svdvals(weights - weights.mean(0))[:2]
    torch.testing.assert_close(points.double().norm(dim=0), singular, rtol=1e-4, atol=0.0)
    labels = random.split("test").labels
    assert labels is not None
    assert [int(row[1]) for row in rows[60:]] == labels.tolist()

    header, *rows = table(out / "gallery.csv")
    assert header == ["class", "signal_index", "psnr_db"]
    test = shared.split("test")
    assert test.labels is not None
    assert [int(row[0]) for row in rows] == sorted(set(test.labels.tolist()))
    for label, index, psnr_db in rows:
        position = test.signal_index.tolist().index(int(index))
        assert test.labels[position] == int(label)
        assert test.quality["psnr_db"][position].item() == float(psnr_db)


def test_the_report_is_stored_as_json(demo: tuple[Path, DemoReport]) -> None:
    out, report = demo

    stored = json.loads((out / "demo.json").read_text())

    assert config_from_mapping(DemoReport, stored) == report


@pytest.mark.usefixtures("one_thread")
def test_a_second_call_fits_nothing_again_and_finds_the_same(
    demo: tuple[Path, DemoReport],
) -> None:
    out, report = demo
    files = sorted(path for path in (out / "dataset").rglob("*") if path.is_file())
    parts = [path for path in files if path.suffix == ".parquet"]
    bytes_before = [path.read_bytes() for path in files]
    times_before = [path.stat().st_mtime_ns for path in parts]
    progress = []

    again = run_demo(
        out, recipe=RECIPE, classifier=CLASSIFIER, on_progress=lambda *news: progress.append(news)
    )

    assert again.rows == report.rows
    assert sorted(path for path in (out / "dataset").rglob("*") if path.is_file()) == files
    assert [path.read_bytes() for path in files] == bytes_before
    assert [path.stat().st_mtime_ns for path in parts] == times_before
    assert [news for news in progress if news[0].startswith("fit")] == [
        ("fit, shared start", 0, 0), ("fit, random start", 0, 0),
    ]  # fmt: skip
    assert ("train on pixels", 5, 5) in progress


@pytest.mark.usefixtures("one_thread")
def test_a_split_without_some_class_still_gives_a_gallery(tmp_path: Path) -> None:
    recipe = FitRecipe(
        signals=DigitsConfig(max_signals=60, validation_size=6, test_size=4),
        field=Siren(hidden_dim=2, num_layers=2),
        num_steps=1,
    )

    run_demo(tmp_path, recipe=recipe, classifier=CLASSIFIER)

    assert 1 < len(table(tmp_path / "gallery.csv")) < 6
