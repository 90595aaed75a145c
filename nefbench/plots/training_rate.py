"""How fast classifiers are trained: one marker per model and size of the fields."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from nefbench.plots.theme import CLASS_COLOURS, PAGE_WIDTH, new_figure, themed

_MARKERS = ("o", "s", "^", "D")


@themed
def training_rate_figure(
    cases: Mapping[str, Mapping[str, float]], baselines: Mapping[str, str], *, place: str
) -> Figure:
    """Draw training rates from the top down, on a logarithmic axis.

    Args:
        cases: Per size of the fields the fields per second of every model.
        baselines: Of models, where they have one: a line leads from it to the model, and beside
            the markers stands the ratio on the first of the cases.
        place: Where the rates were measured, for the title.
    """
    names = list(dict.fromkeys(name for rates in cases.values() for name in rates))
    spread = 0.28 / max(1, len(cases) - 1)
    figure = new_figure(PAGE_WIDTH, 0.19 * len(names) + 0.9)
    ax = figure.subplots()
    for number, (case, rates) in enumerate(cases.items()):
        offset = spread * (number - (len(cases) - 1) / 2)
        rows = {name: names.index(name) + offset for name in rates}
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        for name, baseline in baselines.items():
            if name in rates and baseline in rates:
                ends, row = [rates[baseline], rates[name]], rows[name]
                ax.plot(ends, [row, row], color=colour, lw=1, alpha=0.4, zorder=1)
                if number == 0:  # right of the markers of all sizes
                    ratio = rates[name] / rates[baseline]
                    right = max(ends[0], *(of_case.get(name, 0) for of_case in cases.values()))
                    ax.annotate(
                        f"{ratio:.1f} x {baseline}", (right, names.index(name)), (8, 0),
                        textcoords="offset points", va="center", fontsize=7, color="#666666",
                    )  # fmt: skip
        ax.scatter(
            list(rates.values()), list(rows.values()), label=case, color=colour,
            marker=_MARKERS[number % len(_MARKERS)], s=18, zorder=2,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlabel("training fields / s")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(color="#EEEEEE", lw=0.6, zorder=0)
    ax.set_title(f"training steps, {place}")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
