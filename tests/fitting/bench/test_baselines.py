from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fitting.bench import Case
from fitting.bench.baselines import Jax, OneByOne
from fitting.bench.contenders import (
    CONTENDERS,
    ENGINE_NAMES,
    REFERENCE,
    ROUNDED,
    contender_for,
    names,
    refusal,
)
from fitting.bench.worker import Bench, Place, Worker
from fitting.engines import ENGINES, Block, VmappedEngine
from fitting.losses import BCE
from fitting.optimizers import SGD
from nefbench.errors import ConfigError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren

ONE_CORE = Place(device="cpu", core=None, threads=1)
FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=6, omega_0=9.0),
    RFFNet(hidden_dim=6, num_layers=3),
    FourierNet(hidden_dim=6),
]


@pytest.mark.parametrize("field", [*FIELDS, MLP(hidden_dim=6), GaborNet(hidden_dim=6)], ids=str)
def test_fields_fitted_one_by_one_are_those_of_the_reference_engine(field: FieldConfig) -> None:
    case = Case(field=field, side=5)
    problem, block = case.problem(num_steps=5), case.block(3)
    problem = replace(problem, coords=problem.coords.double())
    block = Block(block.start.double(), block.targets.double())

    rows = OneByOne().fit(problem, block)
    expected = VmappedEngine().fit(problem, block)

    # float64: in float32, Adam's first steps follow the sign of gradients that are all rounding
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-9)
    assert not torch.equal(rows, block.start)


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_jax_reaches_the_losses_of_the_reference_engine(tmp_path: Path) -> None:
    cases = [Case(field=field, side=5) for field in FIELDS]
    cases.append(Case(field=replace(Siren(hidden_dim=6), preset="paper"), side=5))
    cases.append(Case(field=RFFNet(hidden_dim=6, preset="paper"), side=5))

    with Worker("jax", ONE_CORE, tmp_path) as worker:
        ours: list[float] = [worker.call("check", case, 3, 5) for case in cases]

    for case, loss in zip(cases, ours, strict=True):
        assert loss == pytest.approx(Bench(REFERENCE, ONE_CORE).check(case, 3, 5), rel=1e-5)


def test_baselines_refuse_what_they_do_not_compute() -> None:
    plain = Case(field=Siren(hidden_dim=4), side=4).problem(num_steps=2)
    frozen = RFFNet(hidden_dim=4, learnable_coefficients=False)

    assert OneByOne().why_not(plain) is None
    for problem in (
        replace(plain, loss=BCE()),
        replace(plain, config=replace(plain.config, optimizer=SGD())),
        replace(plain, config=replace(plain.config, pixel_fraction=0.5)),
        Case(field=frozen, side=4).problem(num_steps=2),
    ):
        assert "a baseline knows" in str(OneByOne().why_not(problem))


def test_jax_says_how_it_is_installed_or_which_field_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Case(field=MLP(hidden_dim=4), side=4).problem(num_steps=2)

    monkeypatch.setattr("fitting.bench.baselines.find_spec", lambda _: object())
    assert Jax().why_not(problem) == "no baseline was written for mlp"
    monkeypatch.setattr("fitting.bench.baselines.find_spec", lambda _: None)
    assert Jax().why_not(problem) == "not installed (pip install jax)"


def test_a_block_of_jax_fits_into_the_cache() -> None:
    small, large = (Case(field=Siren(), side=side).problem(1) for side in (8, 28))

    assert (Jax().block_size(small), Jax().block_size(large)) == (512, 32)


def test_contenders_are_the_baselines_and_every_engine_once() -> None:
    assert names()[:2] == ("one by one", "jax")
    assert set(names()[2:]) == set(ENGINE_NAMES) == {engine.name for engine in ENGINES}
    assert len(names()) == len(set(names()))
    assert REFERENCE in ENGINE_NAMES
    assert all(name in ROUNDED for name in names()[-len(ROUNDED) :])
    assert len(CONTENDERS) == len(ENGINES) + 2


def test_a_contender_that_cannot_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fitting.bench.baselines.find_spec", lambda _: None)
    problem = Case(field=Siren(hidden_dim=4), side=4).problem(num_steps=2)

    assert refusal("one by one", problem) is None
    assert refusal("jax", problem) == "not installed (pip install jax)"
    with pytest.raises(ConfigError, match="jax: not installed"):
        contender_for("jax", problem)
