"""Figures quoted in the README are those of committed results."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from nefbench.cli.demo import print_report
from nefbench.config import config_from_mapping
from studies.demo import DemoReport

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_the_recorded_table_of_the_demo(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))

    print_report(config_from_mapping(DemoReport, recorded), Path("nefbench-demo"))

    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(printed) in "\n".join(line.rstrip() for line in shown.splitlines())


def test_the_readme_shows_the_recorded_table_of_fitting_speed() -> None:
    recorded = json.loads((ROOT / "benchmarks/fit-cpu/bench-fit.json").read_text(encoding="utf-8"))

    table = runpy.run_path(str(ROOT / "benchmarks" / "readme_table.py"))["table"](recorded)

    assert table in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "record", "key", "kind", "page"),
    [
        ("families.py", "families/families.json", "rows", "Row", "signals.md"),
        ("starts.py", "starts/starts.json", "points", "Point", "starts.md"),
        ("zoo.py", "zoo/zoo.json", "results", "Result", "train.md"),
    ],
)
def test_a_page_shows_the_recorded_table(
    script: str, record: str, key: str, kind: str, page: str
) -> None:
    recorded = json.loads((ROOT / "benchmarks" / record).read_text(encoding="utf-8"))
    module = runpy.run_path(str(ROOT / "benchmarks" / script))

    table = module["table"]([module[kind](**entry) for entry in recorded[key]])

    assert table in (ROOT / "docs" / page).read_text(encoding="utf-8")
