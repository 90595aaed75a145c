"""Write a report: one page of HTML that needs nothing else, the same as Markdown, and figures."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import optuna
from optuna.trial import TrialState

from nefbench import files
from nefbench.config import config_to_mapping
from nefbench.errors import ConfigError
from nefbench.machine import processor_name
from nefbench.plots import save_figure
from studies.design import Grid, StudyConfig
from studies.questions import QUESTIONS, Answer, Evidence, Unanswered
from studies.queue import counted
from studies.results import COST, TrialResult, runs_of
from studies.run import report_of
from studies.storage import JOURNAL_NAME, code_version, load_study, open_storage
from studies.store import Store

_BEST = 10


@dataclass(frozen=True)
class WrittenReport:
    """What was written.

    Attributes:
        name: Of the study.
        page: The page, HTML.
        markdown: The same as Markdown, with figures beside it.
        answers: Answers, in their order.
        unanswered: Questions that this study cannot answer.
    """

    name: str
    page: Path
    markdown: Path
    answers: tuple[Answer, ...]
    unanswered: tuple[Unanswered, ...]


def report_study(
    folder: Path | str,
    *,
    out: Path | None = None,
    name: str | None = None,
    store: Path | str | None = None,
    storage: str | None = None,
) -> WrittenReport:
    """Write the report of the study in a folder.

    Args:
        folder: Of the study.
        out: Folder of the report; ``report`` in that of the study if left out.
        name: Of the study, where the storage holds several.
        store: Folder of datasets and trainings; ``store`` in that of the study if left out.
        storage: Record of the trials; the journal in the folder if left out.

    Raises:
        ConfigError: If there is no such study.
    """
    home = Path(folder)
    place = storage or str(home / JOURNAL_NAME)
    if storage is None and not Path(place).exists():
        raise ConfigError(f"{home} holds no study (no {JOURNAL_NAME}); run nefbench study first")
    study, config = load_study(name, open_storage(place))
    kept = Store(Path(store) if store is not None else home / "store")
    return write_report(study, config, kept, out or home / "report")


def write_report(
    study: optuna.Study, config: StudyConfig, store: Store, out: Path
) -> WrittenReport:
    """Ask every question and write what came out.

    Args:
        study: The study; it may still be running.
        config: What it is.
        store: Where its trainings lie.
        out: Folder of the report; ``study.json`` there repeats the study.
    """
    report = report_of(study, config)
    evidence = Evidence(report.results, study, store, isinstance(config.design, Grid))
    asked = [ask(evidence) for ask in QUESTIONS]
    answers = tuple(item for item in asked if isinstance(item, Answer))
    unanswered = tuple(item for item in asked if isinstance(item, Unanswered))
    recipe = out / "study.json"
    files.write_json(recipe, config_to_mapping(config))
    pictures = {}
    for answer in answers:
        path = out / "figures" / answer.key
        saved = save_figure(answer.figure, path, answer.drawn_columns, answer.drawn)
        png = next(one for one in saved if one.suffix == ".png")
        pictures[answer.key] = base64.b64encode(png.read_bytes()).decode()
    content: dict[str, Any] = {
        "name": config.name,
        "design": config.design.kind,
        "report": report,
        "best": _best(report.results),
        "answers": answers,
        "unanswered": unanswered,
        "pictures": pictures,
        "costs": _costs(study),
        "command": f"nefbench study {shlex.quote(str(recipe))} --out runs/{config.name}-again",
        "code": code_version(),
        "processor": processor_name(),
        "sources": {name: config_to_mapping(source) for name, source in config.sources.items()},
    }
    page, markdown = out / "report.html", out / "report.md"
    files.write_text(page, _render("page.html.jinja", content, escape=True))
    files.write_text(markdown, _render("page.md.jinja", content, escape=False))
    return WrittenReport(config.name, page, markdown, answers, unanswered)


def _best(results: tuple[TrialResult, ...]) -> list[TrialResult]:
    return sorted(results, key=lambda result: -result.validation_accuracy)[:_BEST]


def _costs(study: optuna.Study) -> dict[str, float]:
    """Add up what trials took; work that was found in the store took nothing."""
    trials = counted(study.get_trials(deepcopy=False))
    costs = [trial.user_attrs[COST] for trial in trials if COST in trial.user_attrs]
    totals = {
        key: sum(cost.get(key, 0.0) for cost in costs)
        for key in ("fit_seconds", "train_seconds", "cpu_seconds", "gpu_seconds")
    }
    runs = runs_of(study)
    joules = [sum(run.joules.values()) for run in runs if run.joules]
    states = [trial.state for trial in trials]
    return {
        **totals,
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "waiting": states.count(TrialState.WAITING) + states.count(TrialState.RUNNING),
        "runs": len(runs),
        "run_seconds": sum(run.seconds for run in runs),
        "metered_runs": len(joules),
        "kilojoules": sum(joules) / 1e3,
    }


def _render(name: str, content: dict[str, Any], *, escape: bool) -> str:
    text = resources.files("studies.report").joinpath(name).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=escape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _cell
    return environment.from_string(text).render(content)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
