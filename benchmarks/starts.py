"""What a learned start buys: quality of unseen signals after a few steps.

    python benchmarks/starts.py --out benchmarks/starts --mnist ../shared/data/mnist

Fields of test signals are fitted from the shared draw, from a draw each, and from starts learned on
training signals, with the optimizer of the recipe; with learned step sizes by gradient descent
too. Written: ``starts.json`` (everything), ``starts.csv`` (one line per point of a figure).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fitting import (
    Adam,
    FitConfig,
    FromFile,
    InitConfig,
    LearnedSGD,
    Meta,
    OptimizerConfig,
    Random,
    Shared,
    learn_start,
)
from fitting.bench.machine import describe_machine
from fitting.engines import Block, choose_engine, reproducible_arithmetic
from fitting.quality import Evaluator, grid_psnr
from fitting.shard import problem_of
from nefbench import files
from nefbench.config import config_to_mapping
from nefbench.fields import Siren
from nefbench.seeding import Draws
from nefbench.signals import DigitsConfig, GridSignals, ImagesConfig
from nefbench.weights.start_file import write_start_file

STEPS = (1, 2, 5, 15, 50)
SHOWN = (5, 15, 50)
FIELD = Siren(hidden_dim=32, num_layers=3, omega_0=9.0)


@dataclasses.dataclass(frozen=True)
class Point:
    """One start on one set of signals after one number of steps.

    Attributes:
        signals: Name of the signals.
        start: Where fields start.
        optimizer: What they are fitted with.
        num_steps: Steps of it.
        psnr_db: Median over test signals, per seed.
        worst_5_percent_db: Their 5 % quantile, per seed.
        learning_s: Wall time of learning the start, per seed; 0 if it is drawn.
    """

    signals: str
    start: str
    optimizer: str
    num_steps: int
    psnr_db: tuple[float, ...]
    worst_5_percent_db: tuple[float, ...]
    learning_s: tuple[float, ...]


def metas(outer_steps: int) -> dict[str, Meta]:
    """Starts to be learned, by what a table calls them."""
    return {
        "MAML": Meta(outer_steps=outer_steps),
        "FOMAML": Meta(algorithm="fomaml", outer_steps=outer_steps),
        "Reptile": Meta(algorithm="reptile", outer_steps=outer_steps),
        "MAML, step sizes": Meta(outer_steps=outer_steps, learn_step_sizes=True),
    }


def digits(num_train: int, num_test: int) -> GridSignals:
    """Digits of 8x8 pixels."""
    size = num_train + num_test + 1
    return DigitsConfig(max_signals=size, validation_size=1, test_size=num_test).open()


def mnist(folder: str, num_train: int, num_test: int) -> GridSignals:
    """Digits of 28x28 pixels."""
    return ImagesConfig(
        path=folder,
        name="mnist",
        train=f"train[:{num_train}]",
        validation=f"train[{num_train}:{num_train + 1}]",
        test=f"test[:{num_test}]",
        mean=(0.13066047,),
        std=(0.30810782,),
    ).open()


def qualities(
    signals: GridSignals, init: InitConfig, optimizer: OptimizerConfig, seed: int
) -> dict[int, tuple[float, float]]:
    """Median and 5 % quantile of the test signals' PSNR in dB after each number of steps."""
    config = FitConfig(field=FIELD, init=init, optimizer=optimizer, num_steps=max(STEPS), seed=seed)
    problem = problem_of(signals, config)
    engine = choose_engine(config.engine, problem)
    test = next(split for split in signals.splits if split.name == "test")
    positions = range(test.start, test.stop)
    raw = signals.raw_values(positions)
    indices = signals.indices[list(positions)].tolist()
    evaluator = Evaluator(FIELD, problem.spec)
    found = {}
    with reproducible_arithmetic():
        start = init.rows(FIELD, signals.in_dim, signals.num_channels, Draws(seed, tuple(indices)))
        run = engine.start(problem, Block(start, signals.normalise(raw)))
        for step in STEPS:
            run.advance(step)
            psnr = grid_psnr(signals, raw, evaluator.at(run.rows(), problem.coords)).double()
            psnr = psnr.nan_to_num(nan=-torch.inf)
            found[step] = (float(psnr.median()), float(psnr.quantile(0.05)))
    return found


