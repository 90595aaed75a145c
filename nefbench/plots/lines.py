"""Signals on a line: values over the domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nefbench.plots.theme import CLASS_COLOURS, PAGE_WIDTH, new_figure, themed


@dataclass(frozen=True)
class LinePanel:
    """One field.

    Attributes:
        values: ``[n, c]``, evenly spaced over the domain, its ends included.
        samples: The same on the fitted grid ``[m, c]``, drawn as dots, or None.
        caption: Above the panel, or empty.
    """

    values: Tensor
    samples: Tensor | None = None
    caption: str = ""


@themed
def lines_figure(panels: Sequence[LinePanel], *, columns: int | None = None) -> Figure:
    """Draw one panel per field, all with the same axes."""
    columns = min(columns or math.ceil(math.sqrt(len(panels))), len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = new_figure(max(PAGE_WIDTH / 2, min(PAGE_WIDTH, 2.4 * columns)), 1.3 * lines + 0.5)
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax, panel in zip(axes, panels, strict=False):
        plot_line(ax, panel)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[max(len(panels) - columns, 0) : len(panels)]:
        ax.tick_params(labelbottom=True)  # also above a place that stays empty
    figure.supxlabel("position (the domain is -1 to 1)", fontsize=8)
    figure.supylabel("value", fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def plot_line(ax: Axes, panel: LinePanel) -> None:
    """Draw the channels of one field as lines, and its samples as dots."""
    for channel, values in enumerate(panel.values.T):
        colour = CLASS_COLOURS[channel % len(CLASS_COLOURS)]
        name = f"channel {channel}" if panel.values.shape[1] > 1 else "field"
        ax.plot(_positions(values), values.numpy(), color=colour, lw=0.9, label=name)
        if panel.samples is not None:
            dots = panel.samples[:, channel]
            name = "on the fitted grid" if channel == 0 else "_"
            ax.plot(_positions(dots), dots.numpy(), ".", color=colour, ms=3, label=name)
    ax.set_title(panel.caption, fontsize=6, pad=2, parse_math=False)


def _positions(values: Tensor) -> list[float]:
    steps = max(len(values) - 1, 1)
    return [-1 + 2 * index / steps for index in range(len(values))]
