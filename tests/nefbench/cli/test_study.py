from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def study(nefbench: Any, tiny_toml: str) -> Callable[..., Any]:
    """Run ``nefbench study`` on a grid of four trials."""
    Path("tiny.toml").write_text(tiny_toml, encoding="utf-8")
    return lambda *more: nefbench("study", "tiny.toml", *more)


def test_the_table_lists_every_result_best_first(study: Any) -> None:
    outcome = study()

    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "tiny: 4 results, best validation accuracy first"
    rows = [line.split() for line in lines[2:6]]
    assert sorted((row[2], row[4]) for row in rows) == [
        ("random", "2"), ("random", "6"), ("shared", "2"), ("shared", "6"),
    ]  # fmt: skip
    accuracies = [float(row[9]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert lines[-1].startswith("wrote    runs/tiny in ")


def test_json_holds_everything_that_is_known_of_a_trial(study: Any) -> None:
    outcome = study("--json", "--out", "s", "--store", "kept")

    content = json.loads(outcome.out)
    assert content["folder"] == "s"
    assert content["num_trials"] == len(content["results"]) == 4
    for result in content["results"]:
        assert (Path("kept/datasets") / result["dataset"] / "nefbench.json").exists()
        assert (Path("kept/trainings") / result["training"] / "report.json").exists()
        assert set(result["measures"]) >= {"quality", "ratio_of_means", "nmi"}


def test_studies_share_their_store(study: Any) -> None:
    study("--out", "a")
    before = sorted(Path("store").rglob("*.parquet"))

    outcome = study("--out", "b", "--set", "name=second")

    assert outcome.code == 0
    assert sorted(Path("store").rglob("*.parquet")) == before


def test_a_study_stopped_by_ctrl_c_goes_on_with_the_same_command(
    tmp_path: Path, tiny_toml: str
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_toml.replace("[2, 6]", "[2, 6, 20, 30]"), "utf-8")
    command = [sys.executable, "-m", "nefbench", "study", "tiny.toml", "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("report.json")) and time.monotonic() < deadline:
        time.sleep(0.05)

    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "of 8 trials are finished: the same command continues" in err
    assert "Traceback" not in err
    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True
    )
    content = json.loads(done.stdout)
    assert len(content["results"]) == 8
    assert content["causes"] == {}


# Refusals


def test_a_study_in_which_everything_fails_ends_with_a_table_of_causes(study: Any) -> None:
    outcome = study("--set", "fields.siren.fit.optimizer={kind='adam', learning_rate=1e30}")

    assert outcome.code == 1
    assert "cause" in outcome.out
    # One cause, whichever dataset it struck.
    (row,) = [line for line in outcome.out.splitlines() if "split 'train' is empty" in line]
    assert row.split()[-1] == "4"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["phase-3-digits-smoke"], "no study preset 'phase-3-digits-smoke'; did you mean"),
        (["missing.toml"], "cannot read missing.toml"),
        (["phase-2-digits-smoke", "--set", "design.kind=both"], "design.kind: expected one of"),
        (["phase-2-digits-smoke", "--set", "fields.siren.space={x={kind='choice', values=[1]}}"],
         "space 'x' = 1: unknown key 'x'"),
        (["phase-2-mnist-smoke", "--set", "sources.mnist.path=./gone/mnist"], "gone/mnist"),
        (["phase-2-digits-smoke", "--storage", "mysql://u:p@h/d"], "--storage mysql://h/d: "),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_one_line_and_exit_2(
    nefbench: Any, arguments: list[str], text: str
) -> None:
    outcome = nefbench("study", *arguments)

    assert outcome.code == 2
    assert text in outcome.err
    assert outcome.err.count("\n") == 1
