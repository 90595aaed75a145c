"""Learn a start: weights from which a few steps lead to any training signal.

See ``Meta`` for the algorithms. Draws depend on the seed and the number of the outer step alone:
which signals are fitted, and, where steps see only part of the points, which points.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from fitting.config import FitConfig
from fitting.engines import (
    Block,
    FitProblem,
    VmappedEngine,
    choose_engine,
    reproducible_arithmetic,
)
from fitting.engines.vmapped import loss_of, step_points
from fitting.inits import Meta, draw_rows
from fitting.meta_gradients import outer_gradients
from fitting.optimizers import Adam
from fitting.sampling import Windows
from fitting.shard import problem_of
from nefbench import files
from nefbench.config import config_to_mapping
from nefbench.errors import ConfigError, DatasetFormatError, SignalError
from nefbench.seeding import SHARED_INDEX, Draws, derive_seed, random_words
from nefbench.signals import GridSignals, ShapeSignals, Signals
from nefbench.spec import ParamSpec
from nefbench.weights.start_file import StartFile, bytes_of_json, npz_bytes, read_npz

logger = logging.getLogger(__name__)

_TASK_SPLIT = "train"
_STEPS_BETWEEN_CHECKPOINTS = 50
_SMALLEST_SHARE = 0.25
"""Of a block of compiled code that tasks must fill; eager code is faster below."""


def learn_start(
    signals: Signals,
    config: FitConfig,
    *,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: Path | None = None,
    block_size: int | None = None,
    on_step: Callable[[int, int, float], None] = lambda *_: None,
) -> StartFile:
    """Learn where the fields of these signals start; ``config.init`` says how.

    The tasks are training signals, as they are (no views).

    Args:
        signals: What will be fitted.
        config: The recipe, with a ``Meta`` start.
        device: Where to compute.
        threads: Cores for the engine of Reptile; the start does not depend on it.
        checkpoint: File that keeps the state every 50 outer steps, and from which it goes on.
        block_size: Signals at once, a matter of memory; a rule of the problem if left out, so that
            every run rounds alike.
        on_step: Told ``(outer steps done, outer steps, loss after the inner steps)``.

    Raises:
        ConfigError: If the recipe has another start, or learning diverges.
        SignalError: If there are no training signals.
    """
    if not isinstance(config.init, Meta):
        raise ConfigError(f"init: expected kind 'meta' to learn a start (got {config.init.kind!r})")
    meta = config.init.filled_in()
    config = dataclasses.replace(config, init=meta, until_psnr=None, views=None, num_refits=1)
    made = how_made(signals, config)
    tasks = Tasks(signals, config, device)
    with reproducible_arithmetic():
        learner: _Learner = (
            _Reptile(tasks, threads, block_size)
            if meta.algorithm == "reptile"
            else _GradientLearner(tasks, block_size)
        )
        first = _first_state(tasks)
        state = None if checkpoint is None else _read_checkpoint(checkpoint, made, first)
        state = state or first
        while state.step < meta.outer_steps:
            step = state.step + 1
            state, loss = learner.advance(state)
            if not (math.isfinite(loss) and bool(state.values.isfinite().all())):
                raise ConfigError(_why_diverged(meta, step, loss))
            if checkpoint is not None and step % _STEPS_BETWEEN_CHECKPOINTS == 0:
                _write_checkpoint(checkpoint, made, state)
            on_step(step, meta.outer_steps, loss)
    params, scales = state.values.cpu().split(1)
    step_sizes = meta.inner_learning_rate * scales * tasks.trainable.cpu()
    return StartFile(
        field=config.field,
        in_dim=signals.in_dim,
        out_dim=signals.num_channels,
        params=params,
        step_sizes=step_sizes if meta.learn_step_sizes else None,
        made=made,
    )


def how_made(signals: Signals, config: FitConfig) -> dict[str, Any]:
    """What a learned start depends on, apart from rounding, as plain data."""
    assert isinstance(config.init, Meta)
    meta = config.init.filled_in()
    keys = {"field", "init", "seed", "pixel_fraction", "points_per_step"}
    keys |= {"optimizer", "schedule"} if meta.algorithm == "reptile" else set()
    recipe = config_to_mapping(dataclasses.replace(config, init=meta))
    return {
        "fit": {key: value for key, value in recipe.items() if key in keys},
        "signals": {
            "name": signals.name,
            "fingerprint": signals.fingerprint,
            "mean": list(signals.mean),
            "std": list(signals.std),
        },
    }


@dataclass(frozen=True)
class Tasks:
    """The training signals with what one outer step sees of them.

    Attributes:
        signals: All signals.
        config: The recipe, with a ``Meta`` start that is filled in.
        device: Where to compute.
    """

    signals: Signals
    config: FitConfig
    device: str

    def __post_init__(self) -> None:
        if all(split.name != _TASK_SPLIT for split in self.signals.splits):
            raise SignalError(f"{self.signals.name}: no {_TASK_SPLIT} split to learn a start from")

    @property
    def meta(self) -> Meta:
        """How the start is learned."""
        assert isinstance(self.config.init, Meta)
        return self.config.init

    @property
    def spec(self) -> ParamSpec:
        """Names and shapes of a row."""
        return self.config.field.spec(self.signals.in_dim, self.signals.num_channels)

    @property
    def trainable(self) -> Tensor:
        """Boolean ``[P]``: the weights that may change."""
        mask = self.spec.trainable_mask()
        mask = torch.ones(self.spec.num_params, dtype=torch.bool) if mask is None else mask
        return mask.to(self.device)

    def problem(self, outer_step: int) -> FitProblem:
        """What the fields of an outer step have in common; its draws of points are its own."""
        return problem_of(
            self.signals,
            dataclasses.replace(
                self.config,
                seed=derive_seed(self.config.seed, "meta/points", outer_step),
                num_steps=self.meta.num_inner_steps + 1,
            ),
            self.device,
        )

    def block(self, outer_step: int, problem: FitProblem, params: Tensor) -> Block:
        """Return the tasks of an outer step, all of which start at ``params [P]``."""
        train = next(split for split in self.signals.splits if split.name == _TASK_SPLIT)
        count = self.meta.tasks_per_step
        words = random_words(self.config.seed, "meta/tasks", [SHARED_INDEX], count, outer_step)[0]
        positions = (words % np.uint64(len(train)) + np.uint64(train.start)).tolist()
        start = params.expand(count, -1)
        if isinstance(self.signals, GridSignals):
            return Block(start, self.signals.targets(positions).to(params.device))
        assert isinstance(self.signals, ShapeSignals)
        assert isinstance(problem.sampling, Windows)
        sizes = [size for size, _ in problem.sampling.ranges]
        pool = self.signals.pool(positions, problem.config.seed, sizes)
        return Block(start, pool.targets.to(params.device), pool.coords.to(params.device))


@dataclass(frozen=True)
class _State:
    """Where learning is.

    Attributes:
        step: Outer steps taken.
        values: The start, and the step sizes as multiples of the inner learning rate: ``[2, P]``.
        moments: Adam's, ``[2, P]`` each.
    """

    step: int
    values: Tensor
    moments: tuple[Tensor, Tensor]


class _Learner(Protocol):
    def advance(self, state: _State) -> tuple[_State, float]:
        """Take one outer step; returns the mean loss after the inner ones too."""


def _first_state(tasks: Tasks) -> _State:
    """The shared draw, and step sizes that are all the inner learning rate."""
    signals, config = tasks.signals, tasks.config
    draws = Draws(config.seed, (SHARED_INDEX,))
    shared = draw_rows(config.field, signals.in_dim, signals.num_channels, draws)
    values = torch.cat([shared, torch.ones_like(shared)]).to(tasks.device)
    return _State(0, values, (torch.zeros_like(values), torch.zeros_like(values)))


class _GradientLearner:
    """MAML and FOMAML: Adam along the mean gradient of the tasks."""

    def __init__(self, tasks: Tasks, block_size: int | None) -> None:
        self._tasks, self._meta = tasks, tasks.meta
        problem = tasks.problem(1)
        self._size = block_size or min(
            self._meta.tasks_per_step, VmappedEngine().block_size(problem)
        )
        self._adam = Adam(learning_rate=self._meta.outer_rate)
        self._loss = loss_of(tasks.config.field, tasks.spec, problem.loss)
        self._mask = tasks.trainable.float()

    def advance(self, state: _State) -> tuple[_State, float]:
        """Take one outer step; see ``_Learner.advance``."""
        step = state.step + 1
        params, scales = state.values
        problem = self._tasks.problem(step)
        block = self._tasks.block(step, problem, params)
        losses, for_params, for_sizes = self._gradients(problem, block, params, scales)
        if not self._meta.learn_step_sizes:
            for_sizes = torch.zeros_like(for_sizes)
        gradient = torch.stack(
            [for_params.mean(0), self._meta.inner_learning_rate * for_sizes.mean(0)]
        )
        values, moments = state.values.clone(), (state.moments[0].clone(), state.moments[1].clone())
        scalars = self._adam.scalars(step, self._adam.learning_rate)
        self._adam.update(values, gradient * self._mask, moments, scalars)
        return _State(step, values, moments), float(losses.mean())

    def _gradients(
        self, problem: FitProblem, block: Block, params: Tensor, scales: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``outer_gradients`` does for all tasks, computed in full blocks of them."""
        sizes = self._meta.inner_learning_rate * scales * self._mask
        first_order = self._meta.algorithm == "fomaml"
        count = len(block.targets)
        results = []
        for first in range(0, count, self._size):
            part = _part_of(block, first, self._size)
            steps = range(1, self._meta.num_inner_steps + 2)
            draws = [step_points(problem, part, step) for step in steps]
            results.append(
                outer_gradients(self._loss, params, sizes, draws, first_order=first_order)
            )
        losses, for_params, for_sizes = zip(*results, strict=True)
        return (
            torch.cat(losses)[:count],
            torch.cat(for_params)[:count],
            torch.cat(for_sizes)[:count],
        )


