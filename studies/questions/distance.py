"""How far weights travel from their start, and how far apart fields end up."""

from __future__ import annotations

import statistics

from nefbench.plots.study import Panel, PointSet, points_figure
from studies.questions.answer import (
    Answer,
    Evidence,
    Unanswered,
    basis_of,
    grouped,
    one_per_dataset,
)

_KEY = "distance-and-steps"
_QUESTION = "How far do weights move from their start?"


def distance_and_steps(evidence: Evidence) -> Answer | Unanswered:
    """Relative distance to the start by number of steps, mean over widths."""
    found = [
        r for r in one_per_dataset(evidence.results) if r.measures.distance_to_start is not None
    ]
    if not evidence.is_grid or len({r.num_steps for r in found}) < 2:
        return Unanswered(_KEY, _QUESTION, "a grid with two numbers of steps")
    rows, panels = [], []
    for (source, field), results in grouped(found, lambda r: (r.source, r.field)).items():
        sets = []
        for (init,), starts in grouped(results, lambda r: (r.init,)).items():
            by_steps = sorted(grouped(starts, lambda r: (r.num_steps,)).items())
            distances = [_mean([r.measures.distance_to_start for r in rs]) for _, rs in by_steps]
            apart = [_mean([r.measures.pairwise_distance for r in rs]) for _, rs in by_steps]
            steps = [key[0] for key, _ in by_steps]
            sets.append(PointSet(f"{init} start", steps, distances, joined=True))
            rows += [
                (source, field, init, count, round(distance, 4), round(pair, 4))
                for count, distance, pair in zip(steps, distances, apart, strict=True)
            ]
        panels.append(Panel(f"{field} on {source}", sets))
    last = max(found, key=lambda r: r.num_steps).num_steps
    ends = [row for row in rows if row[3] == last]
    lowest, highest = min(row[4] for row in ends), max(row[4] for row in ends)
    return Answer(
        key=_KEY,
        question=_QUESTION,
        verdict=(
            f"By {lowest:.2f} to {highest:.2f} of the norm of the start after {last:,} steps, mean "
            f"over fields and widths."
        ),
        details=tuple(f"{row[1]} on {row[0]}, {row[2]} start: {row[4]:.2f}" for row in ends),
        basis=basis_of(found) + "; the first 1,000 validation fields of each",
        columns=(
            "source", "field", "start", "steps", "distance to start", "distance of two fields",
        ),
        rows=rows,
        figure=points_figure(
            panels, x="optimizer steps", y="‖θ − θ₀‖ / ‖θ₀‖", log_x=True
        ),
        drawn_columns=(
            "source", "field", "init", "num_steps", "relative_distance", "pairwise_distance",
        ),
        drawn=rows,
    )  # fmt: skip


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else float("nan")
