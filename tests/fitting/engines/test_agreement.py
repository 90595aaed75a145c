"""What every engine in ``ENGINES`` for the CPU promises, whatever it is made of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting import (
    SGD,
    AdaBelief,
    Adam,
    AdamW,
    Constant,
    FitConfig,
    OptimizerConfig,
    Random,
    ScheduleConfig,
    WarmupCosine,
)
from fitting.engines import ENGINES, Block, Engine, FitProblem, reproducible_arithmetic
from fitting.engines.gpu import GPU_ENGINES
from fitting.losses import BCE, MSE, LossConfig
from nefbench.errors import Interrupted
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import DigitsConfig, grid_coords

pytestmark = pytest.mark.usefixtures("one_thread")

GRIDS = {1: (23,), 2: (5, 7), 3: (4, 3, 3)}
NUM_FIELDS = 6

COMPILES_SLOWLY = {"compiled"}
"""Engines that take seconds per problem: they get a few of the problems."""
ON_THE_CPU = [engine for engine in ENGINES if engine not in GPU_ENGINES]
"""Those for GPUs make the same promises in tests of their own, in Triton's interpreter."""


@dataclass(frozen=True)
class Case:
    """One fitting problem."""

    field: FieldConfig
    in_dim: int = 2
    channels: int = 1
    loss: LossConfig = MSE()
    optimizer: OptimizerConfig = Adam()
    schedule: ScheduleConfig = Constant()
    fraction: float = 1.0
    own_points: bool = False

    def __str__(self) -> str:
        parts = [
            self.field.kind, f"h{self.field.hidden_dim}", f"{self.in_dim}d",
            f"{self.channels}c", self.loss.kind, self.optimizer.kind,
            "sampled" * (self.fraction < 1), "own" * self.own_points,
        ]  # fmt: skip
        return "-".join(filter(None, parts))

    def problem(self, num_steps: int) -> FitProblem:
        config = FitConfig(
            field=self.field, init=Random(), optimizer=self.optimizer, schedule=self.schedule,
            num_steps=num_steps, pixel_fraction=self.fraction, seed=2,
        )  # fmt: skip
        spec = self.field.spec(self.in_dim, self.channels)
        return FitProblem(
            config, spec, grid_coords(GRIDS[self.in_dim]), self.channels, loss=self.loss
        )

    def block(self, count: int = NUM_FIELDS) -> Block:
        problem = self.problem(1)
        draw = torch.Generator().manual_seed(4)
        shape = (count, problem.num_points)
        targets = torch.rand(*shape, self.channels, generator=draw)
        if self.loss == MSE():
            targets = 3 * targets - 1.5
        coords = 2 * torch.rand(*shape, self.in_dim, generator=draw) - 1
        start = problem.config.init.rows(
            self.field, self.in_dim, self.channels, Draws(2, tuple(range(count)))
        )
        return Block(start, targets, coords if self.own_points else None)


