"""``nefbench bench train``: how fast classifiers are trained on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from classifiers.bench import TrainBenchReport


def train(
    quick: Annotated[bool, typer.Option("--quick", help="Models with a baseline only.")] = False,
    settings: console.SetOption = None,
    out: Annotated[Path, typer.Option(help="Folder for table, JSON and figure.")] = Path(
        "runs/bench-train"
    ),
    device: console.DeviceOption = "cpu",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Measure how fast every classifier is trained, beside graphs in torch-geometric."""
    console.run(lambda: _train(quick, settings or [], out, device, json, quiet))


def _train(
    quick: bool, settings: list[str], out: Path, device: str, as_json: bool, quiet: bool
) -> None:
    from classifiers.bench import QUICK, TrainBenchConfig, run_train_bench
    from nefbench import files
    from nefbench.config import apply_overrides, config_from_mapping, config_to_mapping

    preset = config_to_mapping(QUICK if quick else TrainBenchConfig())
    config = config_from_mapping(TrainBenchConfig, apply_overrides(preset, settings))
    device = console.check_device(device)
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made shows now
    report = run_train_bench(
        config, device=device, say=lambda text: console.say(text, quiet=quiet or as_json)
    )
    files.write_json(out / "bench-train.json", config_to_mapping(report))
    figure = draw_report(report, out / "bench-train")
    if as_json:
        console.print_json(config_to_mapping(report))
        return
    print_report(report)
    console.print_line(f"figure   {figure}")
    console.print_line(f"wrote    {out / 'bench-train.json'} in {report.seconds:.0f} s")


def print_report(report: TrainBenchReport) -> None:
    """Print the table, the rate of products, and how an epoch grows with the number of fields."""
    rows = [
        [
            f"{t.case} {t.name}",
            f"{t.num_parameters:,}",
            f"{t.num_modules:,}",
            f"{t.num_layer_modules:,}",
            f"{t.samples_per_s:,.0f}",
            f"{1000 * t.batch_size / t.samples_per_s:,.1f}",
            f"{t.floor_ms:,.1f}",
            f"{t.memory_per_sample / 2**20:.2f}",
            "" if t.ratio is None else f"{t.ratio:.1f} x {t.baseline}",
            "" if t.deviation is None else f"{t.deviation:.0e}",
        ]
        for t in report.timings
    ]
    size = report.timings[0].batch_size if report.timings else 0
    console.print_table(
        f"training steps, batch {size}, median of {report.repetitions}; {_place(report)}",
        ["model", "parameters", "modules", "a layer", "samples/s", "ms/step", "floor", "MB/sample",
         "rate", "deviation"],
        rows,
    )  # fmt: skip
    console.print_line("")
    console.print_line(
        f"floor    ms of a step's matrix products alone, at {report.gflop_per_s:,.0f} GFLOP/s"
    )
    for name in dict.fromkeys(point.name for point in report.growth):
        points = [point for point in report.growth if point.name == name]
        text = ", ".join(
            f"{1e3 * p.seconds / p.num_fields:.2f} for {p.num_fields:,}" for p in points
        )
        console.print_line(f"growth   {name}: ms per field of an epoch: {text} fields")


def draw_report(report: TrainBenchReport, path: Path) -> Path:
    """Draw samples per second and save the figure as PNG, PDF and CSV; returns the PNG."""
    from nefbench import plots

    cases = {
        case: {t.name: t.samples_per_s for t in report.timings if t.case == case}
        for case in dict.fromkeys(t.case for t in report.timings)
    }
    baselines = {t.name: t.baseline for t in report.timings if t.baseline is not None}
    figure = plots.training_rate_figure(cases, baselines, place=_place(report))
    table = [
        (t.case, t.name, t.samples_per_s, t.samples_per_s_best, t.samples_per_s_worst)
        for t in report.timings
    ]
    columns = ("case", "model", "samples_per_s", "best", "worst")
    return plots.save_figure(figure, path, columns, table)[0]


def _place(report: TrainBenchReport) -> str:
    threads = console.count_text(report.threads, "thread")
    return f"{report.processor}, {threads}" if report.device == "cpu" else report.device
