"""``nefbench bench``: measure this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import bench_train, console

if TYPE_CHECKING:
    from fitting.bench.report import BenchReport, CaseResult

app = typer.Typer(no_args_is_help=True, help="Measure this machine.")

_AGREEING = 5e-4
"""Relative deviation of losses that agree to four digits, less their rounding."""
_SHORT = {"one by one": "loop", "vmapped": "eager"}
"""Names of contenders in the columns of ratios."""


app.command("train")(bench_train.train)


@app.command("fit")
def fit(
    quick: Annotated[bool, typer.Option("--quick", help="Headline cases only.")] = False,
    settings: console.SetOption = None,
    out: Annotated[Path, typer.Option(help="Folder for table, JSON and figure.")] = Path(
        "runs/bench-fit"
    ),
    device: console.DeviceOption = "cpu",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Measure how fast fields are fitted, by every engine and by JAX where it is installed."""
    console.run(lambda: _fit(quick, settings or [], out, device, json, quiet))


def _fit(
    quick: bool, settings: list[str], out: Path, device: str, as_json: bool, quiet: bool
) -> None:
    from fitting.bench import QUICK, BenchConfig, run_bench
    from nefbench import files
    from nefbench.config import apply_overrides, config_from_mapping, config_to_mapping

    preset = config_to_mapping(QUICK if quick else BenchConfig())
    config = config_from_mapping(BenchConfig, apply_overrides(preset, settings))
    console.check_device(device)
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made shows now
    report = run_bench(
        config, device=device, say=lambda text: console.say(text, quiet=quiet or as_json)
    )
    mapping = config_to_mapping(report)
    files.write_json(out / "bench-fit.json", mapping)
    figure = draw_report(report, out / "bench-fit")
    if as_json:
        console.print_json(mapping)
        return
    print_report(report)
    console.print_line(f"figure   {figure}")
    console.print_line(f"wrote    {out / 'bench-fit.json'} in {report.seconds:.0f} s")


def print_report(report: BenchReport) -> None:
    """Print the table and what does not fit into it."""
    columns = _contenders(report)
    rivals = [name for name in columns if any(name in r.ratios for r in _rows(report))]
    console.print_table(
        f"field-steps per second, median of {report.repetitions}; {_place(report)}",
        [
            "case",
            *columns,
            "GFLOP/s",
            "% of peak",
            *(f"x {_SHORT.get(name, name)}" for name in rivals if not name.startswith("fused")),
        ],
        [_table_row(row, columns, rivals) for row in _rows(report)],
    )
    console.print_line("")
    _print_peak(report)
    _print_losses(report)
    _print_compile_times(report)
    _print_memory(report)
    _print_job(report)
    for name, why in _missing(report).items():
        console.print_line(f"without  {name}: {why}")
    failed = sum(why.startswith("failed") for row in _rows(report) for why in row.refused.values())
    if failed:
        console.print_line(f"failed   {console.count_text(failed, 'timing')}; see the JSON")


def draw_report(report: BenchReport, path: Path) -> Path:
    """Draw the figure and save it as PNG, PDF and CSV; returns the PNG."""
    from nefbench import plots

    rows = [
        plots.ThroughputRow(
            row.name,
            {name: timing.fs_per_s for name, timing in row.timings.items()},
            {name: timing.share_of_peak for name, timing in row.timings.items()},
        )
        for row in report.rows
    ]
    keys = dict.fromkeys((point.varied, point.engine) for point in report.scaling)
    lines = []
    for varied, engine in keys:
        points = [p for p in report.scaling if (p.varied, p.engine) == (varied, engine)]
        values, rates = [p.value for p in points], [p.fs_per_s for p in points]
        lines.append(plots.ScalingLine(engine, varied, values, rates))
    place = "one core" if report.machine.device == "cpu" else report.machine.device
    figure = plots.throughput_figure(rows, lines, place=place, scaled=report.rows[0].name)
    table: list[tuple[object, ...]] = [
        ("case", row.name, name, rate, row.shares[name])
        for row in rows
        for name, rate in row.rates.items()
    ]
    table += [
        (line.varied, value, line.engine, rate, "")
        for line in lines
        for value, rate in zip(line.values, line.rates, strict=True)
    ]
    columns = ("panel", "value", "contender", "fs_per_s", "share_of_peak")
    return plots.save_figure(figure, path, columns, table)[0]


def _rows(report: BenchReport) -> tuple[CaseResult, ...]:
    return (*report.rows, *report.all_cores)


def _contenders(report: BenchReport) -> list[str]:
    """Everyone with a number, in the order of the first rows."""
    return list(dict.fromkeys(name for row in _rows(report) for name in row.timings))


