"""``nefbench demo``: the whole sentence on the embedded digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from studies.demo import DemoReport


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "nefbench-demo"
    ),
    executor: console.ExecutorOption = "auto",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Fit 1,797 digits from two starts, classify their weights, draw three figures."""
    console.run(lambda: _demo(out, executor, json, quiet))


def _demo(out: Path, executor: str, as_json: bool, quiet: bool) -> None:
    from fitting import parse_executor
    from nefbench.config import config_to_mapping
    from studies.demo import run_demo

    runner = parse_executor(executor)
    with console.progress("", quiet=quiet or as_json) as report_progress:
        report = run_demo(out, executor=runner, on_progress=report_progress)
    if as_json:
        console.print_json(config_to_mapping(report))
    else:
        print_report(report, out)


def print_report(report: DemoReport, out: Path) -> None:
    """Print the table of the demo and where its files are."""
    rows = [
        [
            {"pixels": "pixels (ceiling)"}.get(row.name, f"weights, {row.name} start"),
            "" if row.psnr_db_median is None else f"{row.psnr_db_median:.1f}",
            "" if row.num_diverged is None else str(row.num_diverged),
            f"{row.train_accuracy:.3f}",
            f"{row.test_accuracy:.3f} ± {row.test_accuracy_sd:.3f}",
        ]
        for row in report.rows
    ]
    rows.append(["chance", "", "", "", f"{report.chance_accuracy:.3f}"])
    rows.append(["majority class", "", "", "", f"{report.majority_accuracy:.3f}"])
    console.print_table(
        f"1,797 digits as SIRENs, flat MLP, mean ± s.d. over {report.num_seeds} seeds",
        ["input", "PSNR dB: median", "diverged", "train accuracy", "test accuracy"],
        rows,
    )
    for figure in report.figures:
        console.print_line(f"figure   {figure}")
    console.print_line(f"wrote    {out} in {report.seconds:.0f} s")
    console.print_line(f"next     nefbench inspect {console.shell_text(out / 'dataset')}")
