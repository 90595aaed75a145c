from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fitting.bench import BenchConfig, BenchReport, Case, JobConfig, ScalingConfig, run_bench
from fitting.bench import measure as measure_module
from fitting.bench.contenders import ENGINE_NAMES
from fitting.bench.machine import describe_machine
from fitting.bench.report import Peak
from fitting.bench.worker import Bench, Place, WorkerError
from fitting.engines import reproducible_arithmetic
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.fields import MLP, Siren

SIREN = Case(field=Siren(hidden_dim=4, omega_0=9.0), side=4)
OTHER = Case(field=MLP(hidden_dim=4), side=5)
TINY = BenchConfig(
    headline=(SIREN,),
    others=(OTHER,),
    without=("compiled", "jax"),
    repetitions=2,
    seconds=0.001,
    check_fields=2,
    check_steps=3,
    scaling=ScalingConfig(fields=(3,), sides=(3, 4), widths=(2,), steps=(2, 5), num_steps=2),
    memory_fields=(2,),
    job=JobConfig(case=SIREN, num_fields=6, num_steps=3, seconds=0.001, quality_fields=4),
)
EMPTY = ScalingConfig(fields=(), sides=(), widths=(), steps=())


class InThisProcess:
    """A worker without a process; keeps what was asked of whom."""

    asked: ClassVar[list[tuple[str, str]]] = []
    broken: ClassVar[str] = ""

    def __init__(self, contender: str, place: Place, caches: Path) -> None:
        assert caches.is_dir()
        self._name = contender
        self._bench = Bench(contender, replace(place, device="cpu"))

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append((self._name, "stop"))

    def call(self, method: str, *arguments: Any) -> Any:
        self.asked.append((self._name, method))
        if method == "peak":
            return Peak(gflop_per_s=100.0, method="given")
        if self._name == self.broken and method in ("time", "memory"):
            raise WorkerError("it broke")
        if method == "memory":
            return 12.5
        return getattr(self._bench, method)(*arguments)


Asked = list[tuple[str, str]]


@contextlib.contextmanager
def all_in_this_process() -> Iterator[Asked]:
    """Run everything in this process, of which two cores may be used."""
    machine = replace(describe_machine("cpu"), cores=2)
    InThisProcess.asked, InThisProcess.broken = [], ""
    with pytest.MonkeyPatch.context() as patch, reproducible_arithmetic():
        patch.setattr(measure_module, "Worker", InThisProcess)
        patch.setattr(
            measure_module, "describe_machine", lambda device: replace(machine, device=device)
        )
        yield InThisProcess.asked


@pytest.fixture
def here() -> Iterator[Asked]:
    with all_in_this_process() as asked:
        yield asked


@pytest.fixture(scope="module")
def tiny() -> tuple[BenchReport, Asked]:
    """A complete run, and what was asked of whom."""
    with all_in_this_process() as asked:
        return run_bench(TINY), asked


def test_every_contender_is_timed_on_every_case(tiny: tuple[BenchReport, Asked]) -> None:
    report, asked = tiny

    engines = {name for name in ENGINE_NAMES if name in report.rows[0].timings}
    assert [row.name for row in report.rows] == ["siren 3x4 4x4", "mlp 3x4 5x5"]
    assert {"one by one", "vmapped"} <= set(report.rows[0].timings)
    for row in report.rows:
        assert set(row.losses) == set(row.timings) == set(row.ratios) == set(row.loss_deviation)
        assert not set(row.refused) & set(row.timings)
        assert max(row.loss_deviation.values()) < 1e-3
        best = max(engines, key=lambda name: row.timings[name].fs_per_s)
        assert row.fastest == best
        for name, timing in row.timings.items():
            assert timing.fs_per_s_worst <= timing.fs_per_s <= timing.fs_per_s_best
            flop = timing.fs_per_s * row.flop_per_field_step
            assert timing.gflop_per_s == pytest.approx(flop / 1e9)
            assert timing.share_of_peak == pytest.approx(timing.gflop_per_s / 100)
            assert row.ratios[name] * timing.fs_per_s == pytest.approx(row.timings[best].fs_per_s)
    assert not {name for name, _ in asked} & {"compiled", "jax"}


def test_rounds_are_interleaved_over_contenders(here: Asked) -> None:
    run_bench(replace(TINY, others=(), memory_fields=(), scaling=EMPTY))

    first_peak = here.index(next(call for call in here if call[1] == "peak"))
    assert {method for _, method in here[:first_peak]} == {"ready"}  # nobody is loading any more
    timed = [name for name, method in here if method == "time"]
    once = list(dict.fromkeys(timed))
    assert timed[: 2 * len(once)] == once + once


def test_only_threaded_engines_run_on_all_cores_and_headline_cases_only(
    tiny: tuple[BenchReport, Asked],
) -> None:
    report, _ = tiny

    assert [row.name for row in report.all_cores] == ["siren 3x4 4x4"]
    assert {row.cores for row in report.all_cores} == {2}
    assert {row.cores for row in report.rows} == {1}
    assert not {"one by one", "vmapped"} & set(report.all_cores[0].timings)
    assert report.peak_all_cores is not None


