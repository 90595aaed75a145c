"""Weights as points in the plane, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nefbench.plots.theme import CLASS_COLOURS, PAGE_WIDTH, new_figure, themed


@dataclass(frozen=True)
class Projection:
    """Weight rows projected on their first two principal components.

    Attributes:
        title: Above the axes.
        points: ``[N, 2]``.
        labels: Class numbers ``[N]``.
        explained: Share of variance of each component, 0 to 1.
    """

    title: str
    points: Tensor
    labels: Tensor
    explained: tuple[float, float]


@themed
def projection_figure(
    projections: Sequence[Projection], class_names: Sequence[str], *, legend: str
) -> Figure:
    """Draw projections side by side with one legend of the classes."""
    figure = new_figure(PAGE_WIDTH, PAGE_WIDTH / len(projections) * 0.9)
    axes = figure.subplots(1, len(projections), squeeze=False)[0]
    for ax, projection in zip(axes, projections, strict=True):
        plot_projection(ax, projection, class_names)
    axes[-1].legend(title=legend, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return figure


def plot_projection(ax: Axes, projection: Projection, class_names: Sequence[str]) -> None:
    """Draw one projection, one colour per class."""
    for label, name in enumerate(class_names):
        chosen = projection.points[projection.labels == label]
        ax.scatter(
            chosen[:, 0].numpy(),
            chosen[:, 1].numpy(),
            s=5,
            lw=0,
            alpha=0.8,
            color=CLASS_COLOURS[label % len(CLASS_COLOURS)],
            label=name,
        )
    first, second = projection.explained
    ax.set_xlabel(f"PC 1 ({first:.1%} of variance)")
    ax.set_ylabel(f"PC 2 ({second:.1%} of variance)")
    ax.set_title(projection.title)
