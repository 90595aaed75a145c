"""The kernel in Triton's interpreter, in a process of its own: it has to be on from the start."""

from __future__ import annotations

import dataclasses
import multiprocessing
import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Protocol

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting import SGD, Adam, AdamW, FitConfig, Random, WarmupCosine
from fitting.engines import Block, FitProblem
from fitting.engines.gpu import GPU_ENGINES, TritonEngine
from fitting.losses import BCE, MSE, LossConfig
from fitting.optimizers import AdaBelief, OptimizerConfig
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import grid_coords

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("one_thread")

ENGINE = TritonEngine("fused", "tf32x3")
MACHINES = ["interpreter", "cuda"] if torch.cuda.is_available() else ["interpreter"]
FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=4),
    Siren(hidden_dim=7, num_layers=4),
    Siren(hidden_dim=5, num_layers=2, preset="paper"),
    Siren(hidden_dim=12, preset="original"),
    RFFNet(hidden_dim=6),
    RFFNet(hidden_dim=10, num_layers=2, preset="paper"),
    FourierNet(hidden_dim=5, num_filters=3),
    FourierNet(hidden_dim=7, num_filters=1),
    MLP(hidden_dim=5),
    MLP(hidden_dim=9, num_layers=1),
]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """One process in which Triton interprets."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pool.submit(os.getpid).result()  # starts it
        patch.undo()
        yield pool


class Fit(Protocol):
    """An engine's ``fit``."""

    def __call__(
        self, problem: FitProblem, block: Block, engine: TritonEngine = ENGINE
    ) -> Tensor: ...


@pytest.fixture(params=MACHINES)
def fit(request: pytest.FixtureRequest, interpreter: ProcessPoolExecutor) -> Fit:
    """On one of the machines; takes and returns what lies on the CPU."""

    def interpret(problem: FitProblem, block: Block, engine: TritonEngine = ENGINE) -> Tensor:
        return interpreter.submit(engine.fit, problem, block).result()

    def compute(problem: FitProblem, block: Block, engine: TritonEngine = ENGINE) -> Tensor:
        there = dataclasses.replace(problem, coords=problem.coords.cuda())
        coords = None if block.coords is None else block.coords.cuda()
        return engine.fit(there, Block(block.start.cuda(), block.targets.cuda(), coords)).cpu()

    return compute if request.param == "cuda" else interpret


def make_problem(
    config: FitConfig,
    *,
    grid_shape: tuple[int, ...] = (5, 4),
    channels: int = 1,
    loss: LossConfig | None = None,
) -> FitProblem:
    spec = config.field.spec(len(grid_shape), channels)
    return FitProblem(config, spec, grid_coords(grid_shape), channels, loss or MSE())


def make_block(problem: FitProblem, count: int) -> Block:
    config, in_dim = problem.config, problem.coords.shape[1]
    start = config.init.rows(
        config.field, in_dim, problem.out_dim, Draws(config.seed, tuple(range(count)))
    )
    draw = torch.Generator().manual_seed(0)
    return Block(start, torch.rand(count, problem.num_points, problem.out_dim, generator=draw))


def fit_in_float64(problem: FitProblem, block: Block) -> Tensor:
    """The same fit with the field's own ``apply`` and automatic derivatives."""
    config, spec = problem.config, problem.spec

    def loss(row: Tensor, points: Tensor, targets: Tensor) -> Tensor:
        values = config.field.apply(spec.unflatten(row), points)
        return problem.loss.value(values, targets)

    coords = (problem.coords if block.coords is None else block.coords).double()
    gradient_of = vmap(grad(loss), in_dims=(0, None if block.coords is None else 0, 0))
    rows = block.start.double()
    state = config.optimizer.start(rows)
    for step, rate in enumerate(problem.rates(), start=1):
        chosen = problem.sample(step)
        targets = block.targets.double()[:, chosen]
        gradient = gradient_of(rows, coords[..., chosen, :], targets)
        config.optimizer.update(rows, gradient, state, config.optimizer.scalars(step, rate))
    return rows


def assert_agrees_with_float64(fit: Fit, problem: FitProblem, block: Block) -> None:
    rows = fit(problem, block)

    expected = fit_in_float64(problem, block)
    length = expected.norm(dim=1)
    # float32 over ten steps: 1e-5 of the length of a row (some 3e-7 in fact).
    assert ((rows - expected).norm(dim=1) / length).max() < 1e-5
    moved = (block.start - expected).norm(dim=1) / length
    assert moved.min() > 1e-4 * problem.config.num_steps, "or the tolerance would prove nothing"


def assert_same_bits(first: Tensor, second: Tensor) -> None:
    assert torch.equal(first.view(torch.int32), second.view(torch.int32))


# Against float64


