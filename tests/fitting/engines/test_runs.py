"""A fit that is halted, looked at and taken on, by every engine for the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting import SGD, AdaBelief, Adam, AdamW, FitConfig, OptimizerConfig, Random, WarmupCosine
from fitting.engines import ENGINES, Block, Engine, FitProblem, Run, reproducible_arithmetic
from fitting.engines.gpu import GPU_ENGINES
from fitting.losses import BCE, MSE, LossConfig
from fitting.sampling import Sampling, Windows
from nefbench.errors import Interrupted
from nefbench.fields import MLP, FieldConfig, RFFNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import grid_coords

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_FIELDS = 6
NUM_STEPS = 12
WARM = WarmupCosine(warmup_steps=3, start_rate=1e-4, end_rate=1e-5)


@dataclass(frozen=True)
class Case:
    """One fitting problem."""

    field: FieldConfig
    optimizer: OptimizerConfig = Adam()
    fraction: float = 1.0
    sampling: Sampling | None = None
    own_points: bool = False
    num_points: int = 20
    loss: LossConfig = MSE()

    def __str__(self) -> str:
        return f"{self.field.kind}-{self.optimizer.kind}"

    def problem(self, **settings: Any) -> FitProblem:
        config = FitConfig(
            field=self.field, init=Random(), optimizer=self.optimizer,
            pixel_fraction=self.fraction, seed=2, **{"num_steps": NUM_STEPS, **settings},
        )  # fmt: skip
        coords = grid_coords((self.num_points // 5, 5))
        return FitProblem(config, self.field.spec(2, 1), coords, 1, self.loss, self.sampling)

    def block(self, count: int = NUM_FIELDS) -> Block:
        draw = torch.Generator().manual_seed(4)
        targets = torch.rand(count, self.num_points, 1, generator=draw)
        coords = 2 * torch.rand(count, self.num_points, 2, generator=draw) - 1
        start = Random().rows(self.field, 2, 1, Draws(2, tuple(range(count))))
        return Block(start, targets, coords if self.own_points else None)


CASES = [
    Case(Siren(hidden_dim=7)),
    Case(Siren(hidden_dim=5, num_layers=4, preset="paper"), SGD(), fraction=0.4, own_points=True),
    Case(RFFNet(hidden_dim=4, learnable_coefficients=False), AdamW(weight_decay=0.5), fraction=0.6),
    Case(MLP(hidden_dim=5), AdaBelief(), sampling=Windows(((13, 3), (7, 4))), loss=BCE()),
]


def parameter(engine: Engine, *others: Any) -> Any:
    """One engine's tests run in one process, which then compiles every problem once."""
    label = "-".join([engine.name, *map(str, others)])
    return pytest.param(engine, *others, id=label, marks=pytest.mark.xdist_group(engine.name))


ON_THE_CPU = [engine for engine in ENGINES if engine not in GPU_ENGINES]
EACH_ENGINE = pytest.mark.parametrize("engine", [parameter(engine) for engine in ON_THE_CPU])
EACH_ENGINE_AND_CASE = pytest.mark.parametrize(
    ("engine", "case"), [parameter(engine, case) for engine in ON_THE_CPU for case in CASES]
)


@pytest.fixture(autouse=True)
def arithmetic() -> Iterator[None]:
    with reproducible_arithmetic():
        yield


def start(engine: Engine, problem: FitProblem, block: Block) -> Run:
    reason = engine.why_not(problem)
    if reason is not None:
        pytest.skip(reason)
    return engine.start(problem, block)


def fit(engine: Engine, problem: FitProblem, block: Block) -> Tensor:
    return rows_after(start(engine, problem, block), problem.config.num_steps)


def rows_after(run: Run, *steps: int, **settings: Any) -> Tensor:
    for step in steps:
        run.advance(step, **settings)
    return run.rows()


def only(*fields: int, count: int = NUM_FIELDS) -> Tensor:
    """True for these fields."""
    return torch.isin(torch.arange(count), torch.tensor(fields))


def assert_same_bits(first: Tensor, second: Tensor) -> None:
    assert torch.equal(first.view(torch.int32), second.view(torch.int32))


