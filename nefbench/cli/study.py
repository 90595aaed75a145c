"""``nefbench study``: many datasets and classifiers, chosen by a grid or a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from studies.run import StudyReport

_MOST_ROWS = 20


def study(
    source: Annotated[
        str,
        typer.Argument(
            help="A preset, a TOML file, or study.json of a report.", metavar="PRESET|FILE"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study.", show_default="runs/NAME")
    ] = None,
    overrides: console.SetOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run trials.")] = 1,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of datasets and trainings that studies share.",
            show_default="OUT/../store",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="Record of the trials: a journal, or postgresql+psycopg://… for many machines.",
            show_default="OUT/journal.log",
        ),
    ] = None,
    device: console.DeviceOption = "cpu",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Run a study: every trial fits a neural dataset and trains a classifier.

    The same command continues a study that was stopped; run elsewhere with the
    same --storage it helps. Presets: phase-1-FIELD-SOURCE-BUDGET (search),
    phase-2-SOURCE-BUDGET (grid), overfitting-SOURCE-BUDGET (classifiers); fields
    siren, rffnet, fouriernet; sources digits, patches, shapes (nothing to
    download), mnist, cifar10; budgets smoke, laptop, paper.
    """
    console.run(
        lambda: _study(source, out, overrides or [], workers, store, storage, device, json, quiet)
    )


def _study(
    source: str,
    out: Path | None,
    overrides: list[str],
    workers: int,
    store: Path | None,
    storage: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from nefbench.config import config_to_mapping
    from studies.recipes import load_study_config
    from studies.run import run_study

    quiet = quiet or as_json
    config = load_study_config(source, overrides)
    console.check_device(device)
    folder = out or Path("runs") / config.name
    with console.progress("trials", quiet=quiet) as report_progress:

        def follow(finished: int, total: int, failed: int) -> None:
            what = f"trials ({failed} failed)" if failed else "trials"
            report_progress(what, finished + failed, total)

        report = run_study(
            config,
            folder,
            store=store or folder.parent / "store",
            storage=storage,
            workers=workers,
            device=device,
            on_trials=follow,
            on_progress=lambda what, done, total: report_progress(
                what, done, total, "fields" if what == "fit" else "epochs"
            ),
        )
    if as_json:
        console.print_json(
            {
                "study": config.name,
                "folder": folder.as_posix(),
                "num_trials": report.num_trials,
                "num_pruned": report.num_pruned,
                "causes": report.causes,
                "results": [config_to_mapping(result) for result in report.results],
            }
        )
    else:
        _print_report(report, folder)
    if report.causes and not report.results:
        raise SystemExit(1)


def _print_report(report: StudyReport, folder: Path) -> None:
    best = sorted(report.results, key=lambda r: -r.validation_accuracy)[:_MOST_ROWS]
    if best:
        console.print_table(
            f"{report.config.name}: {console.count_text(len(report.results), 'result')}, best "
            f"validation accuracy first",
            (
                "source", "field", "start", "width", "steps", "classifier", "quality", "R",
                "NMI", "validation", "test", "±",
            ),
            [
                (
                    result.source,
                    result.field,
                    result.init,
                    str(result.hidden_features),
                    f"{result.num_steps:,}",
                    result.classifier,
                    _number(result.measures.quality, 2),
                    _number(result.measures.ratio_of_means, 3),
                    _number(result.measures.nmi, 3),
                    f"{result.validation_accuracy:.4f}",
                    f"{result.test_accuracy:.4f}",
                    f"{result.test_accuracy_sd:.4f}" if result.num_seeds > 1 else "",
                )
                for result in best
            ],
        )  # fmt: skip
        if len(report.results) > len(best):
            console.print_line(f"and {len(report.results) - len(best):,} more (--json prints all)")
    if report.num_pruned:
        console.print_line(f"pruned   {console.count_text(report.num_pruned, 'trial')}")
    if report.causes:
        causes = [(cause, str(count)) for cause, count in report.causes.items()]
        console.print_table("failed", ("cause", "trials"), causes)
    console.print_line(f"wrote    {folder} in {report.seconds:,.0f} s")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
