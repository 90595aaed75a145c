from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fitting.bench import Case
from fitting.bench import peak as peak_module
from fitting.bench.peak import measure_peak
from fitting.bench.worker import (
    USUAL_STEPS,
    Bench,
    DrawnValues,
    Place,
    Worker,
    WorkerError,
    peak_resident_mb,
)
from fitting.engines import VmappedEngine
from nefbench.fields import Siren, evaluate

ONE_CORE = Place(device="cpu", core=None, threads=1)
CASE = Case(field=Siren(hidden_dim=4, omega_0=9.0), side=4)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def no_worker_stays_behind() -> Iterator[None]:
    before = {child.pid for child in multiprocessing.active_children()}
    yield
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_a_worker_is_pinned_answers_calls_and_leaves_the_environment_alone(
    tmp_path: Path,
) -> None:
    before = dict(os.environ)
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    place = Place(device="cpu", core=core, threads=1)

    with Worker("vmapped", place, tmp_path) as worker:
        assert dict(os.environ) == before
        loss = worker.call("check", CASE, 2, 3)
        with pytest.raises(WorkerError, match=r"AttributeError: .*no_such_method"):
            worker.call("no_such_method")
        assert worker.call("check", CASE, 2, 3) == loss
        if core is not None:
            assert os.sched_getaffinity(worker._process.pid or 0) == {core}
        worker._process.kill()
        with pytest.raises(WorkerError, match=r"its process died \(exit code -9\)"):
            worker.call("check", CASE, 2, 3)

    assert loss == pytest.approx(Bench("vmapped", ONE_CORE).check(CASE, 2, 3), rel=1e-6)


def test_a_check_is_the_mean_loss_of_the_first_fields() -> None:
    problem, block = CASE.problem(7), CASE.block(2)
    rows = VmappedEngine().fit(problem, block)
    values = evaluate(CASE.field, problem.spec, rows, problem.coords)

    loss = Bench("vmapped", ONE_CORE).check(CASE, 2, 7)

    assert loss == pytest.approx(float((values - block.targets).square().mean()), rel=1e-5)


def test_a_pace_is_that_of_a_block_as_large_as_in_a_usual_fit() -> None:
    pace = Bench("vmapped", ONE_CORE).pace(CASE)

    assert pace.block_size == VmappedEngine().block_size(CASE.problem(USUAL_STEPS))
    assert pace.fs_per_s > 0


def test_a_timing_counts_whole_fits_until_the_time_is_over() -> None:
    once = Bench("one by one", ONE_CORE).time(CASE, 5, 3, 1e-9)
    longer = Bench("one by one", ONE_CORE).time(CASE, 5, 3, 0.05)

    assert once.field_steps == 15
    assert longer.field_steps % 15 == 0
    assert longer.wall_s >= 0.05
    assert longer.cpu_s > 0


def test_one_block_is_timed_if_no_number_of_fields_is_given() -> None:
    run = Bench("one by one", ONE_CORE).time(CASE, None, 3, 1e-9)

    assert run.field_steps == 3


def test_a_job_fits_whole_blocks_and_gives_the_quality_of_the_first_fields() -> None:
    bench = Bench("one by one", ONE_CORE)

    short = bench.job(CASE, 3, 60, 1e-9, 10)
    whole = bench.job(CASE, 3, 60, 1e9, 10)
    longer = bench.job(CASE, 1, 300, 1e-9, 10)

    assert (short.fields, whole.fields) == (1, 3)
    assert len(short.psnr_db) == 1
    assert longer.psnr_db[0] > short.psnr_db[0] > 5
    assert short.seconds > 0
    assert short.peak_memory_mb == 0


def test_the_memory_of_a_fit_is_that_of_the_process() -> None:
    peak = Bench("vmapped", ONE_CORE).memory(CASE, 3)

    assert peak == pytest.approx(peak_resident_mb(), rel=0.2)
    assert peak > 50  # Python with torch


def test_drawn_values_are_a_function_of_their_position() -> None:
    values = DrawnValues(5, 4)

    assert len(values) == 5
    assert torch.equal(values.read([3]), values.read([1, 3])[1:])
    assert values.read([0]).shape == (1, 4, 1)
    assert 0 <= float(values.read([0, 1]).min()) <= float(values.read([0, 1]).max()) <= 1


def test_the_peak_is_a_loop_of_multiply_adds_where_kernels_can_be_compiled() -> None:
    pytest.importorskip("llvmlite")

    peak = measure_peak("cpu", 1)

    assert peak.method.startswith("FMA loop, ")
    assert 1 < peak.gflop_per_s < 10_000


def test_without_llvmlite_the_peak_is_a_product_of_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fitting.bench.peak.find_spec", lambda _: None)
    monkeypatch.setitem(peak_module._MATRIX_SIZE, "cpu", 256)

    peak = measure_peak("cpu", 1)

    assert peak.method == "torch fp32 product of 256 x 256 matrices"
    assert peak.gflop_per_s > 0


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (
            Place(device="cpu", core=1, threads=1),
            {"OMP_NUM_THREADS", "JAX_PLATFORMS", "XLA_FLAGS"},
        ),
        (Place(device="cpu", core=None, threads=2), {"OMP_NUM_THREADS", "JAX_PLATFORMS"}),
        (
            Place(device="cuda", core=None, threads=1),
            {"OMP_NUM_THREADS", "XLA_PYTHON_CLIENT_PREALLOCATE"},
        ),
    ],
)
def test_libraries_are_told_how_many_cores_there_are(place: Place, expected: set[str]) -> None:
    assert set(place.environment) == expected