# Halting


@pytest.mark.parametrize("threads", [1, 2])
@EACH_ENGINE_AND_CASE
def test_a_fit_in_parts_has_the_bits_of_a_fit_at_once(
    engine: Engine, case: Case, threads: int
) -> None:
    problem, block = case.problem(schedule=WARM), case.block()
    at_once = start(engine, problem, block)
    in_parts = start(engine, problem, block)

    at_once.advance(NUM_STEPS)
    for step in (1, 2, 7, 11, NUM_STEPS):
        in_parts.advance(step, threads=threads)
        in_parts.rows().zero_()  # a copy
        assert in_parts.step == step

    assert not torch.equal(at_once.rows(), block.start)
    assert_same_bits(in_parts.rows(), at_once.rows())
    assert_same_bits(in_parts.rows(), engine.fit(problem, block, threads=threads))


@EACH_ENGINE_AND_CASE
def test_with_a_constant_rate_the_rows_on_the_way_are_those_of_shorter_fits(
    engine: Engine, case: Case
) -> None:
    block, run = case.block(), start(engine, case.problem(), case.block())

    assert run.step == 0
    assert_same_bits(run.rows(), block.start)
    for step in (3, 5, 10):
        shorter = fit(engine, case.problem(num_steps=step), block)
        assert_same_bits(rows_after(run, step), shorter)


@pytest.mark.parametrize("step", [-1, 0, 4, NUM_STEPS + 1])
@EACH_ENGINE
def test_a_run_only_goes_on_and_to_the_end_at_most(engine: Engine, step: int) -> None:
    run = start(engine, CASES[0].problem(), CASES[0].block())
    run.advance(4)

    with pytest.raises(ValueError, match=rf"^expected a step in 5..12 \(got {step}\)$"):
        run.advance(step)


@EACH_ENGINE
def test_every_part_can_be_stopped(engine: Engine) -> None:
    def stop() -> None:
        raise Interrupted("enough")

    run = start(engine, CASES[0].problem(num_steps=100_000), CASES[0].block())
    run.advance(5)

    with pytest.raises(Interrupted, match="enough"):
        run.advance(100_000, check_stop=stop)


# Freezing


@EACH_ENGINE_AND_CASE
def test_frozen_fields_stay_and_the_others_do_not_notice(engine: Engine, case: Case) -> None:
    problem, block = case.problem(schedule=WARM), case.block()
    undisturbed, run = (start(engine, problem, block) for _ in range(2))
    early, late, last = (rows_after(undisturbed, step) for step in (3, 8, NUM_STEPS))

    run.advance(3)
    run.freeze(only(1, 4))
    assert_same_bits(run.rows(), early)
    run.advance(8, threads=2)
    run.freeze(only(0, 1))  # one of them again
    run.freeze(only())

    expected = last.clone()
    expected[[1, 4]] = early[[1, 4]]
    expected[0] = late[0]
    assert not (early == late).all(1).any()
    assert_same_bits(rows_after(run, 10, NUM_STEPS), expected)


@EACH_ENGINE
def test_fields_frozen_at_the_start_keep_their_start(engine: Engine) -> None:
    problem, block = CASES[0].problem(), CASES[0].block()
    run = start(engine, problem, block)
    run.freeze(only(2))

    rows = rows_after(run, NUM_STEPS)

    assert_same_bits(rows[2], block.start[2])
    assert_same_bits(rows[~only(2)], fit(engine, problem, block)[~only(2)])


@EACH_ENGINE
def test_with_all_fields_frozen_nothing_is_left_to_do(engine: Engine) -> None:
    calls: list[int] = []
    run = start(engine, CASES[0].problem(num_steps=10**6), CASES[0].block())
    rows = rows_after(run, 2)
    run.freeze(only(0, 1, 2))
    run.freeze(only(3, 4, 5))

    run.advance(10**6, check_stop=lambda: calls.append(1))

    assert run.step == 10**6
    assert not calls
    assert_same_bits(run.rows(), rows)


