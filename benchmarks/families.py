"""The study's families of signals, fitted with its three fields: quality on and off the grid.

Run ``python benchmarks/families.py --out benchmarks/families``; add ``--mnist FOLDER`` and
``--cifar10 FOLDER`` (Hub repositories on disk) for those rows. Every row is a shipped preset; a
source that would take hours is cut to its first signals, and the table says how many were fitted.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fitting import Automatic, run_fit
from nefbench import files
from nefbench.metrics import set_ratio
from nefbench.weights import NeuralDataset
from nefbench.weights.parts import FieldRows, concatenate
from studies.recipes import load_fit_recipe

FIELDS = ("siren", "rffnet", "fouriernet")
_CUT = ["signals.train=train[:1000]", "signals.validation=train[1000:1100]",
        "signals.test=test[:200]"]  # fmt: skip
EMBEDDED = {
    "digits": [],
    "patches": [],
    "patches-64": ["signals.size=64"],
    "shapes": ["signals.train_size=72", "signals.validation_size=24", "signals.test_size=24"],
}
"""Embedded sources with overrides of their presets."""


@dataclass(frozen=True)
class Row:
    """One neural dataset.

    Attributes:
        source: Name of the signals.
        field: Architecture and width.
        num_fields: Fields fitted.
        num_steps: Optimizer steps per field.
        measure: ``dB`` (PSNR) or ``IoU``.
        inside: Median on the fitted points.
        off: Median between the grid points, or on held-out uniform points.
        near_surface: Median on held-out points near the surface; shapes only.
        ratio_of_means: R of the set, mean off over mean inside.
        mean_of_ratios: R of the set, mean over fields.
        diverged: Fields that diverged.
        fields_per_s: Throughput, on all cores, without compiling.
        engine: What computed it.
    """

    source: str
    field: str
    num_fields: int
    num_steps: int
    measure: str
    inside: float
    off: float
    near_surface: float | None
    ratio_of_means: float
    mean_of_ratios: float
    diverged: int
    fields_per_s: float
    engine: str


def fit_row(source: str, preset: str, overrides: list[str]) -> Row:
    """Fit one preset in a temporary folder and measure all of its fields."""
    recipe = load_fit_recipe(preset, overrides)
    signals = recipe.signals.open()
    with tempfile.TemporaryDirectory() as folder:
        report = run_fit(signals, recipe.fit_config, folder, executor=Automatic())
        rows = _all_rows(report.dataset)
    good = rows.select(rows.is_ok)
    measure = "IoU" if "iou" in good.quality else "dB"
    inside, off = (
        ("psnr_db", "psnr_off_db") if measure == "dB" else ("iou", "iou_uniform")
    )  # fmt: skip
    near = good.quality.get("iou_near_surface")
    ratio = set_ratio(good.quality[off], good.quality[inside])
    return Row(
        source=source,
        field=f"{recipe.field.kind} {recipe.field.hidden_dim}",
        num_fields=len(rows),
        num_steps=recipe.num_steps,
        measure=measure,
        inside=_median(good.quality[inside]),
        off=_median(good.quality[off]),
        near_surface=None if near is None else _median(near),
        ratio_of_means=ratio.ratio_of_means,
        mean_of_ratios=ratio.mean_of_ratios,
        diverged=len(rows) - len(good),
        fields_per_s=report.fields_per_s,
        engine=report.dataset.entry.engine,
    )


def _all_rows(dataset: NeuralDataset) -> FieldRows:
    return concatenate([dataset.split(name) for name in dataset.split_names])


def _median(values: torch.Tensor) -> float:
    return float(values.median()) if len(values) else math.nan


def table(rows: list[Row]) -> str:
    """Return a Markdown table."""
    head = ["signals", "field", "fields", "steps", "in grid", "off grid", "near surface",
            "R of means", "mean R", "diverged", "fields/s"]  # fmt: skip
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in rows:
        digits = 1 if row.measure == "dB" else 3
        near = "" if row.near_surface is None else f"{row.near_surface:.3f} IoU"
        lines.append(
            [
                row.source, row.field, f"{row.num_fields:,}", f"{row.num_steps:,}",
                f"{row.inside:.{digits}f} {row.measure}", f"{row.off:.{digits}f} {row.measure}",
                near, f"{row.ratio_of_means:.3f}", f"{row.mean_of_ratios:.3f}",
                str(row.diverged), f"{row.fields_per_s:,.1f}",
            ]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Fit, print the table, write it with the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--only", nargs="*", help="sources to fit, all if left out")
    arguments = parser.parse_args()
    sources = dict(EMBEDDED)
    for name in ("mnist", "cifar10"):
        path = getattr(arguments, name)
        if path is not None:
            sources[name] = [f"signals.path={path.resolve()}", *_CUT]
    rows: list[Row] = []
    for source, overrides in sources.items():
        if arguments.only and source not in arguments.only:
            continue
        preset = source.removesuffix("-64")
        for field in FIELDS:
            rows.append(fit_row(source, f"{preset}-{field}", overrides))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            record = {"machine": platform.processor() or platform.machine(),
                      "rows": [asdict(row) for row in rows]}  # fmt: skip
            files.write_text(arguments.out / "families.json", json.dumps(record, indent=1) + "\n")
    files.write_text(arguments.out / "families.md", table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
