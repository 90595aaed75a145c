"""Field-steps per second and peak memory of the generic engine, against a loop over single fields.

    python benchmarks/fit_engine.py [--json FILE]

Throughput is the median of five repetitions on one core; the baseline, one field after another with
``torch.optim.Adam``, runs in the same command. Memory is the peak of a fresh process that fits N
fields, N growing tenfold; values are made when they are read, so only the fit is counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fitting import FitConfig, run_fit
from fitting.engines import Block, FitProblem, VmappedEngine, reproducible_arithmetic
from nefbench.fields import FieldConfig, FourierNet, RFFNet, Siren
from nefbench.seeding import random_words
from nefbench.signals import Signals, Split

GRIDS = {"8x8": (8, 8), "28x28": (28, 28)}
FIELDS: dict[str, FieldConfig] = {
    "siren 3x32": Siren(omega_0=9.0),
    "rffnet 5x32": RFFNet(num_layers=5, std=0.1),
    "fouriernet 4x32": FourierNet(),
}
REPETITIONS = 5
SECONDS = 0.5
MEMORY_BLOCKS = (1, 10, 100)


@dataclass(frozen=True)
class DrawnValues:
    """Noise images, a function of their position."""

    count: int
    num_points: int

    def __len__(self) -> int:
        return self.count

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return values ``[n, Q, 1]`` in [0, 1]."""
        words = random_words(0, "benchmark", list(positions), self.num_points)
        return torch.from_numpy(words.astype("float32") / 2**32)[..., None]


def drawn_signals(count: int, grid: tuple[int, int]) -> Signals:
    """Return signals that take no memory."""
    return Signals(
        name="noise",
        source="drawn",
        grid_shape=grid,
        values=DrawnValues(count, grid[0] * grid[1]),
        indices=torch.arange(count),
        splits=(Split("train", 0, count),),
        mean=(0.5,),
        std=(0.3,),
    )


def measure(step: Callable[[int], None]) -> float:
    """Return steps per second, the median of five repetitions of at least half a second."""
    step(3)
    begin = time.perf_counter()
    step(3)
    num_steps = max(3, int(SECONDS / (time.perf_counter() - begin) * 3))
    rates = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        step(num_steps)
        rates.append(num_steps / (time.perf_counter() - begin))
    return statistics.median(rates)


def block_size(field: FieldConfig, grid: tuple[int, int]) -> int:
    """Fields that the engine takes at once."""
    problem = FitProblem(FitConfig(field=field), field.spec(2, 1), drawn_signals(1, grid).coords, 1)
    return VmappedEngine().block_size(problem)


def batched_rate(field: FieldConfig, grid: tuple[int, int]) -> float:
    """Field-steps per second of the generic engine on one core."""
    size = block_size(field, grid)
    probe = drawn_signals(size, grid)
    targets = probe.targets(range(size))
    start = FitConfig(field=field).init.rows(field, 2, 1, 0, range(size))

    def step(num_steps: int) -> None:
        config = FitConfig(field=field, num_steps=num_steps)
        problem = FitProblem(config, field.spec(2, 1), probe.coords, 1)
        VmappedEngine().fit(problem, Block(start, targets))

    return measure(step) * size


def sequential_rate(field: FieldConfig, grid: tuple[int, int]) -> float:
    """Field-steps per second of one field alone with autograd and ``torch.optim.Adam``."""
    probe = drawn_signals(1, grid)
    spec = field.spec(2, 1)
    target = probe.targets([0])[0]

    def step(num_steps: int) -> None:
        row = FitConfig(field=field).init.rows(field, 2, 1, 0, [0])[0].requires_grad_()
        optimizer = torch.optim.Adam([row], lr=1e-3)
        for _ in range(num_steps):
            optimizer.zero_grad()
            loss = (field.apply(spec.unflatten(row), probe.coords) - target).square().mean()
            loss.backward()
            optimizer.step()

    return measure(step)


def peak_memory(count: int, grid: tuple[int, int]) -> int:
    """Peak resident memory in MB of a fresh process that fits ``count`` SIRENs for two steps."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return int(pool.apply(_fit_and_report, (count, grid)))


def _fit_and_report(count: int, grid: tuple[int, int]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        config = FitConfig(field=FIELDS["siren 3x32"], num_steps=2)
        run_fit(drawn_signals(count, grid), config, Path(folder) / "out")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure_throughput() -> list[dict[str, Any]]:
    """Print and return field-steps per second for every field and grid."""
    print(f"{'field':<18}{'grid':<8}{'block':>6}{'engine fs/s':>14}{'one by one':>12}{'ratio':>8}")
    results = []
    for name, field in FIELDS.items():
        for grid_name, grid in GRIDS.items():
            with reproducible_arithmetic():
                rate, alone = batched_rate(field, grid), sequential_rate(field, grid)
            size, ratio = block_size(field, grid), rate / alone
            print(f"{name:<18}{grid_name:<8}{size:>6}{rate:>14,.0f}{alone:>12,.0f}{ratio:>7.1f}x")
            results.append(
                {"field": name, "grid": grid_name, "block": size, "fs_per_s": round(rate),
                 "one_by_one_fs_per_s": round(alone)}
            )  # fmt: skip
    return results


def measure_memory() -> list[dict[str, Any]]:
    """Print and return peak memory for growing numbers of fields."""
    print(f"\n{'grid':<8}{'fields':>8}{'peak memory MB':>16}   (SIREN 3x32, 2 steps)")
    results = []
    for grid_name, grid in GRIDS.items():
        for blocks in MEMORY_BLOCKS:
            count = block_size(FIELDS["siren 3x32"], grid) * blocks
            peak = peak_memory(count, grid)
            print(f"{grid_name:<8}{count:>8}{peak:>16}")
            results.append({"grid": grid_name, "fields": count, "peak_mb": peak})
    return results


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, torch {torch.__version__}, one core"
    print(f"{machine}\n")
    results = {
        "machine": machine,
        "throughput": measure_throughput(),
        "memory": measure_memory(),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
