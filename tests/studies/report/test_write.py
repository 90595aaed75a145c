from __future__ import annotations

import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from studies.design import StudyConfig
from studies.recipes import load_study_config
from studies.report import WrittenReport, write_report
from studies.run import run_study
from studies.storage import JOURNAL_NAME, load_study, open_storage, open_study
from studies.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def written(tiny_study: StudyConfig, tmp_path: Path) -> WrittenReport:
    """The report of a finished grid of four trials."""
    run_study(tiny_study, tmp_path)
    study, config = load_study(None, open_storage(str(tmp_path / JOURNAL_NAME)))
    return write_report(study, config, Store(tmp_path / "store"), tmp_path / "report")


class _Page(HTMLParser):
    """Collects what a browser would fetch, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(written: WrittenReport) -> None:
    page = _Page()
    page.feed(written.page.read_text(encoding="utf-8"))

    assert page.open == []
    assert all(item.startswith(("data:image/png;base64,", "#")) for item in page.fetched)
    assert sum(item.startswith("data:") for item in page.fetched) == len(written.answers) >= 4


def test_every_answer_is_on_both_pages_with_its_numbers(written: WrittenReport) -> None:
    html, markdown = written.page.read_text("utf-8"), written.markdown.read_text("utf-8")

    for answer in written.answers:
        assert answer.question in markdown
        assert f'id="{answer.key}"' in html
        for ending in ("png", "pdf", "csv"):
            assert (written.page.parent / "figures" / f"{answer.key}.{ending}").exists()
        path = written.page.parent / "figures" / f"{answer.key}.csv"
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        assert tuple(rows[0]) == answer.drawn_columns
        assert len(rows) == len(answer.drawn) + 1
    for item in written.unanswered:
        assert f"Needs {item.needs}." in markdown
    assert "4 trials finished" in html
    assert "1 run of " in html
    assert re.search(r"kJ of whole machines during 1 of them|energy unknown: no counter", html)


def test_tables_of_the_markdown_have_as_many_cells_as_columns(written: WrittenReport) -> None:
    blocks = re.findall(r"(?:^\|.*\|? *\n)+", written.markdown.read_text("utf-8"), re.MULTILINE)

    assert len(blocks) == len(written.answers)
    for block, answer in zip(blocks, written.answers, strict=True):
        lines = [line.strip() for line in block.splitlines()]
        assert {line.count("|") for line in lines} == {len(answer.columns) + 1}
        assert len(lines) == 2 + len(answer.rows)


def test_what_comes_from_outside_is_escaped(tiny_study: StudyConfig, tmp_path: Path) -> None:
    study = open_study(tiny_study, open_storage(str(tmp_path / JOURNAL_NAME)))

    report = write_report(
        study,
        tiny_study,
        Store(tmp_path),
        tmp_path / "<b>&",
    )

    assert "&lt;b&gt;&amp;/study.json" in report.page.read_text("utf-8")


def test_the_study_can_be_repeated_from_beside_the_page(
    written: WrittenReport, tiny_study: StudyConfig
) -> None:
    assert load_study_config(str(written.page.with_name("study.json"))) == tiny_study


def test_the_same_study_gives_the_same_page(
    written: WrittenReport, tiny_study: StudyConfig, tmp_path: Path
) -> None:
    before = written.page.read_bytes()
    study, config = load_study(None, open_storage(str(tmp_path / JOURNAL_NAME)))

    write_report(study, config, Store(tmp_path / "store"), tmp_path / "report")

    assert config == tiny_study
    assert written.page.read_bytes() == before


def test_a_study_without_a_finished_trial_has_a_page_too(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = open_study(tiny_study, open_storage(str(tmp_path / JOURNAL_NAME)))

    report = write_report(study, tiny_study, Store(tmp_path), tmp_path / "r")

    assert report.answers == ()
    assert "0 trials finished" in report.page.read_text("utf-8")


def test_a_browser_shows_every_picture_of_the_page(written: WrittenReport, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no browser (Debian: apt-get install chromium)")
    probe = (
        "<script>addEventListener('load', () => { const p = [...document.images];"
        "document.title = p.filter(i => i.complete && i.naturalWidth > 300).length + ' of ' +"
        "p.length + ', wide ' + (document.documentElement.scrollWidth <= innerWidth); });</script>"
    )
    page = tmp_path / "probed.html"
    page.write_text(written.page.read_text("utf-8") + probe, encoding="utf-8")

    dom = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/b",
         "--window-size=1000,2000", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip

    count = len(written.answers)
    # Nothing sticks out of the window: wide tables scroll by themselves.
    assert f"<title>{count} of {count}, wide true</title>" in dom
