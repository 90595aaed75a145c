"""Fit one shard: a range of signals, a pure function of signals, recipe and range."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.config import FitConfig
from fitting.engines import Block, Engine, FitProblem, choose_engine, reproducible_arithmetic
from fitting.losses import BCE, MSE
from fitting.plan import Shard
from fitting.quality import Evaluator, grid_psnr, grid_quality, shape_quality
from fitting.sampling import Windows
from nefbench.errors import ConfigError
from nefbench.seeding import Draws
from nefbench.signals import GridSignals, ShapeSignals, Signals
from nefbench.signals.shapes import PointSamples, ShapeSamples
from nefbench.signals.views import check_views, view_of
from nefbench.weights.parts import FieldRows, concatenate

STEPS_BETWEEN_CHECKS = 10
"""Steps after which fields that shall stop at a target quality are measured."""

_MOST_GROWTH = 10.0
"""Of the loss, against that of the start. The first steps of Adam are of full size whichever way
the gradient points: after a few of them a field may be worse than its start, and is no failure."""
_MOST_OUTSIDE, _MOST_INSIDE = 150_000, 100_000
"""Points of a shape outside and inside at most, repetitions included (fit-a-nef's numbers)."""


def problem_of(signals: Signals, config: FitConfig, device: str = "cpu") -> FitProblem:
    """What all fields of these signals have in common, for an engine.

    Raises:
        ConfigError: If the recipe asks for something that these signals do not have.
    """
    check_views(signals, config.views)
    spec = config.field.spec(signals.in_dim, signals.num_channels)
    if isinstance(signals, GridSignals):
        return FitProblem(config, spec, signals.coords.to(device), signals.num_channels)
    assert isinstance(signals, ShapeSignals)
    if config.until_psnr is not None:
        raise ConfigError("until_psnr: shapes have no PSNR; leave it out")
    if config.pixel_fraction != 1:
        raise ConfigError("pixel_fraction: shapes have no pixels; set points_per_step")
    ranges = _ranges(signals, config)
    # Every field brings its own points: these take no memory.
    coords = torch.zeros(1, 3, device=device).expand(sum(size for size, _ in ranges), 3)
    return FitProblem(
        config,
        spec,
        coords,
        signals.num_channels,
        BCE() if signals.quantity == "occupancy" else MSE(),
        Windows(ranges),
        has_own_points=True,
    )


def _ranges(signals: ShapeSignals, config: FitConfig) -> tuple[tuple[int, int], ...]:
    """Points outside and inside (or in all), and how many of them a step takes.

    No more than all steps together look at: the first ones of a longer order are the same.
    """
    taken = config.points_per_step
    if signals.quantity != "occupancy":
        return ((min(_MOST_OUTSIDE + _MOST_INSIDE, taken * config.num_steps), taken),)
    half = taken // 2
    most = half * config.num_steps
    return ((min(_MOST_OUTSIDE, most), half), (min(_MOST_INSIDE, most), half))


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
    """Fit the fields of a shard: ``fit_shard_series`` with the steps of the recipe alone."""
    (rows,) = fit_shard_series(
        signals, config, shard, (config.num_steps,), device=device, threads=threads,
        block_size=block_size, on_fields=on_fields, check_stop=check_stop,
    )  # fmt: skip
    return rows


def fit_shard_series(
    signals: Signals,
    config: FitConfig,
    shard: Shard,
    steps: Sequence[int],
    *,
    device: str = "cpu",
    threads: int = 1,
    block_size: int | None = None,
    on_fields: Callable[[int], None] = lambda _: None,
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[FieldRows, ...]:
    """Fit the fields of a shard once and keep what they are after several numbers of steps.

    Blocks are measured, and by some engines fitted, in one shape, the last one padded with copies
    of its first field, so a field's bits do not depend on where it stands.

    Args:
        signals: What to fit.
        config: The recipe.
        shard: Which fields.
        steps: Numbers of steps, ascending; the last one is that of the recipe.
        device: Where to compute.
        threads: Cores for the engine; the rows do not depend on it.
        block_size: Fields per block; the engine's rule if left out.
        on_fields: Told how many fields were finished after every block.
        check_stop: Called often; raises to abandon the shard.

    Returns:
        Rows on the CPU, one table per number of steps. A field is ``diverged`` when its weights or
        loss are not finite, or its loss over all points is above ten times that of its start.
    """
    config = dataclasses.replace(config, seed=config.seed + shard.refit, num_refits=1)
    problem = problem_of(signals, config, device)
    engine = choose_engine(config.engine, problem)
    size = block_size or engine.block_size(problem)
    series: list[list[FieldRows]] = [[] for _ in steps]
    with reproducible_arithmetic():
        for first in range(0, len(shard.signals), size):
            positions = shard.signals[first : first + size]
            work = _work_on(signals, problem, positions, shard.view, size)
            first_loss = work.loss(_padded(work.block.start, size))
            fitted = _fit_block(engine, problem, work, size, steps, threads, check_stop)
            for blocks, (rows, num_steps) in zip(series, fitted, strict=True):
                blocks.append(
                    _described(
                        signals, problem, work, first_loss, rows, num_steps, positions, shard
                    )
                )
            on_fields(len(positions))
    return tuple(concatenate(blocks) for blocks in series)


@dataclass(frozen=True)
class _Work:
    """A block with what it takes to measure it; measured rows are padded to full blocks.

    Attributes:
        block: The fields, as many as there are.
        loss: Rows to their loss over all points.
        measure: Rows to that loss and every quality column.
        psnr: Rows to their PSNR in dB, where there is one.
    """

    block: Block
    loss: Callable[[Tensor], Tensor]
    measure: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
    psnr: Callable[[Tensor], Tensor] | None = None


def _work_on(
    signals: Signals, problem: FitProblem, positions: range, view: int, size: int
) -> _Work:
    config, device = problem.config, problem.coords.device
    indices = signals.indices[list(positions)].tolist()
    draws = Draws(config.seed, tuple(indices), view)
    start = config.init.rows(config.field, signals.in_dim, signals.num_channels, draws)
    start = start.to(device)
    evaluator = Evaluator(config.field, problem.spec)
    if isinstance(signals, GridSignals):
        raw = signals.raw_values(positions)
        if config.views is not None:
            raw = view_of(raw, signals.grid_shape, config.views, seed=config.seed,
                          indices=indices, view=view)  # fmt: skip
        return _work_on_grids(signals, problem, evaluator, start, raw.to(device), size)
    assert isinstance(signals, ShapeSignals)
    return _work_on_shapes(signals, problem, evaluator, start, positions, size)


def _work_on_grids(
    signals: GridSignals,
    problem: FitProblem,
    evaluator: Evaluator,
    start: Tensor,
    raw: Tensor,
    size: int,
) -> _Work:
    targets = signals.normalise(raw)
    all_raw, all_targets = _padded(raw, size), _padded(targets, size)

    def values_of(rows: Tensor) -> Tensor:
        return evaluator.at(rows, problem.coords)

    def measure(rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        values = values_of(rows)
        quality = grid_quality(signals, evaluator, rows, all_raw, values)
        return problem.loss.value(values, all_targets), quality

    return _Work(
        block=Block(start, targets),
        loss=lambda rows: problem.loss.value(values_of(rows), all_targets),
        measure=measure,
        psnr=lambda rows: grid_psnr(signals, all_raw, values_of(rows)),
    )


def _work_on_shapes(
    signals: ShapeSignals,
    problem: FitProblem,
    evaluator: Evaluator,
    start: Tensor,
    positions: range,
    size: int,
) -> _Work:
    device = problem.coords.device
    assert isinstance(problem.sampling, Windows)
    sizes = [count for count, _ in problem.sampling.ranges]
    pool = signals.pool(positions, problem.config.seed, sizes)
    fitted = _padded_samples(pool.samples, size, device)
    held_out = _padded_samples(signals.read(positions, "held-out"), size, device)
    targets = signals.normalise(fitted.all.values[..., None])

    def values_of(rows: Tensor) -> Tensor:
        return evaluator.at(rows, fitted.all.points)

    def measure(rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        values = values_of(rows)
        uniform = values[:, : fitted.uniform.points.shape[1]]
        quality = shape_quality(signals, evaluator, rows, fitted.uniform, uniform, held_out)
        return problem.loss.value(values, targets), quality

    return _Work(
        block=Block(start, pool.targets.to(device), pool.coords.to(device)),
        loss=lambda rows: problem.loss.value(values_of(rows), targets),
        measure=measure,
    )


def _padded_samples(samples: ShapeSamples, size: int, device: torch.device) -> ShapeSamples:
    def padded(part: PointSamples) -> PointSamples:
        points, values = (_padded(some, size).to(device) for some in (part.points, part.values))
        return PointSamples(points, values)

    return ShapeSamples(padded(samples.uniform), padded(samples.near_surface))


def _fit_block(
    engine: Engine,
    problem: FitProblem,
    work: _Work,
    size: int,
    steps: Sequence[int],
    threads: int,
    check_stop: Callable[[], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a full block of rows, and the steps that each took, for every number of steps."""
    block, config = work.block, problem.config
    if engine.needs_full_blocks:
        coords = None if block.coords is None else _padded(block.coords, size)
        block = Block(_padded(block.start, size), _padded(block.targets, size), coords)
    run = engine.start(problem, block)
    if config.until_psnr is None or work.psnr is None:
        for step in steps:
            run.advance(step, threads=threads, check_stop=check_stop)
            yield _padded(run.rows(), size), torch.full((size,), step)
        return
    num_steps = torch.full((size,), config.num_steps)
    count = len(block.start)
    active = torch.ones(count, dtype=torch.bool)
    step = 0
    while step < config.num_steps and bool(active.any()):
        step = min(step + STEPS_BETWEEN_CHECKS, config.num_steps)
        run.advance(step, threads=threads, check_stop=check_stop)
        quality = work.psnr(_padded(run.rows(), size))[:count].cpu()
        reached = active & (quality >= config.until_psnr)
        num_steps[:count][reached] = step
        active &= ~reached
        run.freeze(reached)
    yield _padded(run.rows(), size), num_steps


def _described(
    signals: Signals,
    problem: FitProblem,
    work: _Work,
    first_loss: Tensor,
    rows: Tensor,
    num_steps: Tensor,
    positions: range,
    shard: Shard,
) -> FieldRows:
    """Measure a full block of rows and say where they come from."""
    count = len(positions)
    chosen = list(positions)
    loss, quality = work.measure(rows)
    diverged = ~(rows.isfinite().all(1) & loss.isfinite() & (loss <= _MOST_GROWTH * first_loss))
    return FieldRows(
        weights=rows[:count].cpu(),
        signal_index=signals.indices[chosen],
        init_seed=torch.full((count,), problem.config.seed),
        loss=loss[:count].cpu(),
        status=tuple("diverged" if bad else "ok" for bad in diverged[:count].tolist()),
        labels=None if signals.labels is None else signals.labels[chosen],
        quality={name: value[:count].cpu() for name, value in quality.items()},
        provenance={
            "view": torch.full((count,), shard.view),
            "num_steps": num_steps[:count],
        },
        properties={name: numbers[chosen] for name, numbers in signals.properties.items()},
    )


def _padded(values: Tensor, size: int) -> Tensor:
    """Append copies of the first entry until there are ``size``."""
    return torch.cat([values, values[:1].expand(size - len(values), *values.shape[1:])])
