"""What a search found: importances, where good values lie, and what one objective costs another."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from nefbench.plots.study import Panel, PointSet, points_figure
from studies.questions.answer import Answer, Evidence, Unanswered

_FEWEST = 8
_MOST_SETTINGS = 4
_NEEDS = f"{_FEWEST} finished trials, and two settings that all of them have"

_IMPORTANCES = ("importances", "Which settings mattered?")
_SLICES = ("good-values", "Where do good values of the settings lie?")
_CONTOUR = ("two-settings", "How do the two settings that mattered most play together?")
_PARETO = ("pareto-front", "What does one objective cost the other?")


def importances(evidence: Evidence) -> Answer | Unanswered:
    """Share of the variance of the first objective that each key explains (fANOVA, Hutter 2014)."""
    trials = _finished(evidence)
    shares = _shares(evidence, trials)
    if not shares:
        return Unanswered(*_IMPORTANCES, _NEEDS)
    best = max(trials, key=_first)
    name, share = shares[0]
    return Answer(
        *_IMPORTANCES,
        verdict=(
            f"{name} explains {100 * share:.0f} % of what the varied settings explain; the best "
            f"value of the first objective, {_first(best):.4f}, is that of trial {best.number}."
        ),
        details=(),
        basis=f"{len(trials)} finished trials",
        columns=("setting", "importance", "in the best trial"),
        rows=[(name, round(share, 4), str(best.params[name])) for name, share in shares],
        figure=_history(trials),
        drawn_columns=("trial", "value", "best_so_far"),
        drawn=_course(trials),
    )


def good_values(evidence: Evidence) -> Answer | Unanswered:
    """Objective over each of the settings that mattered most (Optuna's slice plot)."""
    trials = _finished(evidence)
    shares = _shares(evidence, trials)
    if not shares:
        return Unanswered(*_SLICES, _NEEDS)
    names = [name for name, _ in shares[:_MOST_SETTINGS]]
    best = sorted(trials, key=_first, reverse=True)[: max(3, len(trials) // 10)]
    rows = [(name, *_range([trial.params[name] for trial in best])) for name in names]
    return Answer(
        *_SLICES,
        verdict=f"In the best {len(best)} of {len(trials)} trials: "
        + "; ".join(f"{name} {low} to {high}" for name, low, high in rows)
        + ".",
        details=(),
        basis=f"{len(trials)} finished trials",
        columns=("setting", "lowest of the best", "highest of the best"),
        rows=rows,
        figure=_drawn_by_optuna(optuna.visualization.matplotlib.plot_slice, evidence.study, names),
        drawn_columns=("trial", "value", *names),
        drawn=[(t.number, _first(t), *(t.params[name] for name in names)) for t in trials],
    )


def two_settings(evidence: Evidence) -> Answer | Unanswered:
    """Objective over the two settings that mattered most (Optuna's contour plot)."""
    trials = _finished(evidence)
    shares = _shares(evidence, trials)
    if len(shares) < 2:
        return Unanswered(*_CONTOUR, _NEEDS)
    names = [name for name, _ in shares[:2]]
    best = max(trials, key=_first)
    return Answer(
        *_CONTOUR,
        verdict=f"The best trial has {names[0]} = {best.params[names[0]]} and {names[1]} = "
        f"{best.params[names[1]]}.",
        details=(),
        basis=f"{len(trials)} finished trials; between them the figure interpolates",
        columns=("trial", "value", *names),
        rows=[
            (t.number, round(_first(t), 4), *(_cell(t.params[name]) for name in names))
            for t in sorted(trials, key=_first, reverse=True)[:10]
        ],
        figure=_drawn_by_optuna(
            optuna.visualization.matplotlib.plot_contour, evidence.study, names
        ),
        drawn_columns=("trial", "value", *names),
        drawn=[(t.number, _first(t), *(t.params[name] for name in names)) for t in trials],
    )


def pareto_front(evidence: Evidence) -> Answer | Unanswered:
    """Trials that no other one surpasses in both objectives."""
    trials = _finished(evidence)
    if len(evidence.study.directions) != 2 or not trials:
        return Unanswered(*_PARETO, "a search with two objectives")
    front = sorted(evidence.study.best_trials, key=lambda trial: trial.values[1])
    others = [trial for trial in trials if trial.number not in {t.number for t in front}]
    first, second = front[0], front[-1]
    sets = [
        PointSet("other trials", [t.values[1] for t in others], [_first(t) for t in others]),
        PointSet("front", [t.values[1] for t in front], [_first(t) for t in front], joined=True),
    ]
    return Answer(
        *_PARETO,
        verdict=(
            f"Along the front of {len(front)} trials the second objective goes from "
            f"{first.values[1]:.2f} to {second.values[1]:.2f} while the first falls from "
            f"{_first(first):.3f} to {_first(second):.3f}."
        ),
        details=(),
        basis=f"{len(trials)} finished trials",
        columns=("trial", "first objective", "second objective", "settings"),
        rows=[
            (t.number, round(_first(t), 4), round(t.values[1], 3), _settings(t)) for t in front
        ],
        figure=points_figure(
            [Panel("", sets)], x="second objective (quality: PSNR in dB, IoU)",
            y="first objective (validation accuracy)",
        ),
        drawn_columns=("trial", "first_objective", "second_objective", "on_front"),
        drawn=[(t.number, _first(t), t.values[1], int(t in front)) for t in trials],
    )  # fmt: skip


def _finished(evidence: Evidence) -> list[FrozenTrial]:
    if evidence.is_grid:  # every choice is tried everywhere: the other questions are sharper
        return []
    return evidence.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _shares(evidence: Evidence, trials: Sequence[FrozenTrial]) -> list[tuple[str, float]]:
    """Return the settings that all trials have, the most important first; none from few trials."""
    if len(trials) < _FEWEST:
        return []
    common = set.intersection(*(set(trial.params) for trial in trials))
    varied = [n for n in sorted(common) if len({repr(t.params[n]) for t in trials}) > 1]
    if len(varied) < 2 or len({_first(trial) for trial in trials}) < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(
            evidence.study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            params=varied,
            target=_first,
        )
    return sorted(shares.items(), key=lambda item: -item[1])


def _drawn_by_optuna(draw: Callable[..., Any], study: optuna.Study, names: list[str]) -> Figure:
    """Take one of Optuna's figures, without leaving it in the state of pyplot."""
    from matplotlib import pyplot, rc_context

    with rc_context({"font.size": 8}), warnings.catch_warnings():  # it sets a style for good
        warnings.simplefilter("ignore")
        axes = draw(study, params=names, target=_first, target_name="first objective")
    figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    assert isinstance(figure, Figure), "axes lie in a figure"
    figure.set_size_inches(7.0, 3.4)
    if isinstance(axes, np.ndarray):
        figure.set_layout_engine("constrained")
    else:  # the colour bar of a single panel has no place in that
        figure.subplots_adjust(bottom=0.2, top=0.88)
    pyplot.close(figure)
    return figure


def _course(trials: Sequence[FrozenTrial]) -> list[tuple[int, float, float]]:
    best, course = float("-inf"), []
    for trial in trials:
        best = max(best, _first(trial))
        course.append((trial.number, _first(trial), best))
    return course


def _history(trials: Sequence[FrozenTrial]) -> Figure:
    course = _course(trials)
    numbers = [float(number) for number, _, _ in course]
    sets = [
        PointSet("value of a trial", numbers, [value for _, value, _ in course]),
        PointSet("best so far", numbers, [best for _, _, best in course], joined=True),
    ]
    return points_figure([Panel("", sets)], x="trial", y="first objective")


def _range(values: Sequence[object]) -> tuple[str, str]:
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    return _text(ordered[0]), _text(ordered[-1])


def _cell(value: object) -> str | int | float:
    return value if isinstance(value, str | int | float) else str(value)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _settings(trial: FrozenTrial) -> str:
    return ", ".join(f"{name} = {_text(value)}" for name, value in trial.params.items())