@EACH_ENGINE
def test_a_frozen_field_that_would_overflow_stays_finite(engine: Engine) -> None:
    problem, block = CASES[0].problem(), CASES[0].block()
    wild = replace(block, start=torch.where(only(1)[:, None], 1e30, block.start))
    assert not fit(engine, problem, wild)[1].isfinite().all()
    run = start(engine, problem, wild)
    run.freeze(only(1))

    rows = rows_after(run, NUM_STEPS)

    assert_same_bits(rows[1], wild.start[1])
    assert_same_bits(rows[~only(1)], fit(engine, problem, wild)[~only(1)])


@EACH_ENGINE
def test_a_block_longer_than_the_engines_own_can_be_frozen_in_part(engine: Engine) -> None:
    problem = CASES[0].problem()
    size = min(engine.block_size(problem), 512) + 3
    block = CASES[0].block(size)
    run = start(engine, problem, block)
    early = rows_after(run, 5)
    run.freeze(torch.arange(size) < size - 2)  # all of the first chunk, one of the second

    rows = rows_after(run, NUM_STEPS)

    assert_same_bits(rows[:-2], early[:-2])
    assert_same_bits(rows[-2:], fit(engine, problem, block)[-2:])


# Many points of their own


@EACH_ENGINE
def test_steps_see_their_own_few_of_many_own_points(engine: Engine) -> None:
    sampling = Windows(((3000, 12), (60, 12)))
    case = Case(Siren(hidden_dim=8), num_points=3060, sampling=sampling, own_points=True)
    problem, block = case.problem(num_steps=40), case.block(3)

    rows = rows_after(start(engine, problem, block), 25, 40, threads=2)

    expected = fit_in_double(problem, block)
    length = expected.norm(dim=1)
    assert ((rows - expected).norm(dim=1) / length).max() < 1e-5
    assert ((block.start - expected).norm(dim=1) / length).min() > 1e-2


def fit_in_double(problem: FitProblem, block: Block) -> Tensor:
    """The definition of a fit with own points, in float64."""
    config, spec = problem.config, problem.spec

    def loss(row: Tensor, coords: Tensor, targets: Tensor) -> Tensor:
        return problem.loss.value(config.field.apply(spec.unflatten(row), coords), targets)

    assert block.coords is not None
    coords, targets, rows = block.coords.double(), block.targets.double(), block.start.double()
    state = config.optimizer.start(rows)
    for step, rate in enumerate(problem.rates(), start=1):
        points = problem.sample(step)
        gradient = vmap(grad(loss))(rows, coords[:, points], targets[:, points])
        config.optimizer.update(rows, gradient, state, config.optimizer.scalars(step, rate))
    return rows


# On a GPU: in Triton's interpreter, which has to be on from the start


def test_the_kernel_for_gpus_goes_on_where_it_was_and_leaves_frozen_fields_out() -> None:
    pytest.importorskip("triton")
    script = """
import torch
from fitting import FitConfig, Random
from fitting.engines import Block, FitProblem
from fitting.engines.gpu import GPU_ENGINES
from nefbench.fields import Siren
from nefbench.seeding import Draws
from nefbench.signals import grid_coords

engine, field = GPU_ENGINES[0], Siren(hidden_dim=4)
config = FitConfig(field=field, init=Random(), num_steps=5, pixel_fraction=0.5)
problem = FitProblem(config, field.spec(2, 1), grid_coords((5, 4)), 1)
targets = torch.rand(4, 20, 1, generator=torch.Generator().manual_seed(0))
block = Block(Random().rows(field, 2, 1, Draws(0, tuple(range(4)))), targets)
expected = engine.fit(problem, block)
run = engine.start(problem, block)
run.advance(2)
early = run.rows()
run.freeze(torch.tensor([False, True, False, False]))
run.advance(3)
run.freeze(torch.tensor([True, False, False, False]))
late = run.rows()
run.advance(5)
rows = run.rows()
assert not torch.equal(expected, late)
assert torch.equal(rows[2:], expected[2:])
assert torch.equal(rows[1], early[1])
assert torch.equal(rows[0], late[0])
run.freeze(torch.ones(4, dtype=torch.bool))
print("done", run.step)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout == "done 5\n", done.stderr
