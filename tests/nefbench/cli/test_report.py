from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


@pytest.fixture
def studied(nefbench: Any, tiny_toml: str) -> Path:
    """Folder of a finished grid of four trials."""
    Path("tiny.toml").write_text(tiny_toml, encoding="utf-8")
    assert nefbench("study", "tiny.toml").code == 0
    return Path("runs/tiny")


def test_questions_are_answered_on_a_page_and_on_stdout(nefbench: Any, studied: Path) -> None:
    outcome = nefbench("report", studied)

    assert outcome.code == 0
    assert "Do fields from a shared start make better data" in outcome.out
    assert "not answered: Which settings mattered?" in outcome.out
    page = (studied / "report/report.html").read_text(encoding="utf-8")
    assert "nefbench study runs/tiny/report/study.json --out runs/tiny-again" in page
    assert outcome.out.splitlines()[-1].startswith("wrote    runs/tiny/report/report.html")


def test_json_holds_verdicts_and_what_is_missing(nefbench: Any, studied: Path) -> None:
    outcome = nefbench("report", studied, "--out", "r", "--json")

    content = json.loads(outcome.out)
    assert content["page"] == "r/report.html"
    assert set(content["answers"]) >= {"shared-or-random", "distance-and-steps"}
    assert set(content["unanswered"]) == {
        "ratio-and-accuracy", "overfitting-and-size", "importances", "good-values", "two-settings",
        "pareto-front",
    }  # fmt: skip


# Refusals


def test_a_folder_without_a_study_is_refused(nefbench: Any) -> None:
    outcome = nefbench("report", "nowhere")

    assert outcome.code == 2
    assert outcome.err == (
        "error: nowhere holds no study (no journal.log); run nefbench study first\n"
    )
    assert not Path("nowhere").exists()


def test_a_study_that_is_not_there_is_refused_with_those_that_are(
    nefbench: Any, studied: Path
) -> None:
    outcome = nefbench("report", studied, "--name", "other")

    assert outcome.code == 2
    assert "holds no study 'other': it has tiny" in outcome.err


def test_a_study_of_other_software_is_refused(nefbench: Any) -> None:
    Path("s").mkdir()
    storage = JournalStorage(JournalFileBackend("s/journal.log"))
    optuna.create_study(study_name="theirs", storage=storage)

    outcome = nefbench("report", "s")

    assert outcome.code == 2
    assert "study 'theirs' was not made by nefbench study" in outcome.err


def test_a_file_that_is_no_journal_is_refused(nefbench: Any) -> None:
    Path("s").mkdir()
    Path("s/journal.log").write_text("not\na journal\n", encoding="utf-8")

    outcome = nefbench("report", "s")

    assert outcome.code == 2
    assert "journal.log is no journal of Optuna" in outcome.err
