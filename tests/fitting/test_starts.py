from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting import (
    Adam,
    FitConfig,
    FromFile,
    InitConfig,
    LearnedSGD,
    Meta,
    OptimizerConfig,
    Random,
    learn_start,
    run_fit,
)
from fitting.engines.vmapped import loss_of
from fitting.shard import problem_of
from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, DatasetFormatError, Interrupted
from nefbench.fields import Siren
from nefbench.signals import GridSignals, signals_from_array
from nefbench.weights import Manifest, load_neural_dataset, read_manifest, write_manifest
from nefbench.weights.start_file import StartFile, checksum_of, read_start_file, write_start_file

pytestmark = pytest.mark.usefixtures("one_thread")

META = Meta(outer_steps=6, tasks_per_step=4)
STEP_SIZES = Meta(outer_steps=6, tasks_per_step=4, learn_step_sizes=True)
FIELD = Siren(hidden_dim=4)
NUM_PARAMS = FIELD.spec(2, 1).num_params


@pytest.fixture
def signals() -> GridSignals:
    draw = np.random.default_rng(0)
    return signals_from_array(
        draw.random((10, 5, 4, 1)), np.arange(10) % 3, splits=[("train", 7), ("test", 3)]
    )


def recipe(init: InitConfig, optimizer: OptimizerConfig | None = None, **more: Any) -> FitConfig:
    settings = {"field": FIELD, "num_steps": 3, "part_rows": 3, "engine": "vmapped", "name": "it"}
    return FitConfig(init=init, optimizer=optimizer or Adam(), **{**settings, **more})


def rows_of(folder: Path, name: str = "it") -> Tensor:
    dataset = load_neural_dataset(folder, name)
    return torch.cat([dataset.split(split.name).weights for split in dataset.entry.splits])


def write_some_start(path: Path, field: Siren = FIELD, *, with_step_sizes: bool = True) -> Path:
    draw = torch.Generator().manual_seed(0)
    size = field.spec(2, 1).num_params
    params = 0.1 * torch.randn(1, size, generator=draw)
    sizes = 0.001 * torch.rand(1, size, generator=draw)
    write_start_file(path, StartFile(field, 2, 1, params, sizes if with_step_sizes else None))
    return path


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "reptile"])
def test_a_fit_learns_its_start_reports_it_and_keeps_it(
    signals: GridSignals, tmp_path: Path, algorithm: Any
) -> None:
    config = recipe(dataclasses.replace(META, algorithm=algorithm))
    reports: list[tuple[int, int, float]] = []

    report = run_fit(signals, config, tmp_path, on_meta=lambda *told: reports.append(told))

    assert [told[:2] for told in reports] == [(step, 6) for step in range(1, 7)]
    start = read_start_file(tmp_path / "it" / "start.npz")
    assert torch.equal(start.params, learn_start(signals, config).params)
    assert start.made["fit"]["init"]["outer_steps"] == 6
    assert report.meta_seconds > 0
    assert not list(tmp_path.rglob(".*")), "no checkpoint is left"

    # The fields are those that start from its file.
    given = recipe(FromFile(path=tmp_path / "it" / "start.npz"))
    run_fit(signals, given, tmp_path / "again")
    assert torch.equal(rows_of(tmp_path / "again"), rows_of(tmp_path))


def test_the_record_keeps_the_recipe_with_what_is_usual_written_out(
    signals: GridSignals, tmp_path: Path
) -> None:
    run_fit(signals, recipe(META), tmp_path)

    fit = read_manifest(tmp_path).configs["it"].fit
    assert fit["init"] == {
        "kind": "meta", "algorithm": "maml", "inner_steps": 2, "inner_learning_rate": 0.01,
        "learn_step_sizes": False, "outer_steps": 6, "outer_learning_rate": 3e-3,
        "tasks_per_step": 4,
    }  # fmt: skip
    run_fit(signals, config_from_mapping(FitConfig, fit), tmp_path)
    with pytest.raises(ConfigError, match=r"init.outer_steps = 6 there, 7 here"):
        run_fit(signals, recipe(dataclasses.replace(META, outer_steps=7)), tmp_path)


