"""``nefbench fit``: signals to a neural dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from fitting import FitConfig, FitReport
    from nefbench.signals import Signals
    from nefbench.weights import FieldRows, NeuralDataset

_QUALITY = (
    ("PSNR dB\nmedian", "psnr_db", "median", 1),
    ("worst\n5 %", "psnr_db", "worst_5_percent", 1),
    ("worst", "psnr_db", "worst", 1),
    ("SSIM\nmedian", "ssim", "median", 4),
    ("off-grid\nmedian", "psnr_off_db", "median", 1),
    ("R\nmedian", "psnr_ratio", "median", 3),
    ("IoU uniform\nmedian", "iou_uniform", "median", 3),
    ("worst\n5 %", "iou_uniform", "worst_5_percent", 3),
    ("worst", "iou_uniform", "worst", 3),
    ("near surface\nmedian", "iou_near_surface", "median", 3),
    ("R\nmedian", "iou_ratio", "median", 3),
)
"""Columns of the table of quality: heading, measure, which number of it, digits."""

_QUALITY_OF_SHAPES = (("MAE\nmedian", "mae", "median", 4),)
"""More columns for shapes: only signed distances have this measure there."""


def fit(
    source: Annotated[
        str,
        typer.Argument(
            help="A preset, a TOML file, or a neural dataset folder to continue.",
            metavar="PRESET|FILE|FOLDER",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the neural dataset.", show_default="runs/PRESET")
    ] = None,
    overrides: console.SetOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw.")] = None,
    until_psnr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Stop each field once its PSNR is this high."),
    ] = None,
    config: console.ConfigOption = None,
    only: Annotated[
        str | None, typer.Option(metavar="A:B", help="Fit only these fields, and again.")
    ] = None,
    executor: console.ExecutorOption = "auto",
    device: console.DeviceOption = "cpu",
    json: console.JsonOption = False,
    quiet: console.QuietOption = False,
) -> None:
    """Fit one field per signal and write a neural dataset.

    The same command continues a run that was stopped. Presets, each with
    siren, fouriernet or rffnet: digits-*, patches-*, shapes-* (nothing to
    download); mnist-*, cifar10-*, stl10-*, celeba-*, tinyimagenet-*,
    micro-imagenet-*, imagenet-*.
    """
    settings = list(overrides or [])
    settings += [] if seed is None else [f"seed={seed}"]
    settings += [] if until_psnr is None else [f"until_psnr={until_psnr}"]
    console.run(lambda: _fit(source, out, settings, config, only, executor, device, json, quiet))


def _fit(
    source: str,
    out: Path | None,
    overrides: list[str],
    config_name: str | None,
    only: str | None,
    executor: str,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from fitting import parse_executor, run_fit

    quiet = quiet or as_json
    chosen = _parse_range(only)
    if Path(source).is_dir():
        folder, signals, config = _continued(Path(source), config_name, overrides, out)
    else:
        folder, signals, config = _described(source, overrides, config_name, out)
    console.check_device(device)
    num_params = config.field.spec(signals.in_dim, signals.num_channels).num_params
    runner = parse_executor(executor)
    announced = False
    with console.progress("fields", quiet=quiet) as report_progress:

        def announce() -> None:
            nonlocal announced
            if not announced:  # the folder has been checked, work begins
                _announce(signals, config, num_params, quiet)
                announced = True

        def follow_start(step: int, num_steps: int, _: float) -> None:
            announce()
            report_progress("learn start", step, num_steps, "steps")

        def follow(done: int, total: int) -> None:
            announce()
            report_progress("fit", done, total)

        report = run_fit(
            signals,
            config,
            folder,
            executor=runner,
            device=device,
            only=chosen,
            on_progress=follow,
            on_meta=follow_start,
        )
    if as_json:
        console.print_json(_as_json(report))
    else:
        _print_report(report)


def _described(
    source: str, overrides: list[str], config_name: str | None, out: Path | None
) -> tuple[Path, Signals, FitConfig]:
    from nefbench.errors import ConfigError
    from studies.recipes import load_fit_recipe

    if config_name is not None:
        raise ConfigError(
            "--config goes with a folder to continue; a new one is named by --set name=…"
        )
    recipe = load_fit_recipe(source, overrides)
    folder = out or Path("runs") / Path(source).stem
    return folder, recipe.signals.open(), recipe.fit_config


def _continued(
    folder: Path, name: str | None, overrides: list[str], out: Path | None
) -> tuple[Path, Signals, FitConfig]:
    """Read from the folder itself what was being fitted."""
    from nefbench.config import config_from_mapping
    from nefbench.errors import ConfigError, DatasetFormatError
    from nefbench.weights import load_neural_dataset
    from studies.recipes import FitRecipe

    if overrides or out is not None:
        raise ConfigError(
            f"continuing {folder}: --set, --seed, --until-psnr and --out would change what it is"
        )
    dataset = load_neural_dataset(folder, name)
    entry = dataset.entry
    if entry.signals.config is None:
        raise DatasetFormatError(
            f"{folder} ({dataset.name}) does not say how to open its signals "
            f"({entry.signals.source}); fit it again from where it was made"
        )
    recipe = config_from_mapping(FitRecipe, {**entry.fit, "signals": entry.signals.config})
    config: FitConfig = recipe.fit_config
    return folder, recipe.signals.open(), config


def _parse_range(text: str | None) -> tuple[int, int] | None:
    from nefbench.errors import ConfigError

    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise ConfigError(f"--only: expected A:B with A < B, for example 0:1000 (got {text!r})")
    return int(start), int(stop)


def _announce(signals: Signals, config: FitConfig, num_params: int, quiet: bool) -> None:
    sizes = ", ".join(f"{len(split):,} {split.name}" for split in signals.splits)
    field = config.field
    steps = f"{config.num_steps:,} steps of {config.optimizer.kind}"
    if config.until_psnr is not None:
        steps = f"at most {steps}, until {config.until_psnr:g} dB"
    console.say(f"signals  {signals.name}: {sizes}; {signals.shape_text}", quiet=quiet)
    console.say(
        f"field    {field.kind}, width {field.hidden_dim}, {num_params:,} weights; "
        f"{config.init.kind} start, seed {config.seed}; {steps}"
        f"{copies_text(config.num_refits, config.views.count if config.views else 1)}",
        quiet=quiet,
    )


def copies_text(num_refits: int, num_views: int) -> str:
    """Say how many fields a signal has, where it is more than one."""
    text = f"; {num_refits} fits of each signal" if num_refits > 1 else ""
    return f"{text}; {num_views} views of each training signal" if num_views > 1 else text


def _print_report(report: FitReport) -> None:
    dataset = report.dataset
    entry = dataset.entry
    already = entry.num_finished - report.num_fitted
    done = "nothing left to fit"
    if report.num_fitted:
        done = (
            f"{console.count_text(report.num_fitted, 'field')} in {report.seconds:.1f} s, "
            f"{report.fields_per_s:,.1f} fields/s, {report.field_steps_per_s:,.0f} field-steps/s; "
            f"engine {entry.engine}, ready in {report.prepare_seconds:.1f} s"
        )
    known = f"; {already:,} were there already" if already else ""
    if report.start is not None:
        console.print_line(
            f"start    {report.start}: learned in {report.meta_seconds:.1f} s; "
            f"--set init.kind=file --set init.path={console.shell_text(report.start)} uses it again"
        )
    console.print_line(f"wrote    {dataset.folder} ({dataset.name}): {done}{known}")
    folder = console.shell_text(dataset.folder)
    if not entry.is_complete:
        console.print_line(
            f"next     nefbench fit {folder} --config {dataset.name}  "
            f"({entry.num_finished:,} of {entry.num_fields:,} fields are finished)"
        )
        return
    print_quality(dataset.name, dataset)
    if dataset.class_names:
        console.print_line(f"next     nefbench train {folder} --config {dataset.name}")


def print_quality(title: str, dataset: NeuralDataset) -> None:
    """Print the quality of every split of a finished config, and its steps where they differ."""
    entry = dataset.entry
    shown = [column for column in _QUALITY if column[1] in entry.metrics]
    if dataset.is_of_shapes:
        shown += [column for column in _QUALITY_OF_SHAPES if column[1] in entry.metrics]
    has_steps = entry.fit.get("until_psnr") is not None
    rows = []
    for split, summary in entry.summary.items():
        diverged = summary.num_fields - summary.status.get("ok", 0)
        cells = [split, f"{summary.num_fields:,}", f"{diverged:,}"]
        for _, metric, key, digits in shown:
            cells.append(_number(summary.quality.get(metric, {}).get(key), digits))
        if has_steps:
            cells.append(_number(median_steps(dataset.split(split)), 0))
        rows.append(cells)
    names = [heading for heading, *_ in shown] + (["steps\nmedian"] if has_steps else [])
    console.print_table(title, ["split", "fields", "diverged", *names], rows)


def median_steps(fields: FieldRows) -> float | None:
    """Median number of steps of the fields that are ok, if it is recorded."""
    steps = fields.provenance.get("num_steps")
    if steps is None or not bool(fields.is_ok.any()):
        return None
    return float(steps[fields.is_ok].double().quantile(0.5))


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _as_json(report: FitReport) -> dict[str, Any]:
    from nefbench.config import config_to_mapping

    entry = report.dataset.entry
    return {
        "folder": report.dataset.folder.as_posix(),
        "config": report.dataset.name,
        "digest": entry.digest,
        "num_fitted": report.num_fitted,
        "num_fields": entry.num_fields,
        "seconds": report.seconds,
        "fields_per_s": report.fields_per_s,
        "field_steps_per_s": report.field_steps_per_s,
        "engine": entry.engine,
        "prepare_seconds": report.prepare_seconds,
        "meta_seconds": report.meta_seconds,
        "summary": config_to_mapping(entry)["summary"],
    }
