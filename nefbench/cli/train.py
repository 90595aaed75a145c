"""``nefbench train``: a neural dataset to a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from classifiers import ClassifierReport, RegressionReport


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of a neural dataset.")],
    config: console.ConfigOption = None,
    classifier: Annotated[
        str,
        typer.Option(
            help="A preset (mlp, mlp-aligned, mlp-64, mlp-32, dws, dws-ds, gnn, gnn-500k, "
            "gnn-1200k, gnn-1500k, ng-gnn, ng-gnn-probes, ng-t, ng-t-probes, nfn, nfn-np, "
            "inr2vec, probegen, probing, scale-gmn, scale-gmn-bidirectional, scale-gmn-small, "
            "phase-gmn, phase-probes) or a TOML file."
        ),
    ] = "mlp",
    overrides: console.SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report, figures and checkpoints.", show_default="runs/FOLDER-CONFIG-…"
        ),
    ] = None,
    device: console.DeviceOption = "cpu",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Train a classifier on the weights; choose on validation, measure once on test.

    The same command continues a training that was stopped. With
    --set target=NAME it predicts a numeric property of the signals.
    """
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
    from classifiers import train_classifier, train_regressor
    from nefbench.cli.training_report import draw_report, print_report
    from nefbench.config import config_to_mapping
    from nefbench.weights import load_neural_dataset
    from studies.recipes import load_classifier_config

    quiet = quiet or as_json
    config = load_classifier_config(preset, overrides)
    dataset = load_neural_dataset(folder, config_name)
    device = console.check_device(device)
    target = out or Path("runs") / f"{folder.resolve().name}-{dataset.name}-{Path(preset).stem}"
    per_epoch = sum(len(split) for split in dataset.entry.splits if split.name == "train")
    all_rows = config.num_epochs * len(config.seeds) * per_epoch
    done = 0
    with console.progress("rows", quiet=quiet) as report_progress:

        def count(index: int, epoch: int, score: float) -> None:
            """Count what is done here: early stopping and a training continued leave epochs out."""
            del score
            nonlocal done
            done += 1
            left = (len(config.seeds) - index) * config.num_epochs - epoch
            report_progress("train", done * per_epoch, (done + left) * per_epoch)

        def count_fixed(what: str, rows: int, total: int) -> None:
            """Count what comes before the training, whose clock starts after it."""
            report_progress(what, rows, total)
            if what != "reference" and rows == total:
                report_progress("train", 0, all_rows)

        if config.gauge_fixing == "none":
            report_progress("train", 0, all_rows)
        train_it = train_regressor if config.properties else train_classifier
        report: ClassifierReport | RegressionReport = train_it(
            dataset, config, target, device=device, on_epoch=count, on_fixed=count_fixed
        )
        report_progress("train", max(1, done) * per_epoch, max(1, done) * per_epoch)
    figures = draw_report(report, target)
    if as_json:
        console.print_json(config_to_mapping(report) | {"folder": target.as_posix()})
        return
    print_report(report)
    console.print_line(f"figures  {', '.join(path.name for path in figures)}")
    known = "" if done else "; this training was there already"
    console.print_line(f"wrote    {target}: report.json and one checkpoint per seed{known}")
