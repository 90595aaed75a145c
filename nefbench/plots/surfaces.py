"""Surfaces of shapes, shaded, side by side at one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
from torch import Tensor

from nefbench.plots.theme import PAGE_WIDTH, new_figure, themed

_COLOUR = "#A9CBE4"
_LAMP = (0.45, -0.2, 0.87)
"""Direction in axes of the figure: tops are bright, fronts less so, right sides dark."""
_VIEW = {"elev": 22.0, "azim": 35.0}


@dataclass(frozen=True)
class ShadedSurface:
    """One surface.

    Attributes:
        vertices: ``[V, 3]`` in coordinates (x, y, z), y upwards.
        faces: Indices of corners ``[F, 3]``, anticlockwise seen from outside; may be empty.
        caption: Below the surface, or empty.
    """

    vertices: Tensor
    faces: Tensor
    caption: str = ""


@themed
def surfaces_figure(
    surfaces: Sequence[ShadedSurface], *, side: float, columns: int | None = None
) -> Figure:
    """Draw surfaces in rows, without axes, all seen from the same side.

    Args:
        surfaces: Row by row.
        side: Of the cube around the origin that every panel shows.
        columns: Panels per row; about as many as rows if left out.
    """
    columns = min(columns or math.ceil(math.sqrt(len(surfaces))), len(surfaces))
    lines = math.ceil(len(surfaces) / columns)
    cell = min(PAGE_WIDTH / columns, 2.4)
    room = 0.13 * max(surface.caption.count("\n") + 1 for surface in surfaces)
    width, height = columns * cell, lines * (cell + room)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # it would leave room for the axes that are not drawn
    for index, surface in enumerate(surfaces):
        line, column = divmod(index, columns)
        bottom = 1 - (line + 1) * (cell + room) / height
        place = (column * cell / width, bottom + room / height, cell / width, cell / height)
        ax = figure.add_axes(place, projection="3d")
        assert isinstance(ax, Axes3D)
        plot_surface(ax, surface, side=side)
        centre = (column + 0.5) * cell / width
        figure.text(
            centre, bottom + room / height, surface.caption,
            ha="center", va="top", fontsize=6, parse_math=False,
        )  # fmt: skip
    return figure


def plot_surface(ax: Axes3D, surface: ShadedSurface, *, side: float) -> None:
    """Draw one surface, seen from the front right and above, in parallel projection."""
    if len(surface.faces):
        # (z, x, y): the axes of a figure have z upwards, and a rotation keeps faces facing out.
        corners = surface.vertices.double().numpy()[:, [2, 0, 1]][surface.faces.numpy()]
        colours = _shaded(corners)
        # With edges, or else the page shines through between triangles.
        drawn = Poly3DCollection(corners, facecolors=colours, edgecolors=colours, linewidths=0.2)
        drawn.set_clip_on(False)  # corners of the cube reach a little over the panel
        drawn.set_rasterized(True)  # thousands of triangles are no use as outlines
        ax.add_collection3d(drawn)
    half = side / 2
    ax.set(xlim=(-half, half), ylim=(-half, half), zlim=(-half, half))
    ax.set_box_aspect((1, 1, 1), zoom=1.25)
    ax.set_proj_type("ortho")
    ax.view_init(**_VIEW)
    ax.set_axis_off()


def _shaded(corners: Any) -> Any:
    """Return colours ``[F, 3]`` under one lamp and light from all around."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    towards_lamp = normals @ np.array(_LAMP) / np.maximum(lengths, 1e-12)
    brightness = 0.6 + 0.4 * towards_lamp
    return np.clip(brightness[:, None] * np.array(to_rgb(_COLOUR)), 0, 1)
