from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nefbench.cli.demo import print_report
from studies.demo import DemoReport, DemoRow

REPORT = DemoReport(
    rows=(
        DemoRow(
            name="shared", psnr_db_median=30.04, num_diverged=2, test_accuracy=0.9,
            test_accuracy_sd=0.0125, train_accuracy=0.99,
        ),
        DemoRow(
            name="random", psnr_db_median=29.96, num_diverged=0, test_accuracy=0.12,
            test_accuracy_sd=0.01, train_accuracy=1.0,
        ),
        DemoRow(
            name="pixels", psnr_db_median=None, num_diverged=None, test_accuracy=0.97,
            test_accuracy_sd=0.002, train_accuracy=1.0,
        ),
    ),
    chance_accuracy=0.1,
    majority_accuracy=0.105,
    num_seeds=3,
    figures=("out/gallery.png", "out/accuracy.png"),
    seconds=61.4,
)  # fmt: skip


def test_the_report_is_a_table_the_figures_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_report(REPORT, Path("my out"))

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "1,797 digits as SIRENs, flat MLP, mean ± s.d. over 3 seeds"
    assert lines[2:] == [
        "weights, shared start 30.0 2 0.990 0.900 ± 0.013",
        "weights, random start 30.0 0 1.000 0.120 ± 0.010",
        "pixels (ceiling) 1.000 0.970 ± 0.002",
        "chance 0.100",
        "majority class 0.105",
        "figure out/gallery.png",
        "figure out/accuracy.png",
        "wrote my out in 61 s",
        "next nefbench inspect 'my out/dataset'",
    ]


@pytest.mark.parametrize("more", [[], ["--json"], ["--quiet"]])
def test_a_target_that_is_something_else_is_refused_before_any_work(
    nefbench: Any, tmp_path: Path, snapshot: Any, more: list[str]
) -> None:
    (tmp_path / "out" / "dataset").mkdir(parents=True)
    (tmp_path / "out" / "dataset" / "holiday.jpg").write_bytes(b"picture")

    error = nefbench("demo", "--out", "out", *more).error

    assert error.startswith("out/dataset exists and is not a neural dataset")
    assert snapshot(tmp_path) == {"out/dataset/holiday.jpg": b"picture"}


def test_other_fits_in_the_target_are_kept(nefbench: Any, tiny_settings: list[str]) -> None:
    nefbench(
        "fit", "digits-siren", *tiny_settings, "--set", "name=siren-h32-shared",
        "--out", "nefbench-demo/dataset",
    )  # fmt: skip

    error = nefbench("demo").error

    assert error.startswith(
        "nefbench-demo/dataset already holds config 'siren-h32-shared' made with other settings"
    )


def test_an_unknown_executor_is_refused(nefbench: Any, tmp_path: Path) -> None:
    error = nefbench("demo", "--executor", "nonsense").error

    assert error == "executor: expected 'auto', 'serial' or 'processes:N' (got 'nonsense')"
    assert list(tmp_path.iterdir()) == []