def test_a_start_that_lies_there_is_taken_and_another_one_is_not(
    signals: GridSignals, tmp_path: Path
) -> None:
    steps: list[int] = []

    def fit_anew(init: Meta) -> bytes:
        """Fit into the folder as if it held no fields."""
        write_manifest(tmp_path, Manifest())
        for part in tmp_path.rglob("*.parquet"):
            part.unlink()
        run_fit(signals, recipe(init), tmp_path, on_meta=lambda step, *_: steps.append(step))
        return (tmp_path / "it" / "start.npz").read_bytes()

    first = fit_anew(META)
    assert fit_anew(META) == first
    assert steps == [1, 2, 3, 4, 5, 6]

    assert fit_anew(dataclasses.replace(META, inner_steps=1)) != first
    assert steps == [1, 2, 3, 4, 5, 6] * 2


def test_damaged_start_files_are_learned_again(signals: GridSignals, tmp_path: Path) -> None:
    run_fit(signals, recipe(META), tmp_path)
    start = tmp_path / "it" / "start.npz"
    content, rows = start.read_bytes(), rows_of(tmp_path)

    start.write_bytes(content[:100])
    run_fit(signals, recipe(META), tmp_path, only=(0, 3))

    assert start.read_bytes() == content
    assert torch.equal(rows_of(tmp_path), rows)


def test_learning_that_is_interrupted_goes_on_with_the_same_command(
    signals: GridSignals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fitting.meta_learning._STEPS_BETWEEN_CHECKPOINTS", 2)
    run_fit(signals, recipe(META), tmp_path / "undisturbed")

    def interrupt(step: int, num_steps: int, loss: float) -> None:
        del num_steps, loss
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="in outer step 5 of 6 of learning the start"):
        run_fit(signals, recipe(META), tmp_path / "stopped", on_meta=interrupt)
    steps: list[int] = []
    run_fit(
        signals, recipe(META), tmp_path / "stopped", on_meta=lambda step, *_: steps.append(step)
    )

    assert steps == [5, 6]
    assert torch.equal(rows_of(tmp_path / "stopped"), rows_of(tmp_path / "undisturbed"))
    assert not list(tmp_path.rglob(".*"))


def test_the_record_depends_on_the_content_of_a_start_file_not_on_its_place(
    signals: GridSignals, tmp_path: Path
) -> None:
    here, there = write_some_start(tmp_path / "a.npz"), write_some_start(tmp_path / "b.npz")

    run_fit(signals, recipe(FromFile(path=here)), tmp_path / "one")
    run_fit(signals, recipe(FromFile(path=there, sha256=checksum_of(here))), tmp_path / "two")

    one, two = (read_manifest(tmp_path / folder).configs["it"] for folder in ("one", "two"))
    assert one == two
    assert one.fit["init"] == {"kind": "file", "path": "start.npz", "sha256": checksum_of(here)}
    assert (tmp_path / "one" / "it" / "start.npz").read_bytes() == here.read_bytes()

    here.unlink()  # the dataset keeps its own copy
    continued = config_from_mapping(FitConfig, {**one.fit, "engine": "vmapped"})
    rows = rows_of(tmp_path / "one")
    assert run_fit(signals, continued, tmp_path / "one", only=(0, 3)).num_fitted == 3
    assert torch.equal(rows_of(tmp_path / "one"), rows)


def test_another_start_file_is_another_recipe(signals: GridSignals, tmp_path: Path) -> None:
    path = write_some_start(tmp_path / "a.npz")
    run_fit(signals, recipe(FromFile(path=path)), tmp_path / "out")
    write_some_start(path, with_step_sizes=False)

    with pytest.raises(ConfigError, match=r"already holds config 'it'.*init\.sha256"):
        run_fit(signals, recipe(FromFile(path=path)), tmp_path / "out")


def one_step_by_hand(signals: GridSignals, start: StartFile, rate: float) -> Tensor:
    problem = problem_of(signals, FitConfig(field=start.field))
    gradient = vmap(grad(loss_of(start.field, start.spec, problem.loss)), in_dims=(0, None, 0))
    rows = start.params.repeat(10, 1)
    assert start.step_sizes is not None
    slopes: Tensor = gradient(rows, problem.coords, signals.targets(range(10)))
    return rows - rate * start.step_sizes * slopes


