"""Accuracy against NMI: do classes form clusters of weights where classifiers succeed?"""

from __future__ import annotations

from nefbench.plots.study import Panel, PointSet, points_figure
from studies.estimates import spearman_estimate
from studies.questions.answer import (
    Answer,
    Evidence,
    Unanswered,
    basis_of,
    grouped,
    one_per_dataset,
)

_KEY = "clusters-and-accuracy"
_QUESTION = "Do the weights of a class cluster where classifiers succeed?"
_FEWEST = 3


def clusters_and_accuracy(evidence: Evidence) -> Answer | Unanswered:
    """Correlate NMI of k-means clusters and classes with test accuracy, over all datasets."""
    found = [r for r in one_per_dataset(evidence.results) if r.measures.nmi is not None]
    if len(found) < _FEWEST:
        return Unanswered(_KEY, _QUESTION, "three datasets with classes")
    rows, verdicts = [], []
    rises = 0
    sources = grouped(found, lambda r: (r.source,))
    for (source,), results in sources.items():
        rho = spearman_estimate(
            [r.measures.nmi or 0.0 for r in results], [r.test_accuracy for r in results]
        )
        rises += rho.low > 0
        rows.append((source, len(results), rho.text()))
        verdicts.append(f"{source}: rho {rho.text()}")
    sets = [
        PointSet(
            f"{init} start, {field} on {source}",
            [r.measures.nmi or 0.0 for r in results],
            [r.test_accuracy for r in results],
        )
        for (init, field, source), results in grouped(
            found, lambda r: (r.init, r.field, r.source)
        ).items()
    ]
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"NMI rises with test accuracy on {rises} of {len(rows)} sources (Spearman's rank "
            f"correlation, 95 % intervals over datasets that exclude zero)."
        ),
        details=tuple(verdicts),
        basis=basis_of(found),
        columns=("source", "datasets", "rho"),
        rows=rows,
        figure=points_figure(
            [Panel("", sets, ("chance", found[0].chance_accuracy))],
            x="NMI of clusters and classes",
            y="test accuracy",
        ),
        drawn_columns=("source", "field", "init", "width", "num_steps", "nmi", "test_accuracy"),
        drawn=[
            (r.source, r.field, r.init, r.hidden_features, r.num_steps, r.measures.nmi,
             r.test_accuracy)
            for r in found
        ],
    )  # fmt: skip
