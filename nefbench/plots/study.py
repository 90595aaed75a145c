"""Figures of a study: numbers of datasets against others, paths through steps, bars by start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.typing import ColorType

from nefbench.plots.theme import (
    CLASS_COLOURS,
    COLUMN_WIDTH,
    INIT_COLOURS,
    PAGE_WIDTH,
    new_figure,
    themed,
)

T = TypeVar("T")
Fill = Literal["full", "left", "none"]
_MARKERS = "os^Dv<>P*X"
_FILLS: dict[str, Fill] = {"shared": "full", "random": "none"}


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
class Panel(Generic[T]):
    """One panel of a figure.

    Attributes:
        title: Above it.
        lines: What is drawn.
        level: Name and height of a broken line (chance), or None.
    """

    title: str
    lines: Sequence[T]
    level: tuple[str, float] | None = None


@dataclass(frozen=True)
class StepPath:
    """One architecture from one start, fitted ever longer.

    Attributes:
        init: Kind of the start.
        width: Hidden features.
        steps: Numbers of steps, ascending.
        xs: Horizontal positions.
        ys: Heights.
    """

    init: str
    width: int
    steps: Sequence[int]
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True)
class EpochCourse:
    """How a classifier's training went.

    Attributes:
        label: In the legend.
        train: Accuracy of every epoch on the training split; NaN where it is not known.
        validation: Accuracy after every epoch on the validation split.
    """

    label: str
    train: Sequence[float]
    validation: Sequence[float]


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
def points_figure(
    panels: Sequence[Panel[PointSet]], *, x: str, y: str, log_x: bool = False
) -> Figure:
    """Draw panels with the same axes, and one legend for all of them.

    Args:
        panels: From left to right, three to a row.
        x: Label of the horizontal axes, with the unit.
        y: Label of the vertical axes, with the unit.
        log_x: Whether horizontal axes are logarithmic.
    """
    labels = dict.fromkeys(points.label for panel in panels for points in panel.lines)
    markers = dict(zip(labels, itertools.cycle(_MARKERS), strict=False))
    figure, axes = _panels(len(panels), list(labels), x, y)
    handles: dict[str, Artist] = {}
    for ax, panel in zip(axes, panels, strict=True):
        plot_points(ax, panel, markers)
        if log_x:
            _label_positions(ax, panel)
        artists, names = ax.get_legend_handles_labels()
        handles |= dict(zip(names, artists, strict=True))
    _add_legend(figure, handles)
    return figure


@themed
def steps_figure(panels: Sequence[Panel[StepPath]], *, x: str, y: str) -> Figure:
    """Draw paths through numbers of steps: colour is steps, marker width, filling the start.

    Args:
        panels: From left to right, three to a row.
        x: Label of the horizontal axes, with the unit.
        y: Label of the vertical axes, with the unit.
    """
    paths = [path for panel in panels for path in panel.lines]
    steps = sorted({count for path in paths for count in path.steps})
    widths = sorted({path.width for path in paths})
    inits = sorted({path.init for path in paths}, reverse=True)
    shades = colormaps["viridis"].resampled(len(steps))
    colours = {count: shades(index) for index, count in enumerate(steps)}
    markers = dict(zip(widths, itertools.cycle(_MARKERS), strict=False))
    handles: dict[str, Artist] = {
        f"{count:,} step{'s' if count != 1 else ''}": _point(colour, "o", "full")
        for count, colour in colours.items()
    }
    handles |= {f"width {width}": _point("gray", markers[width], "full") for width in widths}
    handles |= {f"{init} start": _point("gray", "o", _fill(init)) for init in inits}
    figure, axes = _panels(len(panels), list(handles), x, y)
    for ax, panel in zip(axes, panels, strict=True):
        plot_paths(ax, panel, colours, markers)
        artists, names = ax.get_legend_handles_labels()
        handles |= dict(zip(names, artists, strict=True))
    _add_legend(figure, handles)
    return figure


def plot_paths(
    ax: Axes,
    panel: Panel[StepPath],
    colours: Mapping[int, ColorType],
    markers: Mapping[int, str],
) -> None:
    """Draw the paths of one panel: colours by number of steps, markers by width."""
    for path in panel.lines:
        ax.plot(path.xs, path.ys, color="gray", lw=0.6, alpha=0.6)
        for x, y, count in zip(path.xs, path.ys, path.steps, strict=True):
            ax.add_line(_point(colours[count], markers[path.width], _fill(path.init), x, y))
    _draw_level(ax, panel.level)
    ax.set_title(panel.title)


def _point(colour: ColorType, marker: str, fill: Fill, x: float = 0, y: float = 0) -> Line2D:
    return Line2D([x], [y], color=colour, marker=marker, fillstyle=fill, lw=0, ms=4, mew=0.9)


def _fill(init: str) -> Fill:
    return _FILLS.get(init, "left")


def _draw_level(ax: Axes, level: tuple[str, float] | None, style: str = "--") -> None:
    if level is not None:
        name, height = level
        ax.axhline(height, color="black", lw=0.8, ls=style, label=_level_label(name, height))


def _level_label(name: str, height: float) -> str:
    return f"{name} ({height:.2g})"


def _panels(count: int, labels: Sequence[str], x: str, y: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels, three to a row, and room for a legend below."""
    columns = min(count, 3)
    lines = math.ceil(count / columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    # A level, and two explanations at most, come on top.
    legend_lines = 1 + (len(labels) + 2) // _legend_columns(width, labels)
    figure = new_figure(width, 2.3 * lines + 0.16 * legend_lines + 0.2)
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for ax in axes[count:]:
        ax.set_axis_off()
    for ax in axes[::columns]:
        ax.set_ylabel(y)
    for ax in axes[:count]:
        ax.set_xlabel(x)
    return figure, axes[:count]


def _add_legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", fontsize=7,
        ncols=min(len(handles), _legend_columns(figure.get_figwidth(), list(handles))),
    )  # fmt: skip