WARM = WarmupCosine(warmup_steps=3, start_rate=1e-4, end_rate=1e-5)
FROZEN = Case(
    RFFNet(hidden_dim=4, num_layers=4, learnable_coefficients=False),
    channels=3, optimizer=AdamW(learning_rate=3e-3, weight_decay=0.5), fraction=0.6,
)  # fmt: skip
FEW_CASES = [
    Case(Siren()),
    Case(Siren(hidden_dim=7, num_layers=4, preset="paper"), in_dim=3, channels=3,
         optimizer=SGD(learning_rate=1e-4), fraction=0.4, own_points=True, schedule=WARM),
    FROZEN,
    Case(GaborNet(hidden_dim=5, num_filters=2, input_scale=4.0), in_dim=1, loss=BCE(),
         optimizer=AdaBelief()),
]  # fmt: skip
CASES = [
    *FEW_CASES,
    Case(Siren(hidden_dim=4, preset="paper"), channels=3, fraction=0.3),
    Case(Siren(hidden_dim=12, num_layers=2), in_dim=1, loss=BCE(), optimizer=AdamW()),
    Case(Siren(hidden_dim=5, num_layers=5), in_dim=3, channels=3, own_points=True),
    Case(Siren(hidden_dim=7), optimizer=AdaBelief(), schedule=WARM),
    Case(Siren(hidden_dim=32, preset="paper"), in_dim=3, loss=BCE(), own_points=True,
         optimizer=AdamW(weight_decay=0.1), fraction=0.5),
    Case(RFFNet(hidden_dim=12), channels=3, schedule=WARM),
    Case(RFFNet(), in_dim=1, loss=BCE(), optimizer=SGD()),
    Case(RFFNet(hidden_dim=12, learnable_coefficients=False), in_dim=3, optimizer=AdaBelief(),
         own_points=True),
    Case(RFFNet(hidden_dim=6, num_layers=2), in_dim=3, optimizer=AdamW(), fraction=0.7),
    Case(FourierNet(hidden_dim=7, num_filters=3)),
    Case(FourierNet(hidden_dim=12), in_dim=3, channels=3, optimizer=AdamW(), fraction=0.4),
    Case(FourierNet(hidden_dim=5, num_filters=2), in_dim=1, loss=BCE(), optimizer=AdaBelief(),
         schedule=WARM),
    Case(FourierNet(), optimizer=SGD(learning_rate=1e-3), own_points=True),
    Case(MLP(hidden_dim=5), channels=3, fraction=0.6),
    Case(MLP(hidden_dim=32, num_layers=4), in_dim=1, loss=BCE(), optimizer=AdamW(),
         own_points=True),
    Case(MLP(hidden_dim=7, num_layers=2), in_dim=3, optimizer=SGD(), schedule=WARM),
    Case(GaborNet(hidden_dim=12, num_filters=3, input_scale=4.0), channels=3, fraction=0.5,
         own_points=True),
    Case(ShapeNet(hidden_dim=6), channels=3, fraction=0.5),
    Case(ShapeNet(hidden_dim=5, block="shortcut", activation="swish"), in_dim=1, loss=BCE(),
         optimizer=AdaBelief(), own_points=True),
]  # fmt: skip


def parameter(engine: Engine, *others: Any) -> Any:
    """One engine's tests run in one process, which then compiles every problem once."""
    values = (engine, *others)
    label = "-".join([engine.name, *map(str, others)])
    return pytest.param(*values, id=label, marks=pytest.mark.xdist_group(engine.name))


EACH_ENGINE = pytest.mark.parametrize("engine", [parameter(engine) for engine in ON_THE_CPU])
EACH_ENGINE_AND_CASE = pytest.mark.parametrize(
    ("engine", "case"),
    [
        parameter(engine, case)
        for engine in ON_THE_CPU
        for case in (FEW_CASES if engine.name in COMPILES_SLOWLY else CASES)
    ],
)
EACH_ENGINE_AND_FEW_CASES = pytest.mark.parametrize(
    ("engine", "case"), [parameter(engine, case) for engine in ON_THE_CPU for case in FEW_CASES]
)


def fit(engine: Engine, problem: FitProblem, block: Block, threads: int = 1) -> Tensor:
    reason = engine.why_not(problem)
    if reason is not None:
        pytest.skip(reason)
    with reproducible_arithmetic():
        return engine.fit(problem, block, threads=threads)


def fit_in_double(problem: FitProblem, block: Block) -> Tensor:
    """The definition of a fit, in float64."""
    config, spec = problem.config, problem.spec
    own_points = block.coords is not None
    all_coords = (block.coords if own_points else problem.coords).double()  # type: ignore[union-attr]

    def loss(row: Tensor, coords: Tensor, targets: Tensor) -> Tensor:
        return problem.loss.value(config.field.apply(spec.unflatten(row), coords), targets)

    gradient_of = vmap(grad(loss), in_dims=(0, 0 if own_points else None, 0))
    start = block.start.double()
    rows, state = start.clone(), config.optimizer.start(start)
    trainable = spec.trainable_mask()
    for step, rate in enumerate(problem.rates(), start=1):
        points = problem.sample(step)
        gradient = gradient_of(rows, all_coords[..., points, :], block.targets.double()[:, points])
        config.optimizer.update(rows, gradient, state, config.optimizer.scalars(step, rate))
        if trainable is not None:
            rows = torch.where(trainable, rows, start)
    return rows


