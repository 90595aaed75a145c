from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo import config as dynamo_config

from fitting import Adam, FitConfig, Random, WarmupCosine
from fitting.engines import Block, FitProblem, reproducible_arithmetic
from fitting.engines.compiled import CompiledEngine, _compiled, _with_own_code
from nefbench.fields import MLP, FieldConfig, Siren
from nefbench.seeding import Draws
from nefbench.signals import grid_coords

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("compiled")]

CONFIG = FitConfig(field=MLP(hidden_dim=11), init=Random(), num_steps=3)


def make_problem(
    config: FitConfig = CONFIG, grid_shape: tuple[int, ...] = (13, 1), device: str = "cpu"
) -> FitProblem:
    coords = grid_coords(grid_shape).to(device)
    return FitProblem(config, config.field.spec(len(grid_shape), 1), coords, 1)


def make_block(problem: FitProblem, count: int) -> Block:
    config = problem.config
    targets = torch.rand(count, problem.num_points, 1, generator=torch.Generator().manual_seed(0))
    return Block(
        config.init.rows(config.field, 2, 1, Draws(config.seed, tuple(range(count)))), targets
    )


@pytest.fixture
def engine() -> CompiledEngine:
    engine = CompiledEngine()
    reason = engine.why_not(make_problem())
    if reason is not None:
        pytest.skip(reason)
    return engine


# What it needs


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")

    reason = CompiledEngine().why_not(make_problem())

    assert reason == "there is no C++ compiler (/nowhere/g++)"


def test_a_compiler_that_cannot_build_extensions_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")

    reason = CompiledEngine().why_not(make_problem())

    assert reason == "the C++ compiler (false) lacks the headers of Python or OpenMP"


def test_on_a_gpu_it_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    problem = dataclasses.replace(make_problem(), coords=_OnGPU())

    assert CompiledEngine().why_not(problem) == "Triton is not installed"


class _OnGPU(Tensor):
    device = torch.device("cuda")


# Blocks


@pytest.mark.parametrize(
    ("field", "grid_shape", "fraction", "expected"),
    [
        (Siren(), (8, 8), 1.0, 512),  # 49,152 bytes per field: 651 fit into 32 MB
        (Siren(), (28, 28), 1.0, 32),  # 602,112: 53
        (Siren(), (28, 28), 0.25, 128),  # 150,528: 212
        (Siren(hidden_dim=64), (28, 28), 1.0, 16),  # 1,204,224: 26
        (Siren(hidden_dim=2), (2, 2), 1.0, 512),  # never more
        (Siren(), (1000, 1000), 1.0, 16),  # never fewer
    ],
)
def test_a_block_is_the_power_of_two_whose_activations_fit_into_the_cache(
    field: FieldConfig, grid_shape: tuple[int, int], fraction: float, expected: int
) -> None:
    problem = make_problem(FitConfig(field=field, pixel_fraction=fraction), grid_shape)

    assert CompiledEngine().block_size(problem) == expected


def test_no_place_in_any_block_changes_a_bit(engine: CompiledEngine) -> None:
    """Odd numbers of units, points and weights, so that fields start at all kinds of addresses."""
    problem = make_problem()
    size = engine.block_size(problem)
    block = make_block(problem, 2)
    places = [1, *[0] * (size + 17), 1, 0]  # two blocks, the second one not full

    with reproducible_arithmetic():
        apart = engine.fit(problem, block)
        together = engine.fit(problem, Block(block.start[places], block.targets[places]))

    assert not torch.equal(apart, block.start)
    assert together.shape == (size + 20, problem.spec.num_params)
    assert torch.equal(together.view(torch.int32), apart[places].view(torch.int32))


# Compiling


def test_a_fit_compiles_nothing_that_was_prepared(engine: CompiledEngine) -> None:
    problem = make_problem()
    engine.prepare(problem)
    compiled = _compiled.cache_info().misses
    # Whatever leaves the step's code alone may change.
    config = dataclasses.replace(
        CONFIG, optimizer=Adam(learning_rate=0.01), schedule=WarmupCosine(), num_steps=41, seed=5
    )

    with dynamo_config.patch(error_on_recompile=True), reproducible_arithmetic():
        for other in (problem, make_problem(config)):
            engine.fit(other, make_block(other, 3))

    assert _compiled.cache_info().misses == compiled


def test_any_number_of_problems_can_be_compiled() -> None:
    """With one code object for all, dynamo would give up at the ninth."""

    def multiply_by(factor: int) -> Callable[[Tensor], Tensor]:
        return lambda values: values * factor

    for factor in range(12):
        compiled = torch.compile(
            _with_own_code(multiply_by(factor)), backend="eager", fullgraph=True, dynamic=False
        )
        assert compiled(torch.ones(2)).tolist() == [factor] * 2