class _Reptile:
    """Fit the tasks as fields are fitted, and move towards the mean of their weights."""

    def __init__(self, tasks: Tasks, threads: int, block_size: int | None) -> None:
        self._tasks, self._meta, self._threads = tasks, tasks.meta, threads
        problem = self._inner_problem(tasks.problem(1))
        self._engine = choose_engine(tasks.config.engine, problem)
        if self._engine.name == "compiled":  # its code is for whole blocks, however few the tasks
            filled = self._meta.tasks_per_step / self._engine.block_size(problem)
            self._engine = self._engine if filled >= _SMALLEST_SHARE else VmappedEngine()
        self._size = block_size or min(self._meta.tasks_per_step, self._engine.block_size(problem))
        self._loss = loss_of(tasks.config.field, tasks.spec, problem.loss)
        self._engine.prepare(problem)

    def advance(self, state: _State) -> tuple[_State, float]:
        """Take one outer step; see ``_Learner.advance``."""
        step = state.step + 1
        params = state.values[0]
        problem = self._tasks.problem(step)
        block = self._tasks.block(step, problem, params)
        count = len(block.targets)
        rows, losses = [], []
        for first in range(0, count, self._size):
            part = _part_of(block, first, self._size)
            fitted = self._engine.fit(self._inner_problem(problem), part, threads=self._threads)
            coords, targets = step_points(problem, part, self._meta.num_inner_steps + 1)
            in_dims = (0, None if coords.dim() == 2 else 0, 0)
            rows.append(fitted)
            losses.append(vmap(self._loss, in_dims=in_dims)(fitted, coords, targets))
        mean = torch.cat(rows)[:count].mean(0)
        moved = params + self._meta.outer_rate * (mean - params)
        moved = torch.where(self._tasks.trainable, moved, params)  # means round
        values = torch.stack([moved, state.values[1]])
        return _State(step, values, state.moments), float(torch.cat(losses)[:count].mean())

    def _inner_problem(self, problem: FitProblem) -> FitProblem:
        """The same without the step that draws points for the loss afterwards."""
        config = dataclasses.replace(problem.config, num_steps=self._meta.num_inner_steps)
        return dataclasses.replace(problem, config=config)


