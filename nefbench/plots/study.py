"""Figures of a study: one number of many datasets against another one, and bars by start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nefbench.plots.theme import (
    CLASS_COLOURS,
    COLUMN_WIDTH,
    INIT_COLOURS,
    PAGE_WIDTH,
    new_figure,
    themed,
)

_MARKERS = "os^Dv<>P*X"


@dataclass(frozen=True)
class PointSet:
    """Points that share a look.

    Attributes:
        label: In the legend; its first word picks the colour where one is set.
        xs: Horizontal positions.
        ys: Heights.
        joined: Whether a line joins the points in their order.
        group: Points of one group share a colour, those of one ``label`` of a group a marker.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    joined: bool = False
    group: int | None = None


@dataclass(frozen=True)
class PointPanel:
    """One panel of points.

    Attributes:
        title: Above it.
        sets: What is drawn.
        level: Name and height of a dashed line (chance), or None.
    """

    title: str
    sets: Sequence[PointSet]
    level: tuple[str, float] | None = None


@dataclass(frozen=True)
class StartBars:
    """Accuracies from two starts.

    Attributes:
        name: Below the pair of bars.
        means: Mean by kind of start.
        sds: Standard deviation by kind of start.
        chance: Level of guessing.
    """

    name: str
    means: dict[str, float]
    sds: dict[str, float]
    chance: float


@themed
def points_figure(panels: Sequence[PointPanel], *, x: str, y: str, log_x: bool = False) -> Figure:
    """Draw panels with the same axes, and one legend for all of them.

    Args:
        panels: From left to right, four to a row.
        x: Label of the horizontal axes, with the unit.
        y: Label of the vertical axes, with the unit.
        log_x: Whether horizontal axes are logarithmic.
    """
    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    labels = dict.fromkeys(points.label for panel in panels for points in panel.sets)
    legend_columns = 1 if columns == 1 else 4
    figure = new_figure(width, 2.3 * lines + 0.16 * (1 + len(labels) // legend_columns) + 0.2)
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    markers = dict(zip(labels, itertools.cycle(_MARKERS), strict=False))
    handles: dict[str, Artist] = {}
    for ax, panel in zip(axes, panels, strict=False):
        plot_points(ax, panel, markers)
        if log_x:
            _label_positions(ax, panel)
        ax.set_xlabel(x)
        artists, names = ax.get_legend_handles_labels()
        handles |= dict(zip(names, artists, strict=True))
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[::columns]:
        ax.set_ylabel(y)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center",
        ncols=min(len(handles), legend_columns), fontsize=7,
    )  # fmt: skip
    return figure


def plot_points(ax: Axes, panel: PointPanel, markers: Mapping[str, str]) -> None:
    """Draw the point sets of one panel, each with the marker of its label."""
    for index, points in enumerate(panel.sets):
        group = index if points.group is None else points.group
        first = points.label.split()[0]
        ax.plot(
            points.xs,
            points.ys,
            color=INIT_COLOURS.get(first, CLASS_COLOURS[group % len(CLASS_COLOURS)]),
            marker=markers[points.label],
            ms=3.5,
            lw=0.8 if points.joined else 0,
            alpha=0.85,
            label=points.label,
        )
    if panel.level is not None:
        name, height = panel.level
        ax.axhline(height, color="black", lw=0.8, ls="--", label=f"{name} ({height:.2g})")
    ax.set_title(panel.title)


def _label_positions(ax: Axes, panel: PointPanel) -> None:
    """Make the horizontal axis logarithmic; name the first and last position, and some between."""
    ax.set_xscale("log")
    places = sorted({x for points in panel.sets for x in points.xs})
    named = [places[0]]
    for place in places[1:]:
        if math.log(place / named[-1]) > 0.12 * math.log(places[-1] / places[0]):
            named.append(place)
    ax.set_xticks(named, [f"{place:,g}" for place in named])
    ax.xaxis.set_minor_locator(NullLocator())


@themed
def starts_figure(pairs: Sequence[StartBars], *, spread: str) -> Figure:
    """Draw bars of test accuracy side by side for every start, with whiskers and chance.

    Args:
        pairs: From left to right.
        spread: What whiskers show, for the legend.
    """
    figure = new_figure(COLUMN_WIDTH if len(pairs) < 4 else PAGE_WIDTH, 3.0)
    ax = figure.subplots()
    kinds = list(dict.fromkeys(kind for pair in pairs for kind in pair.means))
    width = 0.8 / len(kinds)
    for index, kind in enumerate(kinds):
        places = [
            place + (index - (len(kinds) - 1) / 2) * width
            for place, pair in enumerate(pairs)
            if kind in pair.means
        ]
        drawn = [pair for pair in pairs if kind in pair.means]
        bars = ax.bar(
            places,
            [pair.means[kind] for pair in drawn],
            width * 0.92,
            yerr=[pair.sds[kind] for pair in drawn],
            color=INIT_COLOURS.get(kind, CLASS_COLOURS[index % len(CLASS_COLOURS)]),
            capsize=2,
            error_kw={"lw": 0.8},
            label=f"{kind} start, {spread}",
        )
        ax.bar_label(bars, [f"{pair.means[kind]:.2f}" for pair in drawn], padding=1, fontsize=6)
    for place, pair in enumerate(pairs):
        label = "chance" if place == 0 else "_"
        ax.hlines(pair.chance, place - 0.45, place + 0.45, "black", "--", lw=0.8, label=label)
    ax.set_xticks(range(len(pairs)), [pair.name for pair in pairs])
    ax.set_ylim(0, 1.1)
    ax.set_ylabel("test accuracy")
    figure.legend(loc="outside lower center", fontsize=7)
    return figure