@pytest.mark.parametrize("num_steps", [1, 10])
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.kind}-{field.hidden_dim}")
def test_every_field_ends_where_float64_ends(fit: Fit, field: FieldConfig, num_steps: int) -> None:
    config = FitConfig(field=field, init=Random(), num_steps=num_steps, seed=1)
    problem = make_problem(config, channels=3)

    assert_agrees_with_float64(fit, problem, make_block(problem, 2))


@pytest.mark.parametrize(
    "field",
    [Siren(hidden_dim=4, omega_0=9.0), RFFNet(hidden_dim=6), FourierNet(hidden_dim=5), MLP()],
    ids=lambda field: field.kind,
)
def test_a_hundred_steps_end_where_float64_ends(fit: Fit, field: FieldConfig) -> None:
    config = FitConfig(field=field, init=Random(), num_steps=100, seed=1)
    problem = make_problem(config, grid_shape=(4, 4))
    block = make_block(problem, 1)

    rows = fit(problem, block)

    expected = fit_in_float64(problem, block)
    # float32 over a hundred Adam steps, before a trajectory decouples: some 1e-6 in fact.
    assert (rows - expected).norm() / expected.norm() < 1e-5
    assert (block.start - expected).norm() / expected.norm() > 1e-2


@pytest.mark.parametrize("loss", [MSE(), BCE()], ids=lambda loss: loss.kind)
@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(betas=(0.8, 0.95), eps=1e-3),
        AdamW(learning_rate=5e-3, weight_decay=2.0),
        SGD(learning_rate=1e-3),
        AdaBelief(eps=1e-6),
    ],
    ids=lambda optimizer: optimizer.kind,
)
def test_every_optimizer_and_loss_with_a_schedule_and_subsampling(
    fit: Fit, optimizer: OptimizerConfig, loss: LossConfig
) -> None:
    config = FitConfig(
        field=Siren(hidden_dim=5, omega_0=5.0), init=Random(), optimizer=optimizer, num_steps=10,
        schedule=WarmupCosine(warmup_steps=2, start_rate=2e-3, end_rate=1e-3),
        pixel_fraction=0.45, seed=1,
    )  # fmt: skip
    problem = make_problem(config, loss=loss)

    assert_agrees_with_float64(fit, problem, make_block(problem, 2))


@pytest.mark.parametrize("grid_shape", [(17,), (5, 4), (3, 3, 3)])
@pytest.mark.parametrize(
    "field", [Siren(hidden_dim=6), RFFNet(hidden_dim=6), FourierNet(hidden_dim=6)],
    ids=lambda field: field.kind,
)  # fmt: skip
def test_every_field_may_have_its_own_points_in_any_dimension(
    fit: Fit, field: FieldConfig, grid_shape: tuple[int, ...]
) -> None:
    config = FitConfig(field=field, init=Random(), num_steps=4, pixel_fraction=0.9)
    problem = make_problem(config, grid_shape=grid_shape, channels=2, loss=BCE())
    block = make_block(problem, 2)
    coords = torch.rand(2, *problem.coords.shape, generator=torch.Generator().manual_seed(1))

    assert_agrees_with_float64(fit, problem, Block(block.start, block.targets, 2 * coords - 1))


# Fields do not notice each other


@pytest.mark.parametrize(
    "field",
    [Siren(hidden_dim=7), RFFNet(hidden_dim=6), FourierNet(hidden_dim=5), MLP(hidden_dim=9)],
    ids=lambda field: field.kind,
)  # fmt: skip
def test_neither_place_nor_neighbours_change_a_bit(fit: Fit, field: FieldConfig) -> None:
    problem = make_problem(FitConfig(field=field, init=Random(), num_steps=3))
    block = make_block(problem, 3)

    rows = fit(problem, block)

    order = torch.tensor([2, 0, 1])
    assert_same_bits(fit(problem, Block(block.start[order], block.targets[order])), rows[order])
    assert_same_bits(fit(problem, Block(block.start[1:2], block.targets[1:2])), rows[1:2])


@pytest.mark.parametrize("optimizer", [SGD(learning_rate=0.5), AdamW(weight_decay=0.1)])
def test_a_field_that_overflows_leaves_the_bits_of_its_neighbours_alone(
    fit: Fit, optimizer: SGD | AdamW
) -> None:
    config = FitConfig(field=MLP(hidden_dim=5), init=Random(), optimizer=optimizer, num_steps=5)
    problem = make_problem(config)
    block = make_block(problem, 3)
    wild = block.start.clone()
    wild[1] = 1e30

    rows = fit(problem, Block(wild, block.targets))

    undisturbed = fit(problem, block)
    assert not rows[1].isfinite().all()
    assert undisturbed.isfinite().all()
    assert_same_bits(rows[[0, 2]], undisturbed[[0, 2]])


# Frozen tensors


