from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fitting.bench import QUICK, BenchConfig, BenchReport, Case
from fitting.bench.report import (
    CaseResult,
    CompileTime,
    Floors,
    JobResult,
    Machine,
    Peak,
    PeakMemory,
    ScalingPoint,
    Timing,
)
from nefbench.cli.bench import print_report
from nefbench.config import config_to_mapping
from nefbench.fields import Siren


def timing(fs_per_s: float) -> Timing:
    return Timing(
        fields=4, steps=5, fs_per_s=fs_per_s, fs_per_s_best=fs_per_s, fs_per_s_worst=fs_per_s,
        cpu_over_wall=1.0, gflop_per_s=fs_per_s / 1000, share_of_peak=fs_per_s / 500_000,
    )  # fmt: skip


def result(name: str, rates: dict[str, float], cores: int = 1, **more: Any) -> CaseResult:
    engines = [key for key in rates if key not in ("one by one", "jax")]
    fastest = max(engines, key=lambda key: rates[key], default=None)
    return CaseResult(
        name=name,
        case=Case(field=Siren(), side=8),
        cores=cores,
        flop_per_field_step=1e6,
        timings={key: timing(rate) for key, rate in rates.items()},
        losses={},
        fastest=fastest,
        ratios={} if fastest is None else {key: rates[fastest] / rates[key] for key in rates},
        **({"refused": {}, "loss_deviation": {}} | more),
    )