def _legend_columns(width: float, labels: Sequence[str]) -> int:
    """How many columns of labels of 7 points, with their lines, fit into a width in inches."""
    widest = 0.62 + 0.053 * max(map(len, labels))
    return max(1, min(4, int(width / widest)))


def plot_points(ax: Axes, panel: Panel[PointSet], markers: Mapping[str, str]) -> None:
    """Draw the point sets of one panel, each with the marker of its label."""
    for index, points in enumerate(panel.lines):
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
    _draw_level(ax, panel.level)
    ax.set_title(panel.title)


def _label_positions(ax: Axes, panel: Panel[PointSet]) -> None:
    """Make the horizontal axis logarithmic; name the first and last position, and some between."""
    ax.set_xscale("log")
    places = sorted({x for points in panel.lines for x in points.xs})
    named = [places[0]]
    for place in places[1:]:
        if math.log(place / named[-1]) > 0.12 * math.log(places[-1] / places[0]):
            named.append(place)
    ax.set_xticks(named, [f"{place:,g}" for place in named])
    ax.xaxis.set_minor_locator(NullLocator())


@themed
def courses_figure(panels: Sequence[Panel[EpochCourse]]) -> Figure:
    """Draw accuracy over epochs: validation as a line, training dashed, a colour per classifier.

    Args:
        panels: From left to right, three to a row.
    """
    labels = [course.label for panel in panels for course in panel.lines]
    figure, axes = _panels(len(panels), labels, "epoch", "accuracy")
    handles: dict[str, Artist] = {}
    drawn = 0
    for ax, panel in zip(axes, panels, strict=True):
        plot_courses(ax, panel, first_colour=drawn)
        drawn += len(panel.lines)
        artists, names = ax.get_legend_handles_labels()
        handles |= dict(zip(names, artists, strict=True))
    levels = {_level_label(*panel.level) for panel in panels if panel.level is not None}
    handles = dict(sorted(handles.items(), key=lambda item: item[0] in levels))
    handles["validation"] = Line2D([], [], color="gray", lw=1.2)
    handles["training, as seen"] = Line2D([], [], color="gray", lw=0.9, ls="--")
    _add_legend(figure, handles)
    return figure


def plot_courses(ax: Axes, panel: Panel[EpochCourse], *, first_colour: int = 0) -> None:
    """Draw the courses of one panel, with the colours of classes from the given one on."""
    for index, course in enumerate(panel.lines, first_colour):
        colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
        epochs = range(1, len(course.validation) + 1)
        ax.plot(epochs, course.validation, color=colour, lw=1.2, label=course.label)
        ax.plot(epochs, course.train, color=colour, lw=0.9, ls="--")
    _draw_level(ax, panel.level, style=":")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, 1.03)
    ax.set_title(panel.title)


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
