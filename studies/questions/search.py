"""What mattered in a search: importances of the varied keys, from Optuna's own evaluator."""

from __future__ import annotations

import warnings

import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from nefbench.plots.study import PointPanel, PointSet, points_figure
from studies.questions.answer import Answer, Evidence, Unanswered

_KEY = "importances"
_QUESTION = "Which settings mattered?"
_FEWEST = 8


def importances(evidence: Evidence) -> Answer | Unanswered:
    """Share of the variance of validation accuracy that each key explains (fANOVA, Hutter 2014)."""
    study = evidence.study
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = {name for name in _common(trials) if len({repr(t.params[name]) for t in trials}) > 1}
    if len(trials) < _FEWEST or len(varied) < 2:
        return Unanswered(
            _KEY, _QUESTION, f"{_FEWEST} finished trials, and two settings that all of them have"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            params=sorted(varied),
            target=lambda trial: trial.values[0],
        )
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    best = max(trials, key=lambda trial: trial.values[0])
    name, share = ordered[0]
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"{name} explains {100 * share:.0f} % of what the varied settings explain of "
            f"{study.metric_names[0] if study.metric_names else 'the first objective'}; the best "
            f"value, {best.values[0]:.4f}, is that of trial {best.number}."
        ),
        details=(),
        basis=f"{len(trials)} finished trials",
        columns=("setting", "importance", "in the best trial"),
        rows=[(name, round(share, 4), str(best.params[name])) for name, share in ordered],
        figure=_history(trials),
        drawn_columns=("trial", "value", "best_so_far"),
        drawn=_course(trials),
    )


def _common(trials: list[optuna.trial.FrozenTrial]) -> set[str]:
    return set.intersection(*(set(trial.params) for trial in trials)) if trials else set()


def _course(trials: list[optuna.trial.FrozenTrial]) -> list[tuple[int, float, float]]:
    best, course = float("-inf"), []
    for trial in trials:
        best = max(best, trial.values[0])
        course.append((trial.number, trial.values[0], best))
    return course


def _history(trials: list[optuna.trial.FrozenTrial]) -> Figure:
    course = _course(trials)
    numbers = [float(number) for number, _, _ in course]
    sets = [
        PointSet("value of a trial", numbers, [value for _, value, _ in course]),
        PointSet("best so far", numbers, [best for _, _, best in course], joined=True),
    ]
    return points_figure([PointPanel("", sets)], x="trial", y="first objective")