@functools.cache
def expected_rows(case: Case, num_steps: int) -> Tensor:
    return fit_in_double(case.problem(num_steps), case.block())


def chosen(block: Block, fields: Sequence[int]) -> Block:
    which = list(fields)
    coords = None if block.coords is None else block.coords[which]
    return Block(block.start[which], block.targets[which], coords)


def assert_same_bits(first: Tensor, second: Tensor) -> None:
    assert torch.equal(first.view(torch.int32), second.view(torch.int32))


# Agreement with float64


@pytest.mark.parametrize(
    ("num_steps", "typical", "largest"), [(1, 1e-6, 1e-6), (10, 2e-6, 2e-3), (100, 5e-5, 5e-3)]
)
@EACH_ENGINE_AND_CASE
def test_rows_are_those_of_the_definition_in_float64(
    engine: Engine, case: Case, num_steps: int, typical: float, largest: float
) -> None:
    """A float32 row is 3e-8 of its length wrong by itself, and every step adds rounding.

    After some steps rounding also decides whether a unit is on at a point where its ReLU is all but
    at the kink, and the sign of a gradient that is all but zero, of which Adam makes a whole step:
    one of the fields may then part from the definition, by a few steps of a few weights.
    """
    rows = fit(engine, case.problem(num_steps), case.block())

    expected = expected_rows(case, num_steps)
    length = expected.norm(dim=1)
    error = (rows - expected).norm(dim=1) / length
    moved = (expected - case.block().start).norm(dim=1) / length
    assert rows.dtype == torch.float32
    assert error.sort().values[-2] < typical
    assert error.max() < largest
    assert moved.min() > 10 * typical, "or the tolerance would prove little"


# Fields do not notice each other


@EACH_ENGINE_AND_FEW_CASES
def test_the_order_of_fields_does_not_change_a_bit(engine: Engine, case: Case) -> None:
    problem, block = case.problem(5), case.block()

    rows = fit(engine, problem, block)

    order = [3, 0, 5, 2, 2, 1]
    assert not torch.equal(rows, block.start)
    assert_same_bits(fit(engine, problem, chosen(block, order)), rows[order])


@pytest.mark.parametrize("fields", [[4], [5, 1], [0, 1, 2, 3, 4], [3] * 17])
@EACH_ENGINE_AND_FEW_CASES
def test_a_field_alone_has_the_bits_that_it_has_among_others(
    engine: Engine, case: Case, fields: list[int]
) -> None:
    if engine.needs_full_blocks:
        pytest.skip("its blocks have one size")
    problem, block = case.problem(5), case.block()

    rows = fit(engine, problem, block)

    assert_same_bits(fit(engine, problem, chosen(block, fields)), rows[fields])


@EACH_ENGINE_AND_FEW_CASES
def test_the_number_of_threads_does_not_change_a_bit(engine: Engine, case: Case) -> None:
    problem, block = case.problem(5), case.block()

    alone, shared = (fit(engine, problem, block, threads) for threads in (1, 2))

    assert_same_bits(alone, shared)


@EACH_ENGINE_AND_FEW_CASES
def test_a_field_that_overflows_leaves_the_bits_of_its_neighbours_alone(
    engine: Engine, case: Case
) -> None:
    problem, block = case.problem(10), case.block()
    undisturbed = fit(engine, problem, block)
    wild = block.start.clone()
    wild[1] = 1e30

    rows = fit(engine, problem, replace(block, start=wild))

    others = [0, *range(2, NUM_FIELDS)]
    assert undisturbed.isfinite().all()
    assert not rows[1].isfinite().all()
    assert_same_bits(rows[others], undisturbed[others])


# What must not change