def contenders(
    signals: GridSignals, seed: int, outer_steps: int, folder: Path
) -> dict[tuple[str, str], tuple[InitConfig, OptimizerConfig, float]]:
    """Name start and optimizer of every row of the table; starts are learned on the way."""
    rows: dict[tuple[str, str], tuple[InitConfig, OptimizerConfig, float]] = {
        ("shared", "adam"): (Shared(), Adam(), 0.0),
        ("random", "adam"): (Random(), Adam(), 0.0),
    }
    for name, meta in metas(outer_steps).items():
        begin = time.perf_counter()
        start = learn_start(signals, FitConfig(field=FIELD, init=meta, seed=seed))
        seconds = time.perf_counter() - begin
        path = folder / f"{signals.name}-{seed}-{len(rows)}.npz"
        write_start_file(path, start)
        rows[name, "adam"] = (FromFile(path=path), Adam(), seconds)
        if meta.learn_step_sizes:
            rows[name, "learned-sgd"] = (FromFile(path=path), LearnedSGD(path=path), seconds)
    return rows


def measure(signals: GridSignals, seeds: int, outer_steps: int) -> list[Point]:
    """Measure every start with every seed."""
    found: dict[tuple[str, str, int], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            rows = contenders(signals, seed, outer_steps, Path(folder))
            for (start, kind), (init, optimizer, seconds) in rows.items():
                for step, quality in qualities(signals, init, optimizer, seed).items():
                    found.setdefault((start, kind, step), []).append((*quality, seconds))
    return [
        Point(signals.name, start, kind, step, *map(tuple, zip(*values, strict=True)))
        for (start, kind, step), values in found.items()
    ]


def table(points: list[Point]) -> str:
    """Return a Markdown table: medians in dB, mean over seeds."""
    head = ["signals", "start", "optimizer", *(f"{step} steps" for step in SHOWN), "learned in"]
    lines = [head, ["---"] * 3 + ["---:"] * (len(SHOWN) + 1)]
    names = dict.fromkeys((point.signals, point.start, point.optimizer) for point in points)
    for name in names:
        by_step = {
            point.num_steps: point
            for point in points
            if (point.signals, point.start, point.optimizer) == name
        }
        seconds = statistics.mean(by_step[SHOWN[0]].learning_s)
        cells = [f"{statistics.mean(by_step[step].psnr_db):.1f} dB" for step in SHOWN]
        lines.append([*name, *cells, f"{seconds:.0f} s" if seconds else "-"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(folder: Path, points: list[Point], settings: dict[str, Any]) -> None:
    """Write the record and the numbers of a figure."""
    record = {
        "settings": settings,
        "machine": config_to_mapping(describe_machine("cpu")),
        "points": [dataclasses.asdict(point) for point in points],
    }
    files.write_json(folder / "starts.json", record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "signals",
            "start",
            "optimizer",
            "num_steps",
            "psnr_db",
            "psnr_db_sd",
            "worst_5_percent_db",
        ]
    )
    for p in points:
        spread = statistics.stdev(p.psnr_db) if len(p.psnr_db) > 1 else 0.0
        numbers = (statistics.mean(p.psnr_db), spread, statistics.mean(p.worst_5_percent_db))
        cells = [f"{number:.3f}" for number in numbers]
        writer.writerow([p.signals, p.start, p.optimizer, p.num_steps, *cells])
    files.write_text(folder / "starts.csv", text.getvalue())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--mnist", help="folder of MNIST; only digits if left out")
    parser.add_argument("--train", type=int, default=512, help="signals to learn starts from")
    parser.add_argument("--test", type=int, default=200, help="signals to fit")
    parser.add_argument("--outer-steps", type=int, default=Meta().outer_steps)
    parser.add_argument("--seeds", type=int, default=1, help="how often all of it is done")
    chosen = parser.parse_args()

    sources = [digits(chosen.train, chosen.test)]
    if chosen.mnist:
        sources.append(mnist(chosen.mnist, chosen.train, chosen.test))
    points: list[Point] = []
    for signals in sources:
        points += measure(signals, chosen.seeds, chosen.outer_steps)
    settings = {
        "field": config_to_mapping(FIELD),
        "optimizer": config_to_mapping(Adam()),
        "starts": {
            name: config_to_mapping(meta.filled_in())
            for name, meta in metas(chosen.outer_steps).items()
        },
        "num_train": chosen.train,
        "num_test": chosen.test,
        "seeds": chosen.seeds,
        "signals": {signals.name: signals.source for signals in sources},
    }
    write(chosen.out, points, settings)
    print(table(points))


if __name__ == "__main__":
    main()