REPORT = BenchReport(
    machine=Machine(
        processor="Test CPU", cores=2, lanes=16, device="cpu", python="3.11", nefbench="0.1",
        torch="2", llvmlite="0.46", jax=None, date="2026-01-01T00:00:00+00:00",
    ),
    peak=Peak(gflop_per_s=500.0, method="FMA loop, 16 lanes"),
    peak_all_cores=Peak(gflop_per_s=990.0, method="FMA loop, 16 lanes"),
    check_steps=50,
    repetitions=5,
    rows=(
        result(
            "siren 3x32 8x8",
            {"one by one": 2_500.0, "vmapped": 25_000.0, "fused": 250_000.0},
            refused={"jax": "not installed (pip install jax)", "fused-tf32": "not on cpu"},
            loss_deviation={"vmapped": 0.0, "fused": 2e-5},
        ),
        result(
            "gabornet 4x32 8x8",
            {"one by one": 2_000.0, "vmapped": 10_000.0},
            refused={"fused": "it has no kernel for gabornet", "jax": "failed: it broke"},
        ),
    ),
    all_cores=(result("siren 3x32 8x8", {"fused": 480_000.0}, cores=2),),
    compile=(CompileTime(case="siren 3x32 8x8", contender="fused", cold_s=0.31, warm_s=0.1),),
    scaling=(
        ScalingPoint(varied="width", value=8, engine="fused", fields=4, steps=5, fs_per_s=9e5),
        ScalingPoint(varied="width", value=32, engine="fused", fields=4, steps=5, fs_per_s=2e5),
    ),
    memory=(
        PeakMemory(engine="fused", side=8, fields=100, peak_mb=401.4),
        PeakMemory(engine="fused", side=8, fields=1000, peak_mb=410.0),
    ),
    floors=None,
    job=(),
    seconds=61.2,
)  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[BenchConfig]:
    """Replace the measurement by a report; returns the configurations it was asked for."""
    asked: list[BenchConfig] = []

    def run(config: BenchConfig, *, device: str, say: Callable[[str], None]) -> BenchReport:
        assert device == "cpu"
        asked.append(config)
        say("1 core: peak")
        return REPORT

    monkeypatch.setattr("fitting.bench.run_bench", run)
    return asked


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_table_has_a_row_per_case_and_a_column_per_contender_and_ratio(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_report(REPORT)

    lines = printed(capsys)
    assert lines == [
        "field-steps per second, median of 5; Test CPU, one core where no number of cores is given",
        "case one by one vmapped fused GFLOP/s % of peak x loop x eager",
        "siren 3x32 8x8 2,500 25,000 250,000 250.0 50 100.0 10.0",
        "gabornet 4x32 8x8 2,000 10,000 - 10.0 2 5.0 1.0",
        "siren 3x32 8x8, 2 cores - - 480,000 480.0 96 - -",
        "",
        "peak 500 GFLOP/s (FMA loop, 16 lanes), 990 on all cores",
        "check mean losses after 50 steps agree to four digits in 1 of 1 case: largest relative "
        "deviation 2e-05 (fused on siren 3x32 8x8)",
        "compile fused: 0.3 s cold, 0.1 s from the disk",
        "memory fused, 8x8: 401 MB for 100, 410 MB for 1,000 fields",
        "without jax: not installed (pip install jax)",
        "failed 1 timing; see the JSON",
    ]


def test_losses_that_differ_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    row = replace(REPORT.rows[0], loss_deviation={"vmapped": 0.0, "fused": 0.02})

    print_report(replace(REPORT, rows=(row,)))

    assert (
        "check mean losses after 50 steps agree to four digits in 0 of 1 case: largest relative "
        "deviation 2e-02 (fused on siren 3x32 8x8)"
    ) in printed(capsys)


def test_a_gpu_has_a_second_table(capsys: pytest.CaptureFixture[str]) -> None:
    job = JobResult(
        engine="fused", fields=8192, steps=1000, seconds=1.5, seconds_whole=12.8, fs_per_s=5.5e6,
        gflop_per_s=28_000.0, share_of_peak=0.55, psnr_db_median=41.2, psnr_db_difference=-0.01,
        psnr_db_worst=-0.4, peak_memory_mb=812.0,
    )  # fmt: skip
    machine = replace(REPORT.machine, device="Some GPU")
    floors = Floors(multiply_adds_s=7.25, sines_s=1.9)

    print_report(replace(REPORT, machine=machine, floors=floors, job=(job,), peak_all_cores=None))

    lines = printed(capsys)
    assert lines[0] == "field-steps per second, median of 5; Some GPU"
    assert "whole fit; floors: multiply-adds 7.2 s, sines 1.9 s" in lines
    assert "fused 8,192 1,000 1.50 12.8 5,500,000 28,000 55 41.20 -0.01 -0.40 812" in lines


def test_json_and_figure_are_written_and_named(
    nefbench: Any, measured: list[BenchConfig], tmp_path: Path
) -> None:
    outcome = nefbench("bench", "fit")

    assert outcome.code == 0
    assert measured == [BenchConfig()]
    folder = tmp_path / "runs" / "bench-fit"
    assert {path.name for path in folder.iterdir()} == {
        "bench-fit.json", "bench-fit.png", "bench-fit.pdf", "bench-fit.csv",
    }  # fmt: skip
    written = json.loads((folder / "bench-fit.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(config_to_mapping(REPORT)))
    assert outcome.out.splitlines()[-2:] == [
        "figure   runs/bench-fit/bench-fit.png",
        "wrote    runs/bench-fit/bench-fit.json in 61 s",
    ]
    assert outcome.err == "1 core: peak\n"


@pytest.mark.usefixtures("measured")
def test_the_csv_holds_what_was_drawn(nefbench: Any, tmp_path: Path) -> None:
    nefbench("bench", "fit", "--out", "here")

    with (tmp_path / "here" / "bench-fit.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["panel", "value", "contender", "fs_per_s", "share_of_peak"]
    assert ["case", "siren 3x32 8x8", "fused", "250000.0", "0.5"] in rows
    assert rows[-1] == ["width", "32", "fused", "200000.0", ""]


def test_quick_is_a_smaller_configuration_that_can_be_changed(
    nefbench: Any, measured: list[BenchConfig]
) -> None:
    outcome = nefbench(
        "bench", "fit", "--quick", "--quiet", "--set", "repetitions=1", "--set", 'without=["jax"]'
    )

    assert measured == [replace(QUICK, repetitions=1, without=("jax",))]
    assert outcome.err == ""


@pytest.mark.usefixtures("measured")
def test_json_is_the_whole_result_on_stdout(nefbench: Any) -> None:
    outcome = nefbench("bench", "fit", "--json")

    assert json.loads(outcome.out) == json.loads(json.dumps(config_to_mapping(REPORT)))
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "repetition=1"], "unknown key 'repetition'; did you mean 'repetitions'?"),
        (["--set", "repetitions=0"], "expected repetitions >= 1 (got 0)"),
        (["--set", "seconds=-1.0"], "expected seconds > 0 (got -1.0)"),
        (["--set", 'without=["fussed"]'], "without: nobody is called 'fussed'; there are: "),
        (["--device", "tpu"], "--device: expected cpu, cuda or cuda:N (got 'tpu')"),
        (["--out", "file"], "file"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    nefbench: Any, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("")

    assert nefbench("bench", "fit", *options).error.startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
