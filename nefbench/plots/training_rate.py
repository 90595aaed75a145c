"""How fast classifiers are trained: one marker per model and size of the fields."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from nefbench.plots.theme import CLASS_COLOURS, PAGE_WIDTH, new_figure, themed

_MARKERS = ("o", "s", "^", "D")


@themed
def training_rate_figure(cases: Mapping[str, Mapping[str, float]], *, place: str) -> Figure:
    """Draw training rates from the top down, on a logarithmic axis.

    Args:
        cases: Per size of the fields the fields per second of every model.
        place: Where the rates were measured, for the title.
    """
    names = list(dict.fromkeys(name for rates in cases.values() for name in rates))
    figure = new_figure(PAGE_WIDTH, 0.17 * len(names) + 0.9)
    ax = figure.subplots()
    for place_of_case, (case, rates) in enumerate(cases.items()):
        ax.scatter(
            list(rates.values()),
            [names.index(name) for name in rates],
            label=case,
            color=CLASS_COLOURS[place_of_case],
            marker=_MARKERS[place_of_case % len(_MARKERS)],
            s=18,
            zorder=2,
        )
    ax.set_xscale("log")
    ax.set_xlabel("training fields / s")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="x", color="#EEEEEE", lw=0.6, zorder=0)
    ax.set_title(f"training steps, {place}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
