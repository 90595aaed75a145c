"""Shared or random start: table 4 of the study's supplement, on one's own data."""

from __future__ import annotations

from nefbench.plots.study import StartBars, starts_figure
from studies.estimates import mean_and_sd, mean_estimate
from studies.questions.answer import (
    Answer,
    Evidence,
    Unanswered,
    basis_of,
    by_group,
    group_name,
    grouped,
)

_KEY = "shared-or-random"
_NEEDS = "a grid over init.kind shared and random"
_QUESTION = "Do fields from a shared start make better data than fields from random starts?"


def shared_or_random(evidence: Evidence) -> Answer | Unanswered:
    """Compare mean test accuracies over all points that were run from both starts.

    The interval is that of the paired difference, over points (number of steps, width).
    """
    if not evidence.is_grid:
        return Unanswered(_KEY, _QUESTION, _NEEDS)
    rows, pairs, verdicts, used = [], [], [], []
    wins = 0
    for group, results in by_group(evidence.results).items():
        points = grouped(results, lambda r: (r.hidden_features, r.num_steps, r.num_parameters))
        both = {
            point: {result.init: result for result in found}
            for point, found in points.items()
            if {"shared", "random"} <= {result.init for result in found}
        }
        if not both:
            continue
        accuracies = {
            init: [found[init].test_accuracy for found in both.values()]
            for init in ("random", "shared")
        }
        used += [found[init] for found in both.values() for init in ("random", "shared")]
        means = {init: mean_and_sd(values) for init, values in accuracies.items()}
        gain = 100 * (means["shared"][0] / means["random"][0] - 1) if means["random"][0] else None
        difference = mean_estimate(
            [s - r for s, r in zip(accuracies["shared"], accuracies["random"], strict=True)]
        )
        chance = results[0].chance_accuracy
        rows.append(
            (
                *group, len(both), *_spread(*means["random"]), *_spread(*means["shared"]),
                None if gain is None else round(gain, 1), difference.text(3), round(chance, 3),
            )
        )  # fmt: skip
        pairs.append(
            StartBars(
                "\n".join(
                    group if len({r.classifier for r in evidence.results}) > 1 else group[:2]
                ),
                {init: mean for init, (mean, _) in means.items()},
                {init: sd for init, (_, sd) in means.items()},
                chance,
            )
        )
        ahead = "ahead" if difference.value > 0 else "behind"
        wins += difference.low > 0
        sure = "" if difference.excludes_zero else ", which may be chance"
        verdicts.append(f"{group_name(group)}: shared is {ahead} by {difference.text(3)}{sure}")
    if not rows:
        return Unanswered(_KEY, _QUESTION, _NEEDS)
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"Shared starts are ahead in {wins} of {len(rows)} comparisons of mean test accuracy, "
            f"with 95 % intervals over points of the grid that exclude zero."
        ),
        details=tuple(verdicts),
        basis=basis_of(used),
        columns=(
            "source", "field", "classifier", "points", "random", "s.d. ", "shared", "s.d.",
            "gain %", "difference", "chance",
        ),
        rows=rows,
        figure=starts_figure(pairs, spread="mean ± 1 s.d. over the grid"),
        drawn_columns=("group", "start", "mean_test_accuracy", "sd", "chance"),
        drawn=[
            (pair.name.replace("\n", " "), init, pair.means[init], pair.sds[init], pair.chance)
            for pair in pairs
            for init in pair.means
        ],
    )  # fmt: skip


def _spread(mean: float, sd: float) -> tuple[float, float]:
    return round(mean, 3), round(sd, 3)
