"""Fit one shard: a range of signals, a pure function of signals, recipe and range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.config import FitConfig
from fitting.engines import Block, FitProblem, choose_engine, reproducible_arithmetic
from nefbench.fields import evaluate
from nefbench.metrics import mse, psnr, ssim
from nefbench.signals import Signals
from nefbench.weights.parts import FieldRows, concatenate


@dataclass(frozen=True)
class Shard:
    """A half-open range of fields that becomes one part.

    Attributes:
        split: Name of the split that holds the range.
        start: First field.
        stop: One past the last field.
    """

    split: str
    start: int
    stop: int


def plan_shards(signals: Signals, part_rows: int) -> list[Shard]:
    """Cut every split into ranges of at most ``part_rows`` fields."""
    return [
        Shard(split.name, start, min(start + part_rows, split.stop))
        for split in signals.splits
        for start in range(split.start, split.stop, part_rows)
    ]


def problem_of(signals: Signals, config: FitConfig, device: str = "cpu") -> FitProblem:
    """What all fields of these signals have in common, for an engine."""
    spec = config.field.spec(signals.coords.shape[1], signals.num_channels)
    return FitProblem(config, spec, signals.coords.to(device), signals.num_channels)


def metric_names(signals: Signals) -> tuple[str, ...]:
    """Quality measures that apply to these signals."""
    return ("psnr_db", "mse", "ssim") if len(signals.grid_shape) == 2 else ("psnr_db", "mse")


def fit_shard(
    signals: Signals,
    config: FitConfig,
    shard: Shard,
    *,
    device: str = "cpu",
    threads: int = 1,
    block_size: int | None = None,
    on_fields: Callable[[int], None] = lambda _: None,
    check_stop: Callable[[], None] = lambda: None,
) -> FieldRows:
    """Fit the fields of a shard.

    Blocks are measured, and by some engines fitted, in one shape, the last one padded with copies
    of its first field, so a field's bits do not depend on where it stands.

    Args:
        signals: What to fit.
        config: The recipe.
        shard: Which signals.
        device: Where to compute.
        threads: Cores for the engine; the rows do not depend on it.
        block_size: Fields per block; the engine's rule if left out.
        on_fields: Told how many fields were finished after every block.
        check_stop: Called often; raises to abandon the shard.

    Returns:
        Rows on the CPU. A field is ``diverged`` when its weights or loss are not finite, or its
        loss over the whole grid is above that of its start.
    """
    problem = problem_of(signals, config, device)
    engine = choose_engine(config.engine, problem)
    size = block_size or engine.block_size(problem)
    blocks = []

    def fit(block: Block) -> Tensor:
        """Fit a block in the engine's terms, return as many rows as the block should have."""
        if engine.needs_full_blocks:
            block = Block(_padded(block.start, size), _padded(block.targets, size))
        rows = engine.fit(problem, block, threads=threads, check_stop=check_stop)
        return _padded(rows, size)

    with reproducible_arithmetic():
        for start in range(shard.start, shard.stop, size):
            positions = range(start, min(start + size, shard.stop))
            blocks.append(_fit_block(signals, problem, fit, positions, size))
            on_fields(len(positions))
    return concatenate(blocks)


def _fit_block(
    signals: Signals,
    problem: FitProblem,
    fit: Callable[[Block], Tensor],
    positions: range,
    size: int,
) -> FieldRows:
    config, device = problem.config, problem.coords.device
    indices = signals.indices[list(positions)]
    in_dim, out_dim = problem.coords.shape[1], signals.num_channels
    drawn = config.init.rows(config.field, in_dim, out_dim, config.seed, indices.tolist())
    start, targets = drawn.to(device), signals.targets(positions).to(device)
    rows = fit(Block(start, targets))
    start, targets = _padded(start, size), _padded(targets, size)
    with torch.no_grad():
        first_values = evaluate(config.field, problem.spec, start, problem.coords)
        values = evaluate(config.field, problem.spec, rows, problem.coords)
        first_loss, loss = (problem.loss.value(v, targets) for v in (first_values, values))
        quality = _quality(signals, targets, values)
    diverged = ~(rows.isfinite().all(1) & loss.isfinite() & (loss <= first_loss))
    count = len(positions)
    labels = None if signals.labels is None else signals.labels[list(positions)]
    return FieldRows(
        weights=rows[:count].cpu(),
        signal_index=indices,
        init_seed=torch.full((count,), config.seed),
        loss=loss[:count].cpu(),
        status=tuple("diverged" if bad else "ok" for bad in diverged[:count].tolist()),
        labels=labels,
        quality={name: value[:count].cpu() for name, value in quality.items()},
    )


def _padded(values: Tensor, size: int) -> Tensor:
    """Append copies of the first entry until there are ``size``."""
    return torch.cat([values, values[:1].expand(size - len(values), *values.shape[1:])])


def _quality(signals: Signals, targets: Tensor, values: Tensor) -> dict[str, Tensor]:
    """Measure reconstructions ``[B, Q, c]`` in raw values, clipped to [0, 1]."""
    truth = signals.denormalise(targets)
    estimate = signals.denormalise(values).clamp(0, 1)
    quality = {"psnr_db": psnr(truth, estimate), "mse": mse(truth, estimate)}
    if len(signals.grid_shape) == 2:
        height, width = signals.grid_shape
        quality["ssim"] = ssim(truth, estimate, (height, width))
    return quality
