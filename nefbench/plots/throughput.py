"""How fast contenders fit, how much of the machine they use, and how that scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nefbench.plots.theme import PAGE_WIDTH, new_figure, themed

CONTENDER_STYLES = {
    "one by one": ("#999999", "x"),
    "jax": ("#E69F00", "s"),
    "vmapped": ("#56B4E9", "^"),
    "compiled": ("#009E73", "D"),
    "fused": ("#D55E00", "o"),
    "fused-tf32": ("#CC79A7", "v"),
}
"""Colour (Okabe and Ito 2008) and marker per contender: either is enough to tell them apart."""

_OTHER_STYLE = ("#000000", "P")
_AXIS_LABELS = {
    "fields": "fields",
    "pixels": "pixels per field",
    "width": "hidden width",
    "steps": "steps (16 fields)",
}


@dataclass(frozen=True)
class ThroughputRow:
    """One case.

    Attributes:
        name: Beside its row.
        rates: Field-steps per second by contender.
        shares: Share of the measured peak by contender, 0 to 1.
    """

    name: str
    rates: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class ScalingLine:
    """One engine while one thing is varied.

    Attributes:
        engine: Whose line.
        varied: ``fields``, ``pixels``, ``width`` or ``steps``.
        values: Of what is varied.
        rates: Field-steps per second.
    """

    engine: str
    varied: str
    values: Sequence[int]
    rates: Sequence[float]


@themed
def throughput_figure(
    rows: Sequence[ThroughputRow], lines: Sequence[ScalingLine], *, place: str, scaled: str
) -> Figure:
    """Draw rates and shares of peak, and below them one panel per varied quantity.

    Args:
        rows: From top to bottom.
        lines: May be empty: then there is no second row of panels.
        place: Where the rates were measured, for the titles: ``one core``.
        scaled: What was scaled, for the titles.
    """
    varied = list(dict.fromkeys(line.varied for line in lines))
    heights = [0.17 * len(rows) + 0.9, *([1.9] if varied else [])]
    figure = new_figure(PAGE_WIDTH, sum(heights) + 0.3)
    panels = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = panels[0].subplots(1, 2, sharey=True, width_ratios=(3, 2))
    plot_rates(left, rows)
    plot_shares(right, rows)
    left.set_title(f"(a) throughput, {place}")
    right.set_title("(b) share of the measured fp32 peak")
    names = dict.fromkeys(name for row in rows for name in row.rates)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names))
    if varied:
        axes = panels[1].subplots(1, len(varied), sharey=True, squeeze=False)[0]
        for ax, quantity in zip(axes, varied, strict=True):
            plot_scaling(ax, [line for line in lines if line.varied == quantity])
            ax.label_outer()
        axes[0].set_title(f"(c) scaling, {scaled}, {place}", loc="left")
    return figure


def plot_rates(ax: Axes, rows: Sequence[ThroughputRow]) -> None:
    """Draw one row of markers per case on a logarithmic axis, joined by a line."""
    for position, row in enumerate(rows):
        ends = [min(row.rates.values()), max(row.rates.values())]
        ax.plot(ends, [position, position], color="#CCCCCC", lw=1, zorder=1)
    for name in dict.fromkeys(name for row in rows for name in row.rates):
        _scatter(ax, name, [row.rates.get(name) for row in rows])
    ax.set_xscale("log")
    ax.set_xlabel("field-steps / s")
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="x", color="#EEEEEE", lw=0.6, zorder=0)


def plot_shares(ax: Axes, rows: Sequence[ThroughputRow]) -> None:
    """Draw shares of the peak in percent, with the rows of ``plot_rates``."""
    for name in dict.fromkeys(name for row in rows for name in row.shares):
        shares = [row.shares.get(name) for row in rows]
        _scatter(ax, name, [None if share is None else 100 * share for share in shares])
    ax.set_xlim(0, max(10.0, 1.08 * ax.get_xlim()[1]))
    ax.set_xlabel("GFLOP/s over peak [%]")
    ax.grid(axis="x", color="#EEEEEE", lw=0.6, zorder=0)


def plot_scaling(ax: Axes, lines: Sequence[ScalingLine]) -> None:
    """Draw rates over what is varied, both axes logarithmic."""
    for line in lines:
        colour, marker = CONTENDER_STYLES.get(line.engine, _OTHER_STYLE)
        ax.plot(line.values, line.rates, color=colour, marker=marker, ms=4, lw=1, label=line.engine)
    ax.set_xscale("log")
    ax.set_yscale("log")
    values = sorted({value for line in lines for value in line.values})
    ax.set_xticks(values, [f"{value:,}" for value in values], rotation=45)
    ax.minorticks_off()
    ax.set_xlabel(_AXIS_LABELS[lines[0].varied])
    ax.set_ylabel("field-steps / s")
    ax.grid(color="#EEEEEE", lw=0.6, zorder=0)


def _scatter(ax: Axes, name: str, values: Sequence[float | None]) -> None:
    colour, marker = CONTENDER_STYLES.get(name, _OTHER_STYLE)
    points = [(value, row) for row, value in enumerate(values) if value is not None]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ax.scatter(xs, ys, s=18, color=colour, marker=marker, label=name, zorder=2)