def test_frozen_coefficients_keep_their_bits_even_under_weight_decay(fit: Fit) -> None:
    config = FitConfig(
        field=RFFNet(hidden_dim=6, learnable_coefficients=False), init=Random(),
        optimizer=AdamW(learning_rate=0.1, weight_decay=0.5), num_steps=5,
    )  # fmt: skip
    problem = make_problem(config)
    block = make_block(problem, 2)

    rows = fit(problem, block)

    for name, place in problem.spec.slices().items():
        if name == "encoding.coefficients.kernel":
            assert_same_bits(rows[:, place], block.start[:, place])
        else:
            assert not (rows[:, place] == block.start[:, place]).any(), name


# Launches


def test_steps_per_launch_do_not_change_a_bit(fit: Fit) -> None:
    config = FitConfig(
        field=Siren(hidden_dim=4), num_steps=5, pixel_fraction=0.5, schedule=WarmupCosine()
    )
    problem = make_problem(config)
    block = make_block(problem, 2)
    before = block.start.clone(), block.targets.clone()
    engine = TritonEngine("fused", "tf32x3", steps_per_launch=2)

    rows = fit(problem, block, engine)

    assert_same_bits(rows, fit(problem, block))
    assert_same_bits(block.start, before[0])
    assert_same_bits(block.targets, before[1])


def test_a_request_to_stop_abandons_the_block(interpreter: ProcessPoolExecutor) -> None:
    problem = make_problem(FitConfig(field=Siren(hidden_dim=4), num_steps=10**6))
    stop = partial(operator.truediv, 1, 0)

    with pytest.raises(ZeroDivisionError):
        interpreter.submit(
            partial(ENGINE.fit, problem, make_block(problem, 1), check_stop=stop)
        ).result()


def test_preparing_needs_no_fields(interpreter: ProcessPoolExecutor) -> None:
    problem = make_problem(FitConfig(field=Siren(hidden_dim=4)))

    interpreter.submit(ENGINE.prepare, problem).result()


# What it can do


def test_there_is_one_engine_as_exact_as_float32_and_one_that_says_tf32(
    interpreter: ProcessPoolExecutor,
) -> None:
    assert [engine.name for engine in GPU_ENGINES] == ["fused", "fused-tf32"]
    endings = ["interpreter-tf32x3", "interpreter-tf32"]
    for engine, ending in zip(GPU_ENGINES, endings, strict=True):
        signature = interpreter.submit(operator.attrgetter("signature"), engine).result()
        assert signature.startswith("triton-")
        assert signature.endswith(ending)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (FitConfig(field=Siren(hidden_dim=4)), None),
        (FitConfig(field=Siren(hidden_dim=64)), None),
        (FitConfig(field=Siren(hidden_dim=65)), "more than 64 hidden units"),
        (FitConfig(field=GaborNet(hidden_dim=4)), "no kernel for gabornet"),
        (FitConfig(optimizer=Adam(eps=0.0)), "an eps that float32 can tell from 0"),
        (FitConfig(optimizer=AdaBelief(eps=1e-37)), "an eps that float32 can tell from 0"),
        (FitConfig(optimizer=SGD()), None),
    ],
)  # fmt: skip
def test_it_declines_what_it_cannot_fit(
    interpreter: ProcessPoolExecutor, config: FitConfig, reason: str | None
) -> None:
    answer = interpreter.submit(ENGINE.why_not, make_problem(config)).result()

    if reason is None:
        assert answer is None
    else:
        assert reason in answer
        assert "\n" not in answer


def test_it_needs_a_gpu() -> None:
    assert ENGINE.why_not(make_problem(FitConfig())) == "it computes on a GPU, not on cpu"


def test_without_triton_it_declines_and_nothing_breaks() -> None:
    script = """
import os, sys
os.environ["TRITON_INTERPRET"] = "1"
sys.modules["triton"] = None
from fitting import FitConfig
from fitting.engines import FitProblem
from fitting.engines.gpu import GPU_ENGINES
from nefbench.signals import grid_coords
config = FitConfig()
problem = FitProblem(config, config.field.spec(2, 1), grid_coords((4, 4)), 1)
print(GPU_ENGINES[0].why_not(problem))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    assert done.stdout == "Triton is not installed\n"


@pytest.mark.parametrize(
    ("grid_shape", "expected"),
    [
        ((28, 28), 4096),
        ((256, 256), 1024),  # 786,432 bytes of targets and points per field: 1365 fit into 1 GiB
        ((20_000, 10_000), 1),
    ],
)
def test_a_block_is_the_power_of_two_whose_data_fit_into_a_gibibyte(
    grid_shape: tuple[int, int], expected: int
) -> None:
    config = FitConfig()
    coords = torch.empty(1, 2).expand(grid_shape[0] * grid_shape[1], 2)
    problem = FitProblem(config, config.field.spec(2, 1), coords, 1)

    assert ENGINE.block_size(problem) == expected
