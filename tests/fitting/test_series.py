"""One fit with snapshots against one fit per number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fitting import SGD, AdamW, FitConfig, Meta, Processes, Random, WarmupCosine, run_fit
from fitting.config import EngineName
from fitting.engines import ENGINES
from fitting.fit import run_fit_series
from fitting.shard import problem_of
from nefbench.errors import ConfigError
from nefbench.fields import Siren
from nefbench.signals import ProceduralShapesConfig, Signals, signals_from_array
from nefbench.signals.views import Views

pytestmark = pytest.mark.usefixtures("one_thread")

Snapshot = Callable[[Path], dict[str, bytes]]

CONFIG = FitConfig(
    field=Siren(hidden_dim=4), init=Random(), optimizer=AdamW(weight_decay=1e-3), part_rows=3
)
STEPS = (1, 4, 7)


def make_signals() -> Signals:
    draw = np.random.default_rng(0)
    return signals_from_array(
        draw.random((6, 5, 4, 1)), np.arange(6) % 3, splits=[("train", 4), ("test", 2)]
    )


def folders_in(root: Path) -> dict[int, Path]:
    return {steps: root / f"steps-{steps}" for steps in STEPS}


def separate_fits(signals: Signals, config: FitConfig, root: Path) -> None:
    for steps, folder in folders_in(root).items():
        run_fit(signals, dataclasses.replace(config, num_steps=steps), folder)


@pytest.mark.parametrize("engine", sorted({engine.name for engine in ENGINES}))
def test_every_byte_of_a_series_is_that_of_separate_fits(
    engine: EngineName, tmp_path: Path, snapshot: Snapshot
) -> None:
    signals, config = make_signals(), dataclasses.replace(CONFIG, engine=engine)
    problem = problem_of(signals, config)
    able = [e for e in ENGINES if e.name == engine and e.why_not(problem) is None]
    if not able:
        pytest.skip(f"{engine} cannot fit this here")
    separate_fits(signals, config, tmp_path / "separate")

    run_fit_series(signals, config, folders_in(tmp_path / "series"))

    assert snapshot(tmp_path / "series") == snapshot(tmp_path / "separate")


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_fraction": 0.5, "num_refits": 2, "views": Views(count=2, rotation=10.0)},
        {"schedule": WarmupCosine(warmup_steps=2, decay_steps=7)},
        {"init": Meta(algorithm="reptile", outer_steps=2), "optimizer": SGD(learning_rate=0.01)},
    ],
)
def test_sampling_schedules_and_learned_starts_do_not_know_where_the_fit_will_end(
    changes: dict[str, object], tmp_path: Path, snapshot: Snapshot
) -> None:
    signals, config = make_signals(), dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    separate_fits(signals, config, tmp_path / "separate")

    run_fit_series(signals, config, folders_in(tmp_path / "series"))

    assert snapshot(tmp_path / "series") == snapshot(tmp_path / "separate")


def test_a_series_of_shapes_is_separate_fits_too(tmp_path: Path, snapshot: Snapshot) -> None:
    signals = ProceduralShapesConfig(
        train_size=4,
        validation_size=1,
        test_size=1,
        num_uniform=200,
        num_near_surface=200,
        num_held_out=200,
    ).open()
    config = dataclasses.replace(CONFIG, points_per_step=64)
    separate_fits(signals, config, tmp_path / "separate")

    run_fit_series(signals, config, folders_in(tmp_path / "series"))

    assert snapshot(tmp_path / "series") == snapshot(tmp_path / "separate")


def test_a_series_in_worker_processes_is_the_same(tmp_path: Path, snapshot: Snapshot) -> None:
    run_fit_series(make_signals(), CONFIG, folders_in(tmp_path / "serial"))

    run_fit_series(make_signals(), CONFIG, folders_in(tmp_path / "parallel"), executor=Processes(2))

    assert snapshot(tmp_path / "parallel") == snapshot(tmp_path / "serial")


def test_a_start_is_learned_once(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, init=Meta(outer_steps=3), optimizer=SGD())
    learned: list[int] = []

    run_fit_series(
        make_signals(), config, folders_in(tmp_path), on_meta=lambda step, *_: learned.append(step)
    )

    assert learned == sorted(set(learned))
    assert max(learned) == 3


def test_only_what_some_dataset_lacks_is_fitted_again(tmp_path: Path, snapshot: Snapshot) -> None:
    run_fit_series(make_signals(), CONFIG, folders_in(tmp_path))
    whole = snapshot(tmp_path)
    lost = folders_in(tmp_path)[4] / CONFIG.config_name / "train" / "part-000000-000003.parquet"
    lost.unlink()

    reports = run_fit_series(make_signals(), CONFIG, folders_in(tmp_path))

    assert {report.num_fitted for report in reports.values()} == {3}
    assert snapshot(tmp_path) == whole


def test_a_dataset_of_the_series_can_be_had_before(tmp_path: Path, snapshot: Snapshot) -> None:
    run_fit_series(make_signals(), CONFIG, folders_in(tmp_path / "series"))
    folders = folders_in(tmp_path / "before")
    run_fit(make_signals(), dataclasses.replace(CONFIG, num_steps=4), folders[4])

    run_fit_series(make_signals(), CONFIG, folders)

    assert snapshot(tmp_path / "before") == snapshot(tmp_path / "series")


def test_reports_say_what_one_call_did(tmp_path: Path) -> None:
    reports = run_fit_series(make_signals(), CONFIG, folders_in(tmp_path))

    assert tuple(reports) == STEPS
    assert [report.dataset.entry.fit["num_steps"] for report in reports.values()] == [1, 4, 7]
    assert {report.num_fitted for report in reports.values()} == {6}
    assert {report.num_steps for report in reports.values()} == {7}


# Refusals


def test_a_schedule_that_ends_with_the_fit_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, schedule=WarmupCosine(warmup_steps=0))

    with pytest.raises(ConfigError, match=r"fit of 4 steps .* first of one of 7; set schedule.dec"):
        run_fit_series(make_signals(), config, folders_in(tmp_path))

    assert not list(tmp_path.iterdir())


def test_fields_that_stop_by_themselves_are_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, until_psnr=30.0)

    with pytest.raises(ConfigError, match="until_psnr: fields stop by themselves"):
        run_fit_series(make_signals(), config, folders_in(tmp_path))


def test_one_folder_for_two_numbers_of_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder of its own"):
        run_fit_series(make_signals(), CONFIG, {1: tmp_path, 2: tmp_path / "x" / ".."})
