"""Accuracy against reconstruction quality: does more fitting hurt the representation?"""

from __future__ import annotations

from nefbench.plots.study import Panel, StepPath, steps_figure
from studies.estimates import mean_estimate
from studies.questions.answer import Answer, Evidence, Unanswered, basis_of, by_group, grouped
from studies.results import TrialResult

_KEY = "quality-and-accuracy"
_NEEDS = "a grid with two numbers of steps for an architecture"
_QUESTION = "Do better reconstructions make better data, and how many steps are best?"


def quality_and_accuracy(evidence: Evidence) -> Answer | Unanswered:
    """Follow every architecture and start through its numbers of steps.

    The best number of steps is chosen by validation accuracy; what is compared is test accuracy.
    """
    if not evidence.is_grid:
        return Unanswered(_KEY, _QUESTION, _NEEDS)
    rows, panels, drawn, used = [], [], [], []
    costs = []
    for group, results in by_group(evidence.results).items():
        paths = []
        lines = grouped(results, lambda r: (r.init, r.hidden_features, r.num_parameters))
        for (init, width, _), found in sorted(lines.items(), reverse=True):
            line = sorted(
                (r for r in found if r.measures.quality is not None), key=lambda r: r.num_steps
            )
            if len({r.num_steps for r in line}) < 2:
                continue
            used += line
            path = StepPath(
                init, width, [r.num_steps for r in line], [_quality(r) for r in line],
                [r.test_accuracy for r in line],
            )  # fmt: skip
            paths.append(path)
            drawn += [
                (*group, init, width, *point)
                for point in zip(path.steps, path.xs, path.ys, strict=True)
            ]
            best, last = max(line, key=lambda r: r.validation_accuracy), line[-1]
            cost = best.test_accuracy - last.test_accuracy
            if init == "shared":
                costs.append(cost)
            rows.append(
                (
                    *group, init, width, best.num_steps, round(_quality(best), 2),
                    round(best.test_accuracy, 3), last.num_steps, round(_quality(last), 2),
                    round(last.test_accuracy, 3), round(cost, 3),
                )
            )  # fmt: skip
        if paths:
            source, field, classifier = group
            level = ("chance", results[0].chance_accuracy)
            panels.append(Panel(f"{field} on {source}, {classifier}", paths, level))
    if not rows:
        return Unanswered(_KEY, _QUESTION, _NEEDS)
    unit = {"psnr_db": "mean PSNR in dB", "iou": "mean IoU"}[used[0].measures.quality_name]
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=_verdict(costs),
        details=(),
        basis=basis_of(used),
        columns=(
            "source", "field", "classifier", "start", "width", "best steps", "quality",
            "accuracy", "most steps", "quality ", "accuracy ", "cost",
        ),
        rows=rows,
        figure=steps_figure(panels, x=unit, y="test accuracy"),
        drawn_columns=("source", "field", "classifier", "start", "width", "num_steps", "quality",
                       "test_accuracy"),
        drawn=drawn,
    )  # fmt: skip


def _verdict(costs: list[float]) -> str:
    if not costs:
        return "Only random starts were run with several numbers of steps; see the table."
    cost = mean_estimate(costs)
    worse = sum(value > 0 for value in costs)
    meaning = "no trade-off is to be seen"
    if not cost.has_interval:
        meaning = "too few architectures to tell whether there is a trade-off"
    elif cost.excludes_zero:
        meaning = "there is a trade-off" if cost.value > 0 else "more fitting helps"
    return (
        f"From the best number of steps to the largest, shared starts lose {cost.text(3)} of test "
        f"accuracy, mean over architectures, while quality rises; "
        f"{worse} of {len(costs)} architectures lose: {meaning}."
    )


def _quality(result: TrialResult) -> float:
    assert result.measures.quality is not None, "results without are left out"
    return result.measures.quality
