from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fitting import Automatic, FitConfig, Processes, Serial, parse_executor, run_fit
from fitting.executors import ShardJob
from fitting.plan import Shard
from fitting.shard import fit_shard
from nefbench.errors import ConfigError, NefbenchError, SignalError
from nefbench.fields import Siren
from nefbench.signals import GridSignals, signals_from_array
from nefbench.signals.base import ArrayValues
from nefbench.weights.parts import FieldRows

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = FitConfig(field=Siren(hidden_dim=4), num_steps=3, part_rows=2)


def make_signals(count: int = 5) -> GridSignals:
    return signals_from_array(np.random.default_rng(0).random((count, 5, 4, 1)))


def make_job(signals: GridSignals) -> ShardJob:
    return ShardJob(signals, CONFIG, (3,), "cpu", lambda shard, series: (shard, *series))


@pytest.fixture(autouse=True)
def no_worker_stays_behind() -> Iterator[None]:
    before = {child.pid for child in multiprocessing.active_children()}
    yield
    assert {child.pid for child in multiprocessing.active_children()} <= before


# Names


def test_executors_are_named_auto_serial_or_processes_with_a_count() -> None:
    assert parse_executor("auto") == Automatic()
    assert parse_executor("serial") == Serial()
    assert parse_executor("processes:1") == Processes(1)
    assert parse_executor("processes:16") == Processes(16)


@pytest.mark.parametrize(
    "text",
    ["", "Serial", "processes", "processes:", "processes:0", "processes:-1", "processes:1.5",
     "processes: 2", "processes:2 ", "processes:2\n", "processes:02", "threads:2"],
)  # fmt: skip
def test_any_other_name_is_refused_with_the_choice(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected 'auto', 'serial' or 'processes:N'") as caught:
        parse_executor(text)
    assert repr(text) in str(caught.value)


def chosen_for(config: FitConfig) -> object:
    job = dataclasses.replace(make_job(make_signals()), config=config)
    return Automatic().choose(job, [Shard("train", 0, 5)])


def test_an_engine_that_uses_all_cores_needs_no_worker_processes() -> None:
    assert chosen_for(dataclasses.replace(CONFIG, num_steps=10**9, engine="fused")) == Serial()


def test_an_engine_for_one_core_gets_one_process_per_core_if_there_is_much_to_do() -> None:
    cores = len(os.sched_getaffinity(0))
    many = Processes(cores) if cores > 1 else Serial()

    # 5 fields x 20 points x 37 weights: 3,700 products per step.
    assert chosen_for(dataclasses.replace(CONFIG, num_steps=10**7, engine="vmapped")) == many
    assert chosen_for(dataclasses.replace(CONFIG, num_steps=10**6, engine="vmapped")) == Serial()


# In this process


def test_serial_stores_one_shard_after_another_and_yields_what_storing_returned() -> None:
    signals = make_signals()
    shards = [Shard("train", 2, 4), Shard("train", 0, 2), Shard("train", 4, 5)]
    reported: list[int] = []

    results = list(Serial().run(make_job(signals), shards, reported.append))

    assert [shard for shard, _ in results] == shards
    for shard, rows in results:
        assert isinstance(rows, FieldRows)
        assert torch.equal(rows.weights, fit_shard(signals, CONFIG, shard).weights)
    assert reported == [2, 2, 1]


def test_serial_fits_a_shard_only_when_it_is_asked_for() -> None:
    stored: list[Shard] = []
    job = dataclasses.replace(make_job(make_signals()), store=lambda shard, _: stored.append(shard))

    results = Serial().run(job, [Shard("train", 0, 2), Shard("train", 2, 4)], lambda _: None)
    next(results)

    assert stored == [Shard("train", 0, 2)]


def test_a_failure_to_store_reaches_the_caller() -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    job = dataclasses.replace(make_job(make_signals()), store=refuse)

    with pytest.raises(OSError, match="No space left"):
        list(Serial().run(job, [Shard("train", 0, 2)], lambda _: None))


# In worker processes; each takes seconds to start, so there are few of these


@pytest.mark.parametrize("executor", [Serial(), Processes(3)])
def test_without_shards_nothing_is_started(executor: Serial | Processes) -> None:
    # The job could not even be sent to a worker: its store is a lambda.
    assert list(executor.run(make_job(make_signals()), [], lambda _: None)) == []


def test_there_are_no_more_workers_than_shards(tmp_path: Path) -> None:
    workers: set[int | None] = set()
    done: list[tuple[int, int]] = []

    def watch(finished: int, total: int) -> None:
        workers.update(child.pid for child in multiprocessing.active_children())
        done.append((finished, total))

    config = dataclasses.replace(CONFIG, part_rows=5)
    report = run_fit(make_signals(), config, tmp_path, executor=Processes(8), on_progress=watch)

    assert len(workers) == 1
    assert report.num_fitted == 5
    assert (done[0], done[-1]) == ((0, 5), (5, 5))
    assert done == sorted(done)


def test_an_exception_in_a_worker_reaches_the_caller_with_its_type_and_text(
    tmp_path: Path,
) -> None:
    signals = make_signals()
    values = signals.values.read(range(5))
    values[3] = torch.nan
    broken = dataclasses.replace(signals, name="toys", values=ArrayValues(values))

    with pytest.raises(SignalError) as caught:
        run_fit(broken, CONFIG, tmp_path, executor=Processes(1))

    assert type(caught.value) is SignalError
    assert str(caught.value) == (
        "toys: 1 signal(s) hold NaN or infinite values (positions 3); remove or repair them"
    )
    parts = {path.name for path in tmp_path.rglob("*.parquet")}
    assert "part-000000-000002.parquet" in parts, "the shard before is on disk"
    assert "part-000002-000004.parquet" not in parts


def test_a_killed_worker_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    # Fitting all fields takes several times as long as the main process looks away.
    config = dataclasses.replace(CONFIG, num_steps=400_000, part_rows=1)

    def kill_during_the_third_field(finished: int, _: int) -> None:
        if finished >= 2:
            for child in multiprocessing.active_children():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(NefbenchError, match="a worker process was killed") as caught:
        run_fit(make_signals(24), config, tmp_path, executor=Processes(1),
                on_progress=kill_during_the_third_field)  # fmt: skip

    assert "run the same command again" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert 1 <= len(list(tmp_path.rglob("*.parquet"))) < 24, "finished parts are on disk"
