"""What ``nefbench train`` shows of a report: tables on stdout, figures in files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nefbench.cli import console

if TYPE_CHECKING:
    from classifiers import ClassifierReport, RegressionReport
    from nefbench import plots


_MOST_CLASSES = 12
"""Classes up to which all are listed; above, those with the lowest accuracy."""


def print_report(report: ClassifierReport | RegressionReport) -> None:
    """Print what was trained on, every seed, the mean, and what to compare it with."""
    from classifiers import ClassifierReport

    sizes = ", ".join(f"{size:,} {name}" for name, size in report.num_rows.items())
    excluded = f"; {report.num_excluded} diverged left out" if report.num_excluded else ""
    skipped = f"; {report.num_skipped} not finite left out" if report.num_skipped else ""
    console.print_line(f"rows     {sizes}{excluded}{skipped}")
    if isinstance(report, ClassifierReport):
        _print_seeds(report)
        _print_classes(report)
    else:
        _print_regression_seeds(report)
        _print_properties(report)
    epochs = [second for timing in report.timings for second in timing.epoch_seconds]
    rate = statistics.fmean(timing.rows_per_s for timing in report.timings)
    cpu = sum(timing.cpu_seconds for timing in report.timings)
    console.print_line(
        f"train    {console.count_text(len(epochs), 'epoch')} in {report.seconds:.1f} s, "
        f"{rate:,.0f} rows/s, {cpu:.1f} CPU seconds"
    )


def draw_report(report: ClassifierReport | RegressionReport, folder: Path) -> list[Path]:
    """Draw everything a report holds; returns the PNG files."""
    from classifiers import ClassifierReport

    if isinstance(report, ClassifierReport):
        return draw_classifier(report, folder)
    return draw_regressor(report, folder)


def _title(report: ClassifierReport | RegressionReport) -> str:
    return (
        f"{report.config.model.kind}, {report.num_parameters:,} parameters, reads the "
        f"{report.access}, on {report.name}"
    )


def _print_seeds(report: ClassifierReport) -> None:
    rows = [
        [f"seed {r.seed}", str(r.best_epoch), f"{r.train_accuracy:.4f}",
         f"{r.validation_accuracy:.4f}", f"{r.test_accuracy:.4f}", f"{r.calibration.error:.4f}"]
        for r in report.results
    ]  # fmt: skip
    rows.append(
        ["mean", "", f"{report.train_accuracy:.4f}", f"{report.validation_accuracy:.4f}",
         f"{report.test_accuracy:.4f} ± {report.test_accuracy_sd:.4f}",
         f"{report.calibration_error:.4f}"]
    )  # fmt: skip
    rows.append(["chance", "", "", "", f"{report.chance_accuracy:.4f}", ""])
    rows.append(["majority class", "", "", "", f"{report.majority_accuracy:.4f}", ""])
    columns = ["", "best epoch", "train", "validation", "test", "calibration error"]
    console.print_table(_title(report), columns, rows)


def _print_classes(report: ClassifierReport) -> None:
    """List classes with their accuracy and what they were most often taken for."""
    counts = report.confusion
    present = [index for index, row in enumerate(counts) if sum(row)]
    accuracy = {index: counts[index][index] / sum(counts[index]) for index in present}
    title = "classes, test"
    if len(present) > _MOST_CLASSES:
        present = sorted(present, key=lambda index: accuracy[index])[:_MOST_CLASSES]
        title = f"classes with the lowest test accuracy, of {len(report.class_names)}"
    rows = []
    for index in present:
        seeds = [r.class_accuracy[index] for r in report.results]
        others = [count if other != index else 0 for other, count in enumerate(counts[index])]
        worst = max(range(len(others)), key=others.__getitem__)
        taken = f"{report.class_names[worst]} ({others[worst] / sum(counts[index]):.1%})"
        rows.append(
            [
                report.class_names[index],
                f"{sum(counts[index]) // len(report.results):,}",
                _mean_text([value for value in seeds if value is not None]),
                taken if others[worst] else "-",
            ]
        )
    console.print_table(title, ["class", "rows", "accuracy", "else taken for"], rows)


def _print_regression_seeds(report: RegressionReport) -> None:
    rows = [
        [f"seed {r.seed}", str(r.best_epoch), f"{r.train_r2:.4f}", f"{r.validation_r2:.4f}",
         f"{r.test_r2:.4f}"]
        for r in report.results
    ]  # fmt: skip
    train = statistics.fmean(r.train_r2 for r in report.results)
    validation = statistics.fmean(r.validation_r2 for r in report.results)
    test = _mean_text([r.test_r2 for r in report.results])
    rows.append(["mean", "", f"{train:.4f}", f"{validation:.4f}", test])
    columns = ["R2", "best epoch", "train", "validation", "test"]
    console.print_table(_title(report), columns, rows)


def _print_properties(report: RegressionReport) -> None:
    rows = []
    for index, baseline in enumerate(report.baseline):
        found = [r.properties[index] for r in report.results]
        rows.append(
            [
                baseline.name,
                _mean_text([errors.r2 for errors in found]),
                _mean_text([errors.mae for errors in found]),
                _mean_text([errors.rmse for errors in found]),
                f"{baseline.mae:.4g}",
                f"{baseline.rmse:.4g}",
            ]
        )
    columns = ["property", "R2", "MAE", "RMSE", "MAE of the mean", "RMSE of the mean"]
    console.print_table("properties, test", columns, rows)


def _mean_text(values: Sequence[float]) -> str:
    """Mean and sample standard deviation over seeds."""
    from classifiers.report import spread

    return f"{statistics.fmean(values):.4f} ± {spread(values):.4f}"


def draw_classifier(report: ClassifierReport, folder: Path) -> list[Path]:
    """Draw learning curves, confusion matrix and reliability; returns the PNG files."""
    from nefbench import plots

    curves = [
        plots.LearningCurve(
            result.seed,
            [epoch.loss for epoch in result.epochs],
            [epoch.validation_accuracy for epoch in result.epochs],
            [epoch.learning_rate for epoch in result.epochs],
            result.best_epoch,
        )
        for result in report.results
    ]
    level = ("chance", report.chance_accuracy)
    return [
        _draw_curves(
            report, curves, "training cross-entropy", "validation accuracy", level, folder
        ),
        _draw_confusion(report, folder / "confusion"),
        _draw_calibration(report, folder / "calibration"),
    ]


def draw_regressor(report: RegressionReport, folder: Path) -> list[Path]:
    """Draw learning curves; returns the PNG file."""
    from nefbench import plots

    curves = [
        plots.LearningCurve(
            result.seed,
            [epoch.loss for epoch in result.epochs],
            [epoch.validation_r2 for epoch in result.epochs],
            [epoch.learning_rate for epoch in result.epochs],
            result.best_epoch,
        )
        for result in report.results
    ]
    return [_draw_curves(report, curves, "training loss (MSE)", "validation R2", None, folder)]


def _draw_curves(
    report: ClassifierReport | RegressionReport,
    curves: list[plots.LearningCurve],
    loss: str,
    score: str,
    level: tuple[str, float] | None,
    folder: Path,
) -> Path:
    from nefbench import plots

    figure = plots.learning_curves_figure(curves, loss=loss, score=score, level=level)
    table = [
        (curve.seed, epoch, *numbers)
        for curve, timing in zip(curves, report.timings, strict=True)
        for epoch, numbers in enumerate(
            zip(
                curve.losses,
                curve.scores,
                curve.learning_rates,
                timing.epoch_seconds,
                strict=True,
            ),
            start=1,
        )
    ]
    names = ("seed", "epoch", "train_loss", score.replace(" ", "_").lower(), "learning_rate")
    return plots.save_figure(figure, folder / "learning-curves", (*names, "seconds"), table)[0]


def _draw_confusion(report: ClassifierReport, path: Path) -> Path:
    from nefbench import plots

    counts = report.confusion
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    seeds = console.count_text(len(report.results), "seed")
    title = f"test accuracy {report.test_accuracy:.3f}, {seeds}; numbers in %"
    figure = plots.confusion_figure(shares, report.class_names, title=title)
    table = [
        (name, other, count, share)
        for name, row, row_shares in zip(report.class_names, counts, shares, strict=True)
        for other, count, share in zip(report.class_names, row, row_shares, strict=True)
        if count  # nothing is drawn elsewhere, and of a thousand classes there are a million cells
    ]
    return plots.save_figure(figure, path, ("class", "taken_for", "rows", "share"), table)[0]


def _draw_calibration(report: ClassifierReport, path: Path) -> Path:
    from classifiers.evaluation import pooled_bins
    from nefbench import plots

    bins = pooled_bins([result.calibration for result in report.results])
    total = sum(b.num_rows for b in bins)
    bars = [
        plots.ReliabilityBar(
            index / len(bins), (index + 1) / len(bins), b.confidence, b.accuracy,
            b.num_rows / total,
        )
        for index, b in enumerate(bins)
    ]  # fmt: skip
    seeds = console.count_text(len(report.results), "seed")
    title = f"expected calibration error {report.calibration_error:.3f}, {seeds}"
    figure = plots.calibration_figure(bars, title=title)
    table = [
        (bar.low, bar.high, b.num_rows, bar.confidence, bar.accuracy)
        for bar, b in zip(bars, bins, strict=True)
    ]
    columns = ("confidence_from", "confidence_to", "rows", "mean_confidence", "accuracy")
    return plots.save_figure(figure, path, columns, table)[0]