@pytest.mark.usefixtures("here")
def test_what_is_set_to_nothing_is_not_measured() -> None:
    report = run_bench(replace(TINY, others=(), memory_fields=(), scaling=EMPTY))

    assert report.scaling == report.memory == report.job == ()
    assert report.floors is None


def test_scaling_varies_one_thing_at_a_time(tiny: tuple[BenchReport, Asked]) -> None:
    report, _ = tiny

    mine = [point for point in report.scaling if point.engine == "vmapped"]
    assert [(point.varied, point.value) for point in mine] == [
        ("fields", 3), ("pixels", 9), ("pixels", 16), ("width", 2), ("steps", 2), ("steps", 5),
    ]  # fmt: skip
    assert (mine[0].fields, mine[0].steps) == (3, 2)
    assert (mine[-1].fields, mine[-1].steps) == (16, 5)
    assert all(point.fs_per_s > 0 for point in report.scaling)


def test_memory_is_measured_for_the_usual_engine_and_the_reference(
    tiny: tuple[BenchReport, Asked],
) -> None:
    report, _ = tiny

    assert {(item.side, item.fields, item.peak_mb) for item in report.memory} == {(4, 2, 12.5)}
    assert "vmapped" in {item.engine for item in report.memory}


def test_a_contender_that_breaks_is_noted_and_replaced(here: Asked) -> None:
    InThisProcess.broken = "one by one"

    report = run_bench(replace(TINY, memory_fields=(), scaling=EMPTY))

    for row in report.rows:
        assert row.refused["one by one"] == "failed: it broke"
        assert "one by one" not in row.timings
        assert "vmapped" in row.timings
    assert here.count(("one by one", "stop")) == 2


def test_the_report_survives_json(tiny: tuple[BenchReport, Asked]) -> None:
    report, _ = tiny

    text = json.dumps(config_to_mapping(report), allow_nan=False)
    assert config_from_mapping(BenchReport, json.loads(text)) == report


def test_an_engine_that_breaks_costs_the_others_nothing(here: Asked) -> None:
    said: list[str] = []
    InThisProcess.broken = "fused"

    report = run_bench(replace(TINY, others=()), say=said.append)

    assert "vmapped" in report.rows[0].timings
    assert {item.engine for item in report.memory} >= {"vmapped"}
    assert "fused" not in {item.engine for item in (*report.memory, *report.scaling)}
    if ("fused", "time") in here:
        assert "fused failed: it broke" in said


def test_a_gpu_adds_a_whole_fit_with_its_quality(
    here: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Case.problem
    monkeypatch.setattr(Case, "problem", lambda self, steps, _="cpu": problem(self, steps))
    monkeypatch.setattr(measure_module, "sines_per_second", lambda _: 1e6)

    report = run_bench(replace(TINY, scaling=EMPTY), device="cuda")

    assert (report.all_cores, report.memory) == ((), ())
    assert {item.engine for item in report.job} <= set(ENGINE_NAMES)
    for item in report.job:
        assert item.fields == 6
        assert item.seconds_whole == pytest.approx(item.seconds)
        assert item.fs_per_s == pytest.approx(18 / item.seconds)
        assert abs(item.psnr_db_difference) < 0.01
        assert item.psnr_db_worst <= item.psnr_db_difference
    (reference,) = (item for item in report.job if item.engine == "vmapped")
    assert reference.psnr_db_difference == reference.psnr_db_worst == 0
    assert report.floors is not None
    assert report.floors.multiply_adds_s == pytest.approx(18 * SIREN.flop / 100e9)
    assert report.floors.sines_s == pytest.approx(18 * 16 * 4 * 4 / 1e6)
    assert ("vmapped", "job") in here
    assert not any(method == "memory" for _, method in here)


@pytest.mark.skipif(find_spec("llvmlite") is None, reason="needs an engine that compiles")
def test_a_real_run_in_processes_is_complete(capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    config = replace(TINY, others=(), scaling=EMPTY, memory_fields=())

    report = run_bench(config, say=said.append)

    (row,) = report.rows
    assert set(row.timings) >= {"one by one", "vmapped"}
    assert not any(why.startswith("failed") for why in row.refused.values())
    assert report.peak.gflop_per_s > 0.1
    if "fused" in ENGINE_NAMES:
        (compiled,) = (item for item in report.compile if item.contender == "fused")
        assert compiled.cold_s > 0.01
    assert any("round 2 of 2" in line for line in said)
    assert capfd.readouterr() == ("", "")


def test_the_machine_is_described_with_its_versions() -> None:
    machine = describe_machine("cpu")

    assert machine.processor
    assert machine.cores >= 1
    assert machine.device == "cpu"
    assert machine.torch
    assert machine.date.endswith("+00:00")
    assert (machine.llvmlite is None) == (machine.lanes is None)
