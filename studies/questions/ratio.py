"""R = off-grid over on-grid quality: does it tell the accuracy without training a classifier?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nefbench.plots.study import Panel, PointSet, points_figure
from studies.estimates import spearman_estimate
from studies.questions.answer import (
    Answer,
    Evidence,
    Unanswered,
    basis_of,
    by_group,
    group_name,
    grouped,
)
from studies.results import TrialResult

_KEY = "ratio-and-accuracy"
_QUESTION = (
    "Can the quality between the fitted points, relative to that on them (R), choose a dataset "
    "without training a classifier?"
)
_FEWEST = 3
_SELECTORS: dict[str, Callable[[TrialResult], float | None]] = {
    "validation accuracy": lambda r: r.validation_accuracy,
    "R": lambda r: r.measures.ratio_of_means,
    "quality": lambda r: r.measures.quality,
    "NMI": lambda r: r.measures.nmi,
}


def ratio_and_accuracy(evidence: Evidence) -> Answer | Unanswered:
    """Correlate R with test accuracy among shared starts, and measure what choosing by it costs.

    The regret of a selector is the best test accuracy minus that of the dataset it chooses.
    """
    rows, panels, drawn, used, verdicts = [], [], [], [], []
    rises = falls = 0
    for group, results in by_group(evidence.results).items():
        found = [r for r in results if r.init == "shared" and r.measures.ratio_of_means is not None]
        if len(found) < _FEWEST:
            continue
        used += found
        ratios = [_value(_SELECTORS["R"], r) for r in found]
        others = [r.measures.mean_of_ratios or 0.0 for r in found]
        accuracies = [r.test_accuracy for r in found]
        rho = spearman_estimate(ratios, accuracies)
        regrets = {name: regret(found, select) for name, select in _SELECTORS.items()}
        rows.append(
            (
                *group, len(found), rho.text(), spearman_estimate(others, accuracies).text(),
                *(None if value is None else round(value, 3) for value in regrets.values()),
            )
        )  # fmt: skip
        sets = []
        for (width,), line in grouped(found, lambda r: (r.hidden_features,)).items():
            ordered = sorted(line, key=lambda r: r.num_steps)
            xs = [_value(_SELECTORS["R"], r) for r in ordered]
            heights = [r.test_accuracy for r in ordered]
            index = sorted({r.hidden_features for r in found}).index(width)
            label = f"width {width}" if evidence.is_grid else "trial"
            group_index = index if evidence.is_grid else 0
            sets.append(PointSet(label, xs, heights, joined=evidence.is_grid, group=group_index))
            drawn += [
                (*group, width, r.num_steps, x, r.test_accuracy)
                for r, x in zip(ordered, xs, strict=True)
            ]
        source, field, classifier = group
        level = ("chance", results[0].chance_accuracy)
        panels.append(Panel(f"{field} on {source}, {classifier}", sets, level))
        rises, falls = rises + (rho.low > 0), falls + (rho.high < 0)
        meaning = "no relation is to be seen"
        if rho.excludes_zero:
            meaning = "R rises with accuracy" if rho.value > 0 else "R falls with accuracy"
        verdicts.append(
            f"{group_name(group)}: rho {rho.text()}, {meaning}; choosing by R costs "
            f"{regrets['R']:.3f}, by validation accuracy {regrets['validation accuracy']:.3f}, "
            f"by quality {regrets['quality']:.3f}"
        )
    if not rows:
        return Unanswered(_KEY, _QUESTION, "three datasets from a shared start with an R")
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"R rises with test accuracy in {rises} and falls in {falls} of {len(rows)} "
            f"comparisons (Spearman's rank correlation, 95 % intervals over datasets that exclude "
            f"zero)."
        ),
        details=tuple(verdicts),
        basis=basis_of(used) + ", shared starts",
        columns=(
            "source", "field", "classifier", "datasets", "rho", "rho, mean of ratios",
            *(f"regret by {name}" for name in _SELECTORS),
        ),
        rows=rows,
        figure=points_figure(panels, x="R, off-grid over on-grid quality", y="test accuracy"),
        drawn_columns=("source", "field", "classifier", "width", "num_steps", "R", "test_accuracy"),
        drawn=drawn,
    )  # fmt: skip


def regret(
    results: Sequence[TrialResult], select: Callable[[TrialResult], float | None]
) -> float | None:
    """Test accuracy lost when the dataset with the largest value is taken; None without values."""
    known = [result for result in results if select(result) is not None]
    if not known:
        return None
    best = max(result.test_accuracy for result in results)
    return best - max(known, key=lambda result: _value(select, result)).test_accuracy


def _value(select: Callable[[TrialResult], float | None], result: TrialResult) -> float:
    value = select(result)
    assert value is not None, "results without are left out"
    return value
