"""``nefbench train``: a neural dataset to a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from classifiers import ClassifierReport


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of a neural dataset.")],
    config: console.ConfigOption = None,
    classifier: Annotated[
        str, typer.Option(help="A preset (mlp, mlp-64, mlp-32) or a TOML file.")
    ] = "mlp",
    overrides: console.SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report and checkpoints.", show_default="runs/FOLDER-CONFIG-…"
        ),
    ] = None,
    device: console.DeviceOption = "cpu",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Train a classifier on the weights; choose on validation, measure once on test."""
    console.run(
        lambda: _train(folder, config, classifier, overrides or [], out, device, json, quiet)
    )


def _train(
    folder: Path,
    config_name: str | None,
    preset: str,
    overrides: list[str],
    out: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from classifiers import train_classifier
    from nefbench.config import config_to_mapping
    from nefbench.weights import load_neural_dataset
    from studies.recipes import load_classifier_config

    quiet = quiet or as_json
    config = load_classifier_config(preset, overrides)
    dataset = load_neural_dataset(folder, config_name)
    device = console.check_device(device)
    target = out or Path("runs") / f"{folder.resolve().name}-{dataset.name}-{Path(preset).stem}"
    total = config.num_epochs * len(config.seeds)
    done = 0
    with console.progress("epochs", quiet=quiet) as report_progress:

        def count(index: int, epoch: int, accuracy: float) -> None:
            del epoch, accuracy
            nonlocal done
            done = max(done + 1, index * config.num_epochs)
            report_progress("train", done, total)

        report = train_classifier(dataset, config, target, device=device, on_epoch=count)
        report_progress("train", total, total)
    if as_json:
        console.print_json(config_to_mapping(report) | {"folder": target.as_posix()})
        return
    _print_report(report)
    console.print_line(f"wrote    {target}: report.json and one checkpoint per seed")


def _print_report(report: ClassifierReport) -> None:
    sizes = ", ".join(f"{size:,} {name}" for name, size in report.num_rows.items())
    excluded = f"; {report.num_excluded} diverged left out" if report.num_excluded else ""
    console.print_line(f"rows     {sizes}{excluded}")
    rows = [
        [f"seed {r.seed}", str(r.best_epoch), f"{r.train_accuracy:.4f}",
         f"{r.validation_accuracy:.4f}", f"{r.test_accuracy:.4f}"]
        for r in report.results
    ]  # fmt: skip
    rows.append(
        ["mean", "", f"{report.train_accuracy:.4f}", f"{report.validation_accuracy:.4f}",
         f"{report.test_accuracy:.4f} ± {report.test_accuracy_sd:.4f}"]
    )  # fmt: skip
    rows.append(["chance", "", "", "", f"{report.chance_accuracy:.4f}"])
    rows.append(["majority class", "", "", "", f"{report.majority_accuracy:.4f}"])
    title = f"{report.config.model.kind}, {report.num_parameters:,} parameters, on {report.name}"
    console.print_table(title, ["", "best epoch", "train", "validation", "test"], rows)
