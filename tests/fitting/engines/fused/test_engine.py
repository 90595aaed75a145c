from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting import Adam, AdamW, FitConfig, Random
from fitting.engines import Block, FitProblem, FusedEngine
from fitting.engines.fused import compiler
from fitting.engines.fused.emitter import Machine
from fitting.engines.fused.engine import FusedRun, _table, compiled_plan
from fitting.losses import BCE, MSE, LossConfig
from nefbench.errors import Interrupted
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import grid_coords

MEAN_SQUARE = MSE()
FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=20, num_layers=4, omega_0=9.0),
    Siren(hidden_dim=7, preset="paper", omega_0=9.0),
    RFFNet(hidden_dim=10, std=0.5),
    FourierNet(hidden_dim=12, num_filters=3),
    MLP(hidden_dim=6, num_layers=2),
    RFFNet(hidden_dim=150, num_layers=2, std=0.5),
]


def make_problem(
    field: FieldConfig,
    *,
    num_steps: int = 5,
    channels: int = 2,
    loss: LossConfig = MEAN_SQUARE,
    pixel_fraction: float = 1.0,
) -> FitProblem:
    config = FitConfig(
        field=field, init=Random(), num_steps=num_steps, pixel_fraction=pixel_fraction
    )
    return FitProblem(config, field.spec(2, channels), grid_coords((5, 5)), channels, loss)


def make_block(problem: FitProblem, count: int = 3) -> Block:
    config = problem.config
    start = config.init.rows(config.field, 2, problem.out_dim, Draws(0, tuple(range(count))))
    draw = torch.Generator().manual_seed(0)
    shape = (count, problem.num_points, problem.out_dim)
    return Block(start, torch.rand(shape, generator=draw))


def fit_in_float64(problem: FitProblem, block: Block) -> Tensor:
    field, spec, optimizer = problem.config.field, problem.spec, problem.config.optimizer

    def loss(row: Tensor, targets: Tensor) -> Tensor:
        values = field.apply(spec.unflatten(row), problem.coords.double())
        return problem.loss.value(values, targets)

    rows = block.start.double()
    state = optimizer.start(rows)
    for step, rate in enumerate(problem.rates(), start=1):
        gradient = vmap(grad(loss))(rows, block.targets.double())
        optimizer.update(rows, gradient, state, optimizer.scalars(step, rate))
    return rows


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    compiled_plan.cache_clear()
    yield monkeypatch
    compiled_plan.cache_clear()


@pytest.mark.parametrize("loss", [MSE(), BCE()], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
@pytest.mark.parametrize(
    "machine", [Machine(lanes=4, registers=32), Machine(lanes=8, registers=16)], ids=str
)
def test_narrower_vectors_compute_the_same(
    machine: Machine, field: FieldConfig, loss: LossConfig, other_machine: pytest.MonkeyPatch
) -> None:
    other_machine.setattr(compiler, "host_machine", lambda: machine)
    problem = make_problem(field, loss=loss)
    block = make_block(problem)

    rows = FusedEngine().fit(problem, block)

    # float32 over five Adam steps: some 1e-7 of the length of a row.
    expected = fit_in_float64(problem, block)
    error = (rows - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 1e-6


def test_a_fit_in_several_calls_of_the_kernel_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(FIELDS[0], num_steps=10)
    block = make_block(problem)
    at_once = FusedEngine().fit(problem, block)

    # Three steps per call: optimizer state and scalars go on where they were.
    per_step = 3.0 * problem.spec.num_params * problem.num_points
    monkeypatch.setattr("fitting.engines.fused.engine._LAUNCH_WORK", 3.5 * per_step)
    in_parts = FusedEngine().fit(problem, block)

    assert torch.equal(at_once, in_parts)


def test_points_drawn_in_several_tables_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(FIELDS[0], num_steps=50, pixel_fraction=0.6)
    block = make_block(problem)
    at_once = FusedEngine().fit(problem, block)

    # 15 points, padded to 16: tables of two steps, of which the first are dropped before the last.
    monkeypatch.setattr("fitting.engines.fused.engine._TABLE_BYTES", 2 * 64)
    run = FusedEngine().start(problem, block)
    run.advance(3, threads=2)
    run.advance(50)

    assert torch.equal(at_once, run.rows())
    assert _table.cache_info().misses >= 25


def test_fits_side_by_side_do_not_disturb_each_other() -> None:
    problem = make_problem(FIELDS[0], num_steps=50)
    block = make_block(problem, 8)
    alone = FusedEngine().fit(problem, block)

    with ThreadPoolExecutor(4) as pool:
        together = [pool.submit(FusedEngine().fit, problem, block, threads=2) for _ in range(4)]

    assert all(torch.equal(alone, future.result()) for future in together)


def test_denormal_numbers_are_flushed_inside_only() -> None:
    problem = make_problem(FIELDS[0])
    run = FusedRun(problem, make_block(problem))
    run.fit_fields([0], range(5), torch.zeros(0), threading.Event())  # in this thread

    assert float(torch.tensor([1e-40]) * 0.5) > 0, "this thread's mode is as it was"


def test_a_request_to_stop_ends_a_long_fit_soon() -> None:
    problem = make_problem(Siren(), num_steps=10**5)

    def stop() -> None:
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        FusedEngine().fit(problem, make_block(problem, 64), check_stop=stop)


# What it leaves to others


def refusal(field: FieldConfig, **settings: object) -> str | None:
    config = FitConfig(field=field, **settings)  # type: ignore[arg-type]
    return FusedEngine().why_not(FitProblem(config, field.spec(2, 1), grid_coords((4, 4)), 1))


def test_it_says_what_it_has_no_kernel_for() -> None:
    assert refusal(Siren()) is None
    assert refusal(GaborNet()) == "it has no kernel for gabornet"
    message = "it needs an eps that float32 can tell from 0 (got 0.0)"
    assert refusal(Siren(), optimizer=Adam(eps=0.0)) == message


def test_the_block_is_about_a_second_of_work() -> None:
    def size(field: FieldConfig, shape: tuple[int, int], num_steps: int) -> int:
        config = FitConfig(field=field, num_steps=num_steps, optimizer=AdamW())
        problem = FitProblem(config, field.spec(2, 1), grid_coords(shape), 1)
        return FusedEngine().block_size(problem)

    # 1,185 weights, three products: 228 thousand multiply-adds per step at 64 points, 2.8 million
    # at 784.
    assert size(Siren(), (8, 8), 500) == 512
    assert size(Siren(), (28, 28), 500) == 64
    assert size(Siren(), (28, 28), 50) == 128  # 100,352 bytes of activations per field: 159
    assert size(Siren(), (28, 28), 10**6) == 16
    assert size(Siren(hidden_dim=4), (2, 2), 1) == 1024
