"""Every model on the same fields with the same processor time: accuracy, parameters, throughput.

Run ``python benchmarks/classifiers.py --out benchmarks/classifiers --mnist FOLDER`` (a Hub
repository on disk; without it the embedded digits alone). Fields are fitted on first use and kept
in ``--work``, and so is the result of every training: a run that was stopped is continued by the
same command, and ``--shard 0/2`` with ``--shard 1/2`` share the work between two processes.

A training gets the processor time of its set of fields: the time of a step and of a validation is
measured first, then as many whole epochs are run as fit, at least one, with a warm-up over a tenth
of the steps (at most 1,000) and a cosine to zero. One thread each, so what else the machine does
matters little. Choice of the epoch by validation, test once, as always.
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
from torch.nn import functional

from classifiers import ClassifierConfig, Examples, examples_from_dataset, train_on_examples
from classifiers.reader import build_reader
from fitting import Automatic, run_fit
from nefbench import files
from nefbench.machine import processor_name
from nefbench.weights import load_neural_dataset
from studies.recipes import load_classifier_config, load_fit_recipe

SEEDS = (0, 1, 2)
_CUT = ["signals.train=train[:10000]", "signals.validation=train[10000:11000]",
        "signals.test=test[:2000]"]  # fmt: skip
_TIMED_STEPS = 8


@dataclass(frozen=True)
class Fields:
    """A set of fields: a preset of ``nefbench fit``, its overrides, seconds per training."""

    preset: str
    overrides: tuple[str, ...]
    budget_s: float

    @property
    def needs_mnist(self) -> bool:
        """Whether the signals are not embedded."""
        return self.preset.startswith("mnist")


RANDOM = "init.kind=random"
SETS = {
    "mnist siren random": Fields("mnist-siren", (*_CUT, RANDOM), 120),
    "mnist siren shared": Fields("mnist-siren", tuple(_CUT), 40),
    "mnist fouriernet shared": Fields("mnist-fouriernet", (*_CUT, "num_steps=200"), 40),
    "mnist rffnet shared": Fields("mnist-rffnet", (*_CUT, "num_steps=400"), 40),
    "digits siren random": Fields("digits-siren", (RANDOM,), 40),
    "digits siren shared": Fields("digits-siren", (), 20),
}
MODELS: dict[str, tuple[str, ...]] = {
    "mlp": ("mlp",),
}
"""Preset of ``nefbench train`` and overrides, by the name in the table."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One training."""

    fields: str
    model: str
    seed: int
    budget_s: float
    cpu_s: float
    num_epochs: int
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
    parser.add_argument("--out", type=Path, default=Path("benchmarks/classifiers"))
    parser.add_argument("--work", type=Path, default=Path("runs/bench-classifiers"))
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
    ]
    for name, model, seed in jobs[index::count]:
        path = arguments.work / "results" / f"{name} {model} {seed}.json".replace(" ", "-")
        if not path.exists():
            examples = open_fields(name, arguments.work, arguments.mnist)
            result = train(name, examples, model, seed)
            files.write_json(path, dataclasses.asdict(result))
            print(
                f"{name:26s} {model:20s} seed {seed}: test {result.test_accuracy:.4f}, "
                f"{result.num_epochs} epochs, {result.cpu_s:.0f} s",
                flush=True,
            )
    results = [
        Result(**json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((arguments.work / "results").glob("*.json"))
    ]
    write(results, arguments.out)


def open_fields(name: str, work: Path, mnist: Path | None) -> Examples:
    """Fit a set of fields if it is not there yet; return it for classification."""
    fields = SETS[name]
    overrides = list(fields.overrides)
    if fields.needs_mnist:
        overrides.append(f"signals.path={mnist}")
    recipe = load_fit_recipe(fields.preset, overrides)
    folder = work / name.replace(" ", "-")
    if not (folder / "nefbench.json").exists() or not load_neural_dataset(folder).entry.is_complete:
        run_fit(recipe.signals.open(), recipe.fit_config, folder, executor=Automatic())
    return examples_from_dataset(load_neural_dataset(folder))


def train(name: str, examples: Examples, model: str, seed: int) -> Result:
    """Train once within the processor time of the set."""
    budget = SETS[name].budget_s
    preset, *overrides = MODELS[model]
    config = load_classifier_config(preset, overrides)
    num_steps = len(examples.splits["train"]) // config.batch_size
    per_step, per_row = measure(examples, config)
    per_epoch = num_steps * per_step + len(examples.splits["validation"]) * per_row
    num_epochs = max(1, int(budget / per_epoch))
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
        num_parameters=report.num_parameters,
        access=config.model.access,
        samples_per_s=config.batch_size / per_step,
        train_accuracy=result.train_accuracy,
        validation_accuracy=result.validation_accuracy,
        test_accuracy=result.test_accuracy,
        best_epoch=result.best_epoch,
    )


def measure(examples: Examples, config: ClassifierConfig) -> tuple[float, float]:
    """Return seconds of processor time of a training step, and of one row in evaluation."""
    torch.manual_seed(0)
    part = examples.splits["train"]
    rows, labels = part.rows[: config.batch_size], part.labels[: config.batch_size]
    reader = build_reader(config.model, examples.space, len(examples.class_names))
    reader.normalisation.measure(part.rows)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-4, fused=True)
    times = []
    for _ in range(_TIMED_STEPS):
        begin = time.process_time()
        loss = functional.cross_entropy(reader(rows), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.process_time() - begin)
    reader.eval()
    with torch.no_grad():
        begin = time.process_time()
        reader(rows)
        per_row = (time.process_time() - begin) / len(rows)
    return statistics.median(times[2:]), per_row


def write(results: list[Result], out: Path) -> None:
    """Write every result, and the table."""
    files.write_json(
        out / "classifiers.json",
        {
            "processor": processor_name(),
            "torch": torch.__version__,
            "results": [dataclasses.asdict(result) for result in results],
        },
    )
    files.write_bytes(out / "classifiers.md", table(results).encode())


def table(results: list[Result]) -> str:
    """Return the accuracies as Markdown: models down, sets of fields across."""
    names = [name for name in SETS if any(r.fields == name for r in results)]
    header = ["model", "parameters", "samples/s", *names]
    lines = [f"| {' | '.join(header)} |", f"|---|{'--:|' * (len(header) - 1)}"]
    for model in MODELS:
        own = [r for r in results if r.model == model]
        if not own:
            continue
        first = next((r for r in own if r.fields == names[0]), own[0])
        cells = [model, f"{first.num_parameters:,}", f"{first.samples_per_s:,.0f}"]
        for name in names:
            found = [100 * r.test_accuracy for r in own if r.fields == name]
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.fmean(found):.1f}{spread}" if found else "-")
        lines.append(f"| {' | '.join(cells)} |")
    seconds = ", ".join(f"{name} {SETS[name].budget_s:.0f} s" for name in names)
    lines += ["", f"Test accuracy in percent. Processor time of one training, one core: {seconds}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
