from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from classifiers.bench import Growth, ModelTiming, TrainBenchReport
from nefbench.cli.bench_train import print_report

TINY = [
    word
    for setting in (
        'models=["mlp","ng-gnn sparse","ng-gnn"]', "batch_size=2", "repetitions=1",
        "seconds=0.01", 'growth_models=["mlp"]', "growth_fields=[8,16]",
    )
    for word in ("--set", setting)
]  # fmt: skip


def timing(name: str, samples_per_s: float, baseline: str | None = None) -> ModelTiming:
    return ModelTiming(
        case="R1", name=name, num_parameters=92_010, num_modules=57, num_layer_modules=5,
        batch_size=32, samples_per_s=samples_per_s, samples_per_s_best=samples_per_s,
        samples_per_s_worst=samples_per_s, mflop_per_sample=100.0, floor_ms=20.0,
        memory_per_sample=3 * 2**19, baseline=baseline, ratio=4.0 if baseline else None,
        deviation=4e-7 if baseline else None,
    )  # fmt: skip


REPORT = TrainBenchReport(
    processor="Test CPU",
    device="cpu",
    threads=1,
    torch="2",
    torch_geometric="2.8",
    nefbench="0.1",
    date="2026-01-01T00:00:00+00:00",
    repetitions=5,
    gflop_per_s=160.0,
    timings=(timing("ng-gnn sparse", 40.0), timing("ng-gnn", 160.0, "ng-gnn sparse")),
    growth=(
        Growth(name="mlp", num_fields=512, seconds=0.512),
        Growth(name="mlp", num_fields=1024, seconds=1.024),
    ),
    seconds=60.0,
)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_table_has_a_row_per_model(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT)

    assert printed(capsys) == [
        "training steps, batch 32, median of 5; Test CPU, 1 thread",
        "model parameters modules a layer samples/s ms/step floor MB/sample rate deviation",
        "R1 ng-gnn sparse 92,010 57 5 40 800.0 20.0 1.50",
        "R1 ng-gnn 92,010 57 5 160 200.0 20.0 1.50 4.0 x ng-gnn sparse 4e-07",
        "",
        "floor ms of a step's matrix products alone, at 160 GFLOP/s",
        "growth mlp: ms per field of an epoch: 1.00 for 512, 1.00 for 1,024 fields",
    ]


def test_a_gpu_is_named_instead_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(dataclasses.replace(REPORT, device="Some GPU"))

    assert printed(capsys)[0] == "training steps, batch 32, median of 5; Some GPU"


def test_what_was_measured_is_written_and_named(nefbench: Any, tmp_path: Path) -> None:
    outcome = nefbench("bench", "train", *TINY)

    assert outcome.code == 0
    folder = tmp_path / "runs" / "bench-train"
    assert {path.name for path in folder.iterdir()} == {
        "bench-train.json", "bench-train.png", "bench-train.pdf", "bench-train.csv",
    }  # fmt: skip
    report = json.loads((folder / "bench-train.json").read_text(encoding="utf-8"))
    assert [(t["case"], t["name"]) for t in report["timings"]] == [
        (case, name) for case in ("R1", "R3") for name in ("mlp", "ng-gnn sparse", "ng-gnn")
    ]  # fmt: skip
    assert all(t["ratio"] > 0 for t in report["timings"] if t["baseline"] is not None)
    assert [point["num_fields"] for point in report["growth"]] == [8, 16]
    with (folder / "bench-train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["model"]) for row in rows] == [
        (t["case"], t["name"]) for t in report["timings"]
    ]
    assert float(rows[0]["samples_per_s"]) == report["timings"][0]["samples_per_s"]
    assert outcome.out.splitlines()[-2:] == [
        "figure   runs/bench-train/bench-train.png",
        f"wrote    runs/bench-train/bench-train.json in {report['seconds']:.0f} s",
    ]
    assert "R1: ng-gnn sparse" in outcome.err.splitlines()


def test_quick_can_be_changed_and_json_is_the_whole_result_on_stdout(nefbench: Any) -> None:
    settings = ["--set", 'models=["ng-gnn"]', "--set", "batch_size=1", "--set", "seconds=0.01"]

    outcome = nefbench("bench", "train", "--quick", "--json", *settings)

    report = json.loads(outcome.out)
    assert [(t["case"], t["name"]) for t in report["timings"]] == [("R1", "ng-gnn")]
    assert (report["repetitions"], report["growth"]) == (3, [])
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", 'models=["gin"]'], "expected models of mlp, gnn sparse, gnn, "),
        (["--set", 'cases=["R2"]'], "expected cases of R1, R3 (got 'R2')"),
        (["--set", "seconds=0.0"], "expected seconds > 0 (got 0.0)"),
        (["--set", "repetition=1"], "unknown key 'repetition'; did you mean 'repetitions'?"),
        (["--device", "tpu"], "--device: expected cpu, cuda or cuda:N (got 'tpu')"),
        (["--out", "file"], "file"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    nefbench: Any, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("")

    assert nefbench("bench", "train", *options).error.startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