def _part_of(block: Block, first: int, size: int) -> Block:
    """Return ``size`` tasks, copies of the first of them at the end if there are fewer."""

    def part(values: Tensor) -> Tensor:
        chosen = values[first : first + size]
        return torch.cat([chosen, chosen[:1].expand(size - len(chosen), *chosen.shape[1:])])

    coords = None if block.coords is None else part(block.coords)
    return Block(part(block.start), part(block.targets), coords)


def _why_diverged(meta: Meta, step: int, loss: float) -> str:
    inner = "optimizer.learning_rate" if meta.algorithm == "reptile" else "init.inner_learning_rate"
    return (
        f"meta-learning diverged in outer step {step} of {meta.outer_steps} (loss {loss:g}): "
        f"lower {inner} or init.outer_learning_rate (now {meta.outer_rate:g})"
    )


def _write_checkpoint(path: Path, made: dict[str, Any], state: _State) -> None:
    arrays = {
        "header": bytes_of_json({"made": made, "step": state.step}),
        "state": torch.stack([state.values, *state.moments]).cpu().numpy(),
    }
    files.write_bytes(path, npz_bytes(arrays))


def _read_checkpoint(path: Path, made: dict[str, Any], like: _State) -> _State | None:
    """Return the state that a stopped run with the same recipe left, if there is one."""
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, path.read_bytes())
        header = json.loads(arrays["header"].tobytes())
        stored = torch.from_numpy(arrays["state"]).to(like.values)
        if header["made"] != json.loads(json.dumps(made)):
            return None
        if stored.shape != (3, *like.values.shape) or not bool(stored.isfinite().all()):
            return None
        return _State(int(header["step"]), stored[0], (stored[1], stored[2]))
    except (DatasetFormatError, ValueError, KeyError, TypeError):
        logger.warning("%s is damaged; the start is learned from the beginning", path)
        return None
