"""Every model on the same fields with the same processor time: accuracy, parameters, throughput.

Run ``python benchmarks/zoo.py --out benchmarks/zoo --mnist FOLDER`` (a Hub repository on disk;
without it the embedded digits alone). Fields are fitted on first use and kept in ``--work``, and so
is the result of every training: a run that was stopped is continued by the same command, what the
record in ``--out`` already has is not repeated (delete it to measure anew), and ``--shard 0/2``
with ``--shard 1/2`` share the work between two processes.

A training gets the processor time of its set of fields: the time of an epoch is measured on some of
the rows, then as many whole epochs are run as come nearest (a model that cannot read every row once
in that time reads the first ones), with a warm-up over a tenth of the steps (at most 1,000) and a
cosine to zero. One thread each, so what else the machine does matters little. Choice of the epoch
by validation, test once, as always; the last evaluations are not part of the budget.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from classifiers import ClassifierConfig, Examples, examples_from_dataset, train_on_examples
from classifiers.examples import LabelledRows
from fitting import Automatic, run_fit
from nefbench import files
from nefbench.machine import processor_name
from nefbench.weights import load_neural_dataset
from studies.recipes import load_classifier_config, load_fit_recipe

SEEDS = (0, 1, 2)
_CUT = ["signals.train=train[:10000]", "signals.validation=train[10000:11000]",
        "signals.test=test[:2000]"]  # fmt: skip
_TIMED_ROWS = 640


@dataclass(frozen=True)
class Fields:
    """A set of fields: a preset of ``nefbench fit``, its overrides, seconds per training.

    Where ``models`` are named, only these are trained; where ``num_seeds`` is, only so many times.
    """

    preset: str
    overrides: tuple[str, ...]
    budget_s: float
    models: tuple[str, ...] | None = None
    num_seeds: int = len(SEEDS)

    @property
    def needs_mnist(self) -> bool:
        """Whether the signals are not embedded."""
        return self.preset.startswith("mnist")


RANDOM = "init.kind=random"
SETS = {
    "mnist siren random": Fields("mnist-siren", (*_CUT, RANDOM), 120),
    "mnist siren random, long": Fields(
        "mnist-siren", (*_CUT, RANDOM), 600, models=("ng-t", "scale-gmn"), num_seeds=1
    ),
    "mnist siren shared": Fields("mnist-siren", tuple(_CUT), 30),
    "mnist fouriernet shared": Fields("mnist-fouriernet", (*_CUT, "num_steps=200"), 30),
    "mnist rffnet shared": Fields("mnist-rffnet", (*_CUT, "num_steps=400"), 30),
    "digits siren random": Fields("digits-siren", (RANDOM,), 20),
    "digits siren shared": Fields("digits-siren", (), 20),
}
COMMON = ("batch_size=64", "learning_rate=1e-3", "noise_std=0.0", "on_nan=stop")
MOVED = "augmentation={translation=0.1, rotation=12.0, scale=0.1}"
"""Signals are moved a little where fields start at random, for every model alike."""
_FREQUENCIES = "model.num_frequencies=32"
MODELS: dict[str, tuple[str, ...]] = {
    "mlp": ("mlp",),
    "mlp, aligned": ("mlp-aligned",),
    "gnn": (
        "gnn", "model.hidden_dim=32", "model.node_mlp_dims=[64, 64]", "model.edge_mlp_dims=[32]",
    ),
    "ng-gnn": ("ng-gnn", _FREQUENCIES),
    "ng-gnn, 64 probes": ("ng-gnn-probes", _FREQUENCIES),
    "ng-t": (
        "ng-t", _FREQUENCIES, "model.node_dim=32", "model.edge_dim=16", "model.attention_dim=64",
        "model.num_heads=4", "model.edges=present",
    ),
    "dws, ds": ("dws-ds", "model.hidden_dim=16"),
    "dws, sab": ("dws", "model.hidden_dim=16", "model.num_heads=4", "model.num_hidden=2"),
    "nfn": ("nfn", "model.channels=[32, 32, 32]", "model.head_dims=[128]", _FREQUENCIES),
    "scale-gmn": ("scale-gmn-small",),
    "inr2vec": (
        "inr2vec", "model.encoder_dims=[128, 128, 256]", "model.embedding_dim=256",
        "model.classifier_dims=[128]",
    ),
    "phase-gmn": ("phase-gmn",),
    "phase-gmn, 92k": ("phase-gmn", "model.hidden_dim=74", "model.head_dims=[128]"),
    "phase-gmn, 66k": ("phase-gmn", "model.hidden_dim=60", "model.head_dims=[128]"),
    "probing": ("probing",),
    "probegen": ("probegen",),
    "phase-probes": ("phase-probes",),
}  # fmt: skip
"""Preset of ``nefbench train`` and overrides, by the name in the table."""


SIREN_ONLY = ("phase-gmn", "phase-probes")
"""Models built on a symmetry that other fields do not have."""
RANDOM_MNIST_ONLY = ("phase-gmn, 92k", "phase-gmn, 66k")
"""Models of as many parameters as ng-t and scale-gmn, for the hardest set alone."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One training."""

    fields: str
    model: str
    seed: int
    budget_s: float
    cpu_s: float
    num_epochs: int
    num_rows: int
    num_parameters: int
    access: str
    samples_per_s: float
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    best_epoch: int