@EACH_ENGINE
def test_frozen_tensors_keep_their_bits_even_under_weight_decay(engine: Engine) -> None:
    problem, block = FROZEN.problem(10), FROZEN.block()

    rows = fit(engine, problem, block)

    for name, place in problem.spec.slices().items():
        if name == "encoding.coefficients.kernel":
            assert_same_bits(rows[:, place], block.start[:, place])
        else:
            assert not (rows[:, place] == block.start[:, place]).any(), name


@EACH_ENGINE_AND_FEW_CASES
def test_the_block_is_not_changed(engine: Engine, case: Case) -> None:
    problem, block, same = case.problem(3), case.block(), case.block()

    rows = fit(engine, problem, block)

    assert_same_bits(block.start, same.start)
    assert_same_bits(block.targets, same.targets)
    if block.coords is not None and same.coords is not None:
        assert_same_bits(block.coords, same.coords)
    assert rows.shape == block.start.shape
    assert rows.data_ptr() != block.start.data_ptr()
    assert not rows.requires_grad


@EACH_ENGINE
def test_a_request_to_stop_abandons_the_block(engine: Engine) -> None:
    problem, block = FEW_CASES[0].problem(200_000), FEW_CASES[0].block()
    calls = []

    def stop_at_the_third_call() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted("enough")

    fit(engine, FEW_CASES[0].problem(1), block)  # skips if it cannot
    with reproducible_arithmetic(), pytest.raises(Interrupted, match="enough"):
        engine.fit(problem, block, check_stop=stop_at_the_third_call)


@EACH_ENGINE
def test_what_was_prepared_changes_nothing(engine: Engine) -> None:
    problem, block = FEW_CASES[0].problem(3), FEW_CASES[0].block()
    rows = fit(engine, problem, block)
    threads, rounding = torch.get_num_threads(), float(torch.tensor([1e-40]) * 1.0)

    engine.prepare(problem)

    assert torch.get_num_threads() == threads
    assert float(torch.tensor([1e-40]) * 1.0) == rounding
    assert_same_bits(fit(engine, problem, block), rows)


# Long fits


@functools.cache
def digits() -> tuple[FitProblem, Block]:
    """Thirty-two digits, a thousand steps each.

    A field has fewer weights than its digit points: a wider one reaches the limits of float32.
    """
    signals = DigitsConfig(max_signals=60, validation_size=12, test_size=12).open()
    field = Siren(hidden_dim=6, omega_0=15.0)
    config = FitConfig(field=field, num_steps=1000)
    problem = FitProblem(config, field.spec(2, 1), signals.coords, 1)
    start = config.init.rows(field, 2, 1, Draws(config.seed, tuple(range(32))))
    return problem, Block(start.clone(), signals.targets(range(32)))


def psnr_of_digits(rows: Tensor) -> Tensor:
    """PSNR ``[B]`` in dB, up to a constant, evaluated in float64."""
    problem, block = digits()

    def values_of(row: Tensor) -> Tensor:
        return problem.config.field.apply(problem.spec.unflatten(row), problem.coords.double())

    values = vmap(values_of)(rows.double())
    return -10 * torch.log10((values - block.targets).square().mean((1, 2)))


@functools.cache
def expected_psnr() -> dict[str, Tensor]:
    problem, block = digits()
    definition = fit_in_double(problem, block)
    eager = next(engine for engine in ENGINES if engine.name == "vmapped")
    return {
        "float64": psnr_of_digits(definition), "eager": psnr_of_digits(fit(eager, problem, block))
    }  # fmt: skip


@pytest.mark.parametrize("reference", ["float64", "eager"])
@EACH_ENGINE
def test_a_thousand_steps_end_at_the_same_quality(engine: Engine, reference: str) -> None:
    """By then weights differ, chaotically and rightly; their quality must not."""
    psnr = psnr_of_digits(fit(engine, *digits()))

    expected = expected_psnr()[reference]
    assert expected.median() > psnr_of_digits(digits()[1].start).median() + 20
    assert (psnr - expected).abs().median() < 0.1
