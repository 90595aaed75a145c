"""The whole sentence on the embedded digits: fit, store, classify, compare, draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from classifiers import (
    ClassifierConfig,
    ClassifierReport,
    examples_from_signals,
    train_classifier,
    train_on_examples,
)
from fitting import Executor, FitConfig, InitConfig, Random, Shared, run_fit
from nefbench import files, plots
from nefbench.config import config_to_mapping
from nefbench.errors import ConfigError
from nefbench.signals import GridSignals
from nefbench.weights import NeuralDataset
from studies.recipes import FitRecipe, load_classifier_config, load_fit_recipe

_ZOOM = 8
_STARTS: tuple[InitConfig, ...] = (Shared(), Random())

Progress = Callable[[str, int, int], None]
"""Told ``(what is being done, how much is done, how much there is)``."""


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One line of the table.

    Attributes:
        name: ``shared``, ``random`` or ``pixels``.
        psnr_db_median: Over all fields that are ``ok``, in dB; None for pixels.
        num_diverged: Fields that diverged; None for pixels.
        test_accuracy: Mean over seeds.
        test_accuracy_sd: Standard deviation over seeds.
        train_accuracy: Mean over seeds.
    """

    name: str
    psnr_db_median: float | None
    num_diverged: int | None
    test_accuracy: float
    test_accuracy_sd: float
    train_accuracy: float


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Result of the demo.

    Attributes:
        rows: Shared start, random start, raw pixels.
        chance_accuracy: One over the number of classes.
        majority_accuracy: Test accuracy of always naming the commonest training class.
        num_seeds: Trainings behind each accuracy.
        figures: PNG files.
        seconds: Wall time of everything.
    """

    rows: tuple[DemoRow, ...]
    chance_accuracy: float
    majority_accuracy: float
    num_seeds: int
    figures: tuple[str, ...]
    seconds: float


def run_demo(
    out: Path,
    *,
    recipe: FitRecipe | None = None,
    classifier: ClassifierConfig | None = None,
    executor: Executor | None = None,
    on_progress: Progress = lambda *_: None,
) -> DemoReport:
    """Fit the digits from two starts, classify weights and pixels, draw three figures.

    Everything lies in ``out``: the neural dataset in ``out/dataset``, classifiers, figures and
    ``demo.json``. A second call fits nothing again.

    Args:
        out: Folder for everything.
        recipe: How to fit which digits; the preset ``digits-siren`` if left out.
        classifier: How to classify; the preset ``mlp`` if left out.
        executor: Where shards run.
        on_progress: Progress.
    """
    begin = time.perf_counter()
    recipe = recipe or load_fit_recipe("digits-siren")
    classifier = classifier or load_classifier_config("mlp")
    signals = recipe.signals.open()
    if not isinstance(signals, GridSignals) or len(signals.grid_shape) != 2:
        raise ConfigError(f"the demo draws images; {signals.name} is something else")
    datasets = [
        _fit(signals, replace(recipe.fit_config, init=start), out, executor, on_progress)
        for start in _STARTS
    ]
    reports = []
    num_epochs = classifier.num_epochs * len(classifier.seeds)
    for dataset, start in zip(datasets, _STARTS, strict=True):
        reports.append(
            train_classifier(
                dataset,
                classifier,
                out / "classifiers" / dataset.name,
                on_epoch=_epochs(f"train on {start.kind}", num_epochs, on_progress),
            )
        )
        on_progress(f"train on {start.kind}", num_epochs, num_epochs)
    reports.append(
        train_on_examples(
            examples_from_signals(signals),
            classifier,
            out / "classifiers" / "pixels",
            on_epoch=_epochs("train on pixels", num_epochs, on_progress),
        )
    )
    on_progress("train on pixels", num_epochs, num_epochs)
    names = [start.kind for start in _STARTS]
    rows = [_weights_row(*args) for args in zip(names, datasets, reports, strict=False)]
    rows.append(_row("pixels", None, None, reports[-1]))
    figures = (
        _draw_gallery(signals, datasets[0], out / "gallery"),
        _draw_accuracies(rows, reports[0], out / "accuracy"),
        _draw_projections(dict(zip(names, datasets, strict=True)), out / "weights"),
    )
    report = DemoReport(
        rows=tuple(rows),
        chance_accuracy=reports[0].chance_accuracy,
        majority_accuracy=reports[0].majority_accuracy,
        num_seeds=len(classifier.seeds),
        figures=tuple(path.as_posix() for path in figures),
        seconds=time.perf_counter() - begin,
    )
    files.write_json(out / "demo.json", config_to_mapping(report))
    return report


def _fit(
    signals: GridSignals,
    config: FitConfig,
    out: Path,
    executor: Executor | None,
    on_progress: Progress,
) -> NeuralDataset:
    what = f"fit, {config.init.kind} start"
    return run_fit(
        signals,
        config,
        out / "dataset",
        executor=executor,
        on_progress=lambda done, total: on_progress(what, done, total),
    ).dataset


def _epochs(what: str, total: int, on_progress: Progress) -> Callable[[int, int, float], None]:
    """Count epochs over all seeds; early stopping makes the total an upper bound."""
    done = 0

    def count(*_: float) -> None:
        nonlocal done
        done += 1
        on_progress(what, done, total)

    return count


def _weights_row(name: str, dataset: NeuralDataset, report: ClassifierReport) -> DemoRow:
    rows = [dataset.split(split) for split in dataset.split_names]
    psnr = torch.cat([part.quality["psnr_db"][part.is_ok] for part in rows])
    diverged = sum(part.status.count("diverged") for part in rows)
    return _row(name, float(psnr.median()), diverged, report)


def _row(
    name: str, psnr_db: float | None, num_diverged: int | None, report: ClassifierReport
) -> DemoRow:
    return DemoRow(
        name=name,
        psnr_db_median=psnr_db,
        num_diverged=num_diverged,
        test_accuracy=report.test_accuracy,
        test_accuracy_sd=report.test_accuracy_sd,
        train_accuracy=report.train_accuracy,
    )


def _draw_gallery(signals: GridSignals, dataset: NeuralDataset, path: Path) -> Path:
    """Draw one test digit per class: pixels, field on the same grid, field on a finer one."""
    fields = dataset.split("test")
    assert fields.labels is not None, "digits have labels"
    present = fields.labels.unique().tolist()
    chosen = [int((fields.labels == label).nonzero()[0]) for label in present]
    first = next(split.start for split in signals.splits if split.name == "test")
    height, width = signals.grid_shape
    originals = signals.values.read([first + index for index in chosen])
    zoomed = dataset.render(fields.weights[chosen], (height * _ZOOM, width * _ZOOM))
    psnr_db = fields.quality["psnr_db"][chosen].tolist()
    figure = plots.gallery_figure(
        [
            plots.GalleryRow("original", originals.reshape(-1, height, width, 1)),
            plots.GalleryRow(
                "field",
                dataset.render(fields.weights[chosen]),
                [f"{value:.1f} dB" for value in psnr_db],
            ),
            plots.GalleryRow(f"field, {_ZOOM}x finer", zoomed),
        ]
    )
    table = [
        (label, int(fields.signal_index[index]), value)
        for label, index, value in zip(present, chosen, psnr_db, strict=True)
    ]
    return plots.save_figure(figure, path, ("class", "signal_index", "psnr_db"), table)[0]


def _draw_accuracies(rows: list[DemoRow], report: ClassifierReport, path: Path) -> Path:
    labels = {"shared": "shared start", "random": "random start", "pixels": "pixels (ceiling)"}
    bars = [
        plots.AccuracyBar(labels[row.name], row.test_accuracy, row.test_accuracy_sd) for row in rows
    ]
    figure = plots.accuracy_figure(
        bars,
        chance=report.chance_accuracy,
        num_seeds=len(report.results),
        inputs="flat MLP on weights of digits",
    )
    table = [(row.name, row.test_accuracy, row.test_accuracy_sd) for row in rows]
    columns = ("input", "test_accuracy_mean", "test_accuracy_sd")
    return plots.save_figure(figure, path, columns, table)[0]


def _draw_projections(datasets: Mapping[str, NeuralDataset], path: Path) -> Path:
    projections = {name: _project(name, dataset) for name, dataset in datasets.items()}
    class_names = next(iter(datasets.values())).class_names
    figure = plots.projection_figure(list(projections.values()), class_names, legend="digit")
    table = [
        (name, label, *point)
        for name, projection in projections.items()
        for label, point in zip(projection.labels.tolist(), projection.points.tolist(), strict=True)
    ]
    return plots.save_figure(figure, path, ("start", "class", "pc1", "pc2"), table)[0]


def _project(name: str, dataset: NeuralDataset) -> plots.Projection:
    from sklearn.decomposition import PCA

    fields = dataset.split("test")
    good = fields.select(fields.is_ok)
    assert good.labels is not None, "digits have labels"
    pca = PCA(n_components=2, svd_solver="full")
    points = torch.from_numpy(pca.fit_transform(good.weights.double().numpy()))
    first, second = pca.explained_variance_ratio_.tolist()
    return plots.Projection(f"{name} start, test weights", points, good.labels, (first, second))