def main() -> None:
    """Train what has no result yet; write the table when nothing is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/zoo"))
    parser.add_argument("--work", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--only", nargs="*", help="Models; all if left out.")
    parser.add_argument("--sets", nargs="*", help="Sets of fields; all if left out.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    index, count = map(int, arguments.shard.split("/"))
    jobs = [
        (name, model, seed)
        for seed in SEEDS
        for name, fields in SETS.items()
        for model in MODELS
        if (arguments.mnist or not fields.needs_mnist)
        and model in (arguments.only or MODELS)
        and name in (arguments.sets or SETS)
        and seed in SEEDS[: fields.num_seeds]
        and is_asked(name, model)
    ]
    known = recorded(arguments.out)
    for name, model, seed in jobs[index::count]:
        path = arguments.work / "results" / f"{name} {model} {seed}.json".replace(" ", "-")
        if (name, model, seed) not in known and not path.exists():
            examples = open_fields(name, arguments.work, arguments.mnist)
            result = train(name, examples, model, seed)
            files.write_json(path, dataclasses.asdict(result))
            print(
                f"{name:26s} {model:20s} seed {seed}: test {result.test_accuracy:.4f}, "
                f"{result.num_epochs} epochs, {result.cpu_s:.0f} s",
                flush=True,
            )
    for path in sorted((arguments.work / "results").glob("*.json")):
        result = Result(**json.loads(path.read_text(encoding="utf-8")))
        known[result.fields, result.model, result.seed] = result
    write([known[key] for key in sorted(known)], arguments.out)


def is_asked(name: str, model: str) -> bool:
    """Whether a model is trained on a set of fields."""
    models = SETS[name].models
    if models is not None:
        return model in models
    if model in RANDOM_MNIST_ONLY:
        return name == "mnist siren random"
    return " siren " in name or model not in SIREN_ONLY


def recorded(out: Path) -> dict[tuple[str, str, int], Result]:
    """Read the results of an earlier record, by fields, model and seed."""
    path = out / "zoo.json"
    if not path.exists():
        return {}
    results = [Result(**item) for item in json.loads(path.read_text(encoding="utf-8"))["results"]]
    return {(result.fields, result.model, result.seed): result for result in results}


def open_fields(name: str, work: Path, mnist: Path | None) -> Examples:
    """Fit a set of fields if it is not there yet; return it for classification."""
    fields = SETS[name]
    overrides = list(fields.overrides)
    if fields.needs_mnist:
        overrides.append(f"signals.path={mnist}")
    recipe = load_fit_recipe(fields.preset, overrides)
    first = next(
        n for n, f in SETS.items() if f.overrides == fields.overrides and f.preset == fields.preset
    )
    folder = work / first.replace(" ", "-")
    if not (folder / "nefbench.json").exists() or not load_neural_dataset(folder).entry.is_complete:
        run_fit(recipe.signals.open(), recipe.fit_config, folder, executor=Automatic())
    return examples_from_dataset(load_neural_dataset(folder))


def train(name: str, examples: Examples, model: str, seed: int) -> Result:
    """Train once within the processor time of the set."""
    budget = SETS[name].budget_s
    preset, *overrides = MODELS[model]
    moved = MOVED if RANDOM in SETS[name].overrides else "augmentation={}"
    config = load_classifier_config(preset, [*COMMON, moved, *overrides])
    per_row = seconds_per_row(examples, config)
    examples = first_rows(examples, int(budget / per_row))
    num_rows = len(examples.splits["train"])
    num_steps = num_rows // config.batch_size
    num_epochs = max(1, round(budget / (per_row * num_rows)))
    config = dataclasses.replace(
        config,
        seeds=(seed,),
        num_epochs=num_epochs,
        patience=None,
        schedule="cosine",
        warmup_steps=min(1000, num_epochs * num_steps // 10),
    )
    begin = time.process_time()
    report = train_on_examples(examples, config)
    (result,) = report.results
    return Result(
        fields=name,
        model=model,
        seed=seed,
        budget_s=budget,
        cpu_s=time.process_time() - begin,
        num_epochs=num_epochs,
        num_rows=num_rows,
        num_parameters=report.num_parameters,
        access=config.model.access,
        samples_per_s=1 / per_row,
        train_accuracy=result.train_accuracy,
        validation_accuracy=result.validation_accuracy,
        test_accuracy=result.test_accuracy,
        best_epoch=result.best_epoch,
    )


def first_rows(examples: Examples, num_rows: int) -> Examples:
    """Return the examples with no more than so many training rows."""
    train = examples.splits["train"]
    part = LabelledRows(train.rows[:num_rows], train.labels[:num_rows])
    return dataclasses.replace(examples, splits={**examples.splits, "train": part})


def seconds_per_row(examples: Examples, config: ClassifierConfig) -> float:
    """Return the processor time per training row and epoch, from the trainer on some of the rows.

    Everything is in it: augmentation, step, and validation in proportion.
    """
    train = examples.splits["train"]
    share = _TIMED_ROWS / len(train)
    splits = {
        name: LabelledRows(part.rows[:size], part.labels[:size])
        for name, part in examples.splits.items()
        for size in [max(2, round(share * len(part)))]
    }
    some = dataclasses.replace(examples, splits=splits)
    settings = dataclasses.replace(config, seeds=(0,), num_epochs=3, patience=None)
    times = []
    before = time.process_time()

    def note(*_: object) -> None:
        nonlocal before
        now = time.process_time()
        times.append(now - before)
        before = now

    train_on_examples(some, settings, on_epoch=note)
    return min(times[1:]) / len(splits["train"])


def write(results: list[Result], out: Path) -> None:
    """Write every result, and the table."""
    files.write_json(
        out / "zoo.json",
        {
            "processor": processor_name(),
            "torch": torch.__version__,
            "results": [dataclasses.asdict(result) for result in results],
        },
    )
    files.write_bytes(out / "zoo.md", table(results).encode())


def table(results: list[Result]) -> str:
    """Return the accuracies as Markdown: models down, sets of fields across.

    Models that look at what fields compute, instead of at weights, stand apart.
    """
    names = [name for name in SETS if any(r.fields == name for r in results)]
    header = ["parameters", "samples/s", *names]
    parts = []
    for access, title in (("weights", "reads weights"), ("function", "evaluates fields")):
        lines = [f"| {title} | {' | '.join(header)} |", f"|---|{'--:|' * len(header)}"]
        for model in MODELS:
            own = [r for r in results if r.model == model and r.access == access]
            if own:
                lines.append(f"| {' | '.join([model, *_cells(own, names)])} |")
        parts.append("\n".join(lines))
    seconds = ", ".join(f"{name} {SETS[name].budget_s:.0f} s" for name in names)
    return (
        "\n\n".join(parts)
        + f"\n\nTest accuracy in percent, mean ± s.d. over {_counts(results)} seeds. Processor "
        f"time of one training, one core: {seconds}. "
        f"Parameters and speed are those on the first set.\n"
    )


def _cells(own: list[Result], names: list[str]) -> list[str]:
    place = next(name for name in names if any(r.fields == name for r in own))
    first = [r for r in own if r.fields == place]
    rate = statistics.median(r.samples_per_s for r in first)
    cells = [f"{first[0].num_parameters:,}", f"{rate:,.0f}"]
    for name in names:
        found = [100 * r.test_accuracy for r in own if r.fields == name]
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        cells.append(f"{statistics.fmean(found):.1f}{spread}" if found else "-")
    return cells


def _counts(results: list[Result]) -> str:
    """Say behind how many trainings a cell stands, where that differs."""
    cells: dict[tuple[str, str], int] = {}
    for result in results:
        cells[result.model, result.fields] = cells.get((result.model, result.fields), 0) + 1
    counts = sorted(set(cells.values()))
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


if __name__ == "__main__":
    main()
