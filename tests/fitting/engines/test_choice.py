from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fitting import FitConfig
from fitting.config import EngineName
from fitting.engines import ENGINES, Block, FitProblem, VmappedEngine, choice, choose_engine
from fitting.engines.base import Missing
from fitting.optimizers import Scalars, State
from nefbench.errors import ConfigError
from nefbench.fields import GaborNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import grid_coords

FIELD = Siren(hidden_dim=2, num_layers=2)
PROBLEM = FitProblem(FitConfig(field=FIELD), FIELD.spec(2, 1), grid_coords((2, 2)), 1)

Install = Callable[..., list[str]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Replace all engines, ``install(name=why_not)``; returns whom the choice then asks."""
    asked: list[str] = []

    class Fake(VmappedEngine):
        def __init__(self, name: EngineName, refusal: str | None) -> None:
            self.name, self.refusal = name, refusal

        def why_not(self, problem: FitProblem) -> str | None:
            assert problem is PROBLEM
            asked.append(self.name)
            return self.refusal

    def replace(**refusals: str | None) -> list[str]:
        fakes = tuple(Fake(name, refusal) for name, refusal in refusals.items())  # type: ignore[arg-type]
        monkeypatch.setattr(choice, "ENGINES", fakes)
        return asked

    choice._report.cache_clear()
    yield replace
    choice._report.cache_clear()


def test_auto_takes_the_first_that_can(install: Install) -> None:
    asked = install(fused="too wide", compiled=None, vmapped=None)

    assert choose_engine("auto", PROBLEM).name == "compiled"
    assert asked == ["fused", "compiled"]


@pytest.mark.parametrize("kind", ["fused", "compiled", "vmapped"])
def test_an_engine_asked_for_is_taken_and_no_other_consulted(
    install: Install, kind: EngineName
) -> None:
    asked = install(fused=None, compiled=None, vmapped=None)

    assert choose_engine(kind, PROBLEM).name == kind
    assert asked == [kind]


def test_an_engine_asked_for_that_cannot_says_why(install: Install) -> None:
    install(fused="too wide", vmapped=None)

    message = "^engine fused: too wide; engine = 'auto' takes one that can$"
    with pytest.raises(ConfigError, match=message):
        choose_engine("fused", PROBLEM)


def test_a_reason_that_two_engines_share_is_given_once() -> None:
    field = GaborNet(hidden_dim=4)
    problem = FitProblem(FitConfig(field=field), field.spec(2, 1), grid_coords((2, 2)), 1)

    message = "^engine fused: it has no kernel for gabornet; engine = 'auto' takes one that can$"
    with pytest.raises(ConfigError, match=message):
        choose_engine("fused", problem)


def test_what_could_be_installed_is_reported_once(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install(fused=Missing("llvmlite is not installed"), compiled="too wide", vmapped=None)

    with caplog.at_level(logging.DEBUG, "fitting"):
        assert [choose_engine("auto", PROBLEM).name for _ in range(3)] == ["vmapped"] * 3

    assert caplog.messages == ["the fused engine is passed over: llvmlite is not installed"]


def test_nothing_is_reported_where_nothing_is_missed(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install(fused=None, compiled=Missing("there is no C++ compiler (g++)"), vmapped=None)

    with caplog.at_level(logging.DEBUG, "fitting"):
        choose_engine("auto", PROBLEM)
        choose_engine("vmapped", PROBLEM)

    assert caplog.messages == []


def test_without_llvmlite_the_next_engine_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fitting.engines.fused.engine.find_spec", lambda _: None)
    choice._report.cache_clear()

    with caplog.at_level(logging.DEBUG, "fitting"):
        assert choose_engine("auto", PROBLEM).name in ("compiled", "vmapped")

    assert caplog.messages[0] == (
        "the fused engine is passed over: llvmlite is not installed (pip install 'nefbench[fused]')"
    )


def test_an_engine_for_gpus_is_not_missed_on_the_cpu() -> None:
    message = "^engine fused-tf32: it computes on a GPU, not on cpu; engine = 'auto' takes one"
    with pytest.raises(ConfigError, match=message):
        choose_engine("fused-tf32", PROBLEM)


def test_the_eager_engine_can_do_everything() -> None:
    names = [engine.name for engine in ENGINES]

    assert "auto" not in names
    assert choose_engine("vmapped", PROBLEM) is ENGINES[names.index("vmapped")]


@dataclass(frozen=True, kw_only=True)
class PlainDescent:
    """An optimizer that no kernel was written for."""

    kind: str = "plain"
    learning_rate: float = 1e-3

    def start(self, rows: Tensor) -> State:
        del rows
        return ()

    def scalars(self, step: int, rate: float) -> tuple[float, ...]:
        del step
        return (rate,)

    def update(self, rows: Tensor, gradient: Tensor, state: State, scalars: Scalars) -> None:
        del state
        rows.sub_(scalars[0] * gradient)


def test_an_optimizer_without_a_kernel_is_left_to_engines_that_need_none() -> None:
    config = FitConfig(field=FIELD, num_steps=5, optimizer=PlainDescent())  # type: ignore[arg-type]
    problem = dataclasses.replace(PROBLEM, config=config)
    block = Block(config.init.rows(FIELD, 2, 1, Draws(0, tuple(range(3)))), torch.rand(3, 4, 1))
    refusals = {engine: engine.why_not(problem) for engine in ENGINES}

    for engine, refusal in refusals.items():
        if engine.name.startswith("fused"):
            assert refusal == "it has no kernel for plain"
    rows = [engine.fit(problem, block) for engine in ENGINES if refusals[engine] is None]
    assert not torch.equal(rows[0], block.start)
    torch.testing.assert_close(rows[0], rows[-1], rtol=1e-5, atol=1e-6)
    message = "^engine fused: it has no kernel for plain; engine = 'auto' takes one that can$"
    with pytest.raises(ConfigError, match=message):
        choose_engine("fused", problem)