def _missing(report: BenchReport) -> dict[str, str]:
    """Contenders without any number, and why; on a CPU, engines for a GPU are not missed."""
    from fitting.bench.contenders import ROUNDED

    present = _contenders(report)
    if report.machine.device == "cpu":
        present += ROUNDED
    missing: dict[str, str] = {}
    for row in report.rows:
        for name, why in row.refused.items():
            if name not in present:
                missing.setdefault(name, why)
    return missing


def _place(report: BenchReport) -> str:
    machine = report.machine
    if machine.device != "cpu":
        return machine.device
    return f"{machine.processor}, one core where no number of cores is given"


def _table_row(row: CaseResult, columns: list[str], rivals: list[str]) -> list[str]:
    cores = f", {row.cores} cores" if row.cores > 1 else ""
    rates = [
        f"{row.timings[name].fs_per_s:,.0f}" if name in row.timings else "-" for name in columns
    ]
    best = None if row.fastest is None else row.timings[row.fastest]
    return [
        f"{row.name}{cores}",
        *rates,
        "-" if best is None else f"{best.gflop_per_s:.1f}",
        "-" if best is None else f"{100 * best.share_of_peak:.0f}",
        *(
            f"{row.ratios[name]:.1f}" if name in row.ratios else "-"
            for name in rivals
            if not name.startswith("fused")
        ),
    ]


def _print_peak(report: BenchReport) -> None:
    text = f"{report.peak.gflop_per_s:,.0f} GFLOP/s ({report.peak.method})"
    if report.peak_all_cores is not None:
        text = f"{text}, {report.peak_all_cores.gflop_per_s:,.0f} on all cores"
    console.print_line(f"peak     {text}")


def _print_losses(report: BenchReport) -> None:
    """Say how well contenders agree before they are timed."""
    from fitting.bench.contenders import ROUNDED

    worst = {
        row.name: max(
            (deviation, name)
            for name, deviation in row.loss_deviation.items()
            if name not in ROUNDED
        )
        for row in report.rows
        if set(row.loss_deviation) - set(ROUNDED)
    }
    if not worst:
        return
    agreeing = sum(deviation < _AGREEING for deviation, _ in worst.values())
    case = max(worst, key=lambda name: worst[name])
    deviation, contender = worst[case]
    console.print_line(
        f"check    mean losses after {report.check_steps} steps agree to four digits in {agreeing} "
        f"of {console.count_text(len(worst), 'case')}: largest relative deviation {deviation:.0e} "
        f"({contender} on {case})"
    )


def _print_compile_times(report: BenchReport) -> None:
    for name in dict.fromkeys(item.contender for item in report.compile):
        times = [item for item in report.compile if item.contender == name]
        cold = ", ".join(f"{item.cold_s:.1f}" for item in times)
        warm = ", ".join(f"{item.warm_s:.1f}" for item in times)
        console.print_line(f"compile  {name}: {cold} s cold, {warm} s from the disk")


def _print_memory(report: BenchReport) -> None:
    keys = dict.fromkeys((item.engine, item.side) for item in report.memory)
    for engine, side in keys:
        items = [item for item in report.memory if (item.engine, item.side) == (engine, side)]
        peaks = ", ".join(f"{item.peak_mb:,.0f} MB for {item.fields:,}" for item in items)
        console.print_line(f"memory   {engine}, {side}x{side}: {peaks} fields")


def _print_job(report: BenchReport) -> None:
    if report.floors is None or not report.job:
        return
    floors = report.floors
    sines = "" if floors.sines_s is None else f", sines {floors.sines_s:.1f} s"
    console.print_table(
        f"whole fit; floors: multiply-adds {floors.multiply_adds_s:.1f} s{sines}",
        [
            "engine", "fitted", "steps", "s", "whole: s", "fs/s", "GFLOP/s", "% of peak",
            "PSNR dB", "less eager", "worst", "MB",
        ],
        [
            [
                item.engine,
                f"{item.fields:,}",
                f"{item.steps:,}",
                f"{item.seconds:.2f}",
                f"{item.seconds_whole:.1f}",
                f"{item.fs_per_s:,.0f}",
                f"{item.gflop_per_s:,.0f}",
                f"{100 * item.share_of_peak:.0f}",
                f"{item.psnr_db_median:.2f}",
                f"{item.psnr_db_difference:+.2f}",
                f"{item.psnr_db_worst:+.2f}",
                f"{item.peak_memory_mb:,.0f}",
            ]
            for item in report.job
        ],
    )  # fmt: skip