def test_learned_step_sizes_are_those_of_the_fit(signals: GridSignals, tmp_path: Path) -> None:
    config = recipe(STEP_SIZES, LearnedSGD(learning_rate=0.5), num_steps=1)

    run_fit(signals, config, tmp_path)

    start = read_start_file(tmp_path / "it" / "start.npz")
    expected = one_step_by_hand(signals, start, 0.5)
    torch.testing.assert_close(rows_of(tmp_path), expected, rtol=1e-5, atol=1e-6)
    assert start.step_sizes is not None
    assert len(start.step_sizes.unique()) > NUM_PARAMS / 2


def test_step_sizes_may_come_from_another_file_than_the_start(
    signals: GridSignals, tmp_path: Path
) -> None:
    sizes = write_some_start(tmp_path / "sizes.npz")
    config = recipe(Random(), LearnedSGD(path=sizes), num_steps=1)

    run_fit(signals, config, tmp_path / "out")

    entry = read_manifest(tmp_path / "out").configs["it"]
    assert entry.fit["optimizer"] == {
        "kind": "learned-sgd", "learning_rate": 1.0, "path": "step-sizes.npz",
        "sha256": checksum_of(sizes),
    }  # fmt: skip
    rows = rows_of(tmp_path / "out")
    sizes.unlink()
    continued = config_from_mapping(FitConfig, {**entry.fit, "engine": "vmapped"})
    run_fit(signals, continued, tmp_path / "out", only=(7, 10))
    assert torch.equal(rows_of(tmp_path / "out"), rows)


def test_the_compiled_engine_takes_learned_step_sizes(signals: GridSignals, tmp_path: Path) -> None:
    init = FromFile(path=write_some_start(tmp_path / "start.npz"))
    for engine in ("vmapped", "compiled"):
        run_fit(signals, recipe(init, LearnedSGD(), engine=engine), tmp_path / engine)

    # float32, three steps
    compiled, reference = rows_of(tmp_path / "compiled"), rows_of(tmp_path / "vmapped")
    torch.testing.assert_close(compiled, reference, rtol=1e-4, atol=1e-5)


REPTILE = Meta(algorithm="reptile", outer_steps=2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (recipe(META, num_refits=2), "num_refits: fits of the same signal from one start"),
        (recipe(META, LearnedSGD()), "learned-sgd needs step sizes"),
        (recipe(Random(), LearnedSGD()), "learned-sgd needs step sizes"),
        (recipe(REPTILE, LearnedSGD(path=Path("x.npz"))), "cannot be learned-sgd"),
    ],
)
def test_starts_that_make_no_sense_are_refused_before_any_work(
    signals: GridSignals, tmp_path: Path, config: FitConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_fit(signals, config, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_files_that_do_not_fit_are_refused_before_any_work(
    signals: GridSignals, tmp_path: Path
) -> None:
    right = write_some_start(tmp_path / "right.npz")
    wrong = write_some_start(tmp_path / "wrong.npz", Siren(hidden_dim=5))
    bare = write_some_start(tmp_path / "bare.npz", with_step_sizes=False)
    cases: list[tuple[FitConfig, str]] = [
        (recipe(FromFile(path=tmp_path / "none.npz")), "no such start file"),
        (recipe(FromFile(path=wrong)), "starts siren of width 5.*fit are siren of width 4"),
        (recipe(FromFile(path=right, sha256="0" * 64)), "not the start file that was asked for"),
        (recipe(Random(), LearnedSGD(path=wrong)), "starts siren of width 5"),
        (recipe(Random(), LearnedSGD(path=bare)), "has no step sizes"),
    ]

    for config, message in cases:
        with pytest.raises(DatasetFormatError, match=message):
            run_fit(signals, config, tmp_path / "out")
    with pytest.raises(ConfigError, match="learned-sgd needs step sizes"):
        run_fit(signals, recipe(FromFile(path=bare), LearnedSGD()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refits_from_one_start_are_allowed_where_they_differ(
    signals: GridSignals, tmp_path: Path
) -> None:
    run_fit(signals, recipe(META, num_refits=2, pixel_fraction=0.5), tmp_path)

    rows = rows_of(tmp_path)
    assert len(rows) == 20
    assert len(rows.unique(dim=0)) == 20
