"""How often a closed mesh winds around a point, by counting faces along three rays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_PAIRS_AT_ONCE = 2**20


def inside_mesh(triangles: Array, points: Array) -> npt.NDArray[np.bool_]:
    """Tell which points ``[q, 3]`` lie inside a closed mesh of triangles ``[f, 3, 3]``.

    Inside is where the winding number is not zero, so overlapping closed parts are joined. Rays
    go along the three axes and the majority decides; an edge belongs to one of its two faces only,
    because both compute it from the same end, so a ray through an edge counts once.
    """
    votes = np.zeros(len(points), dtype=np.int64)
    for axis in range(3):
        votes += winding_along(triangles, points, axis) != 0
    return votes >= 2


def winding_along(triangles: Array, points: Array, axis: int) -> npt.NDArray[np.int64]:
    """Return winding numbers ``[q]`` from the faces that a ray in direction ``axis`` crosses."""
    across, up = (axis + 1) % 3, (axis + 2) % 3
    order = points[:, across].argsort(kind="stable")
    ordered = points[order]
    heights = np.ascontiguousarray(ordered[:, up])
    lowest, highest = triangles[:, :, up].min(1), triangles[:, :, up].max(1)
    winding = np.zeros(len(points), dtype=np.int64)
    for faces, rows in _pairs(triangles[:, :, across], ordered[:, across]):
        height = heights[rows]
        within = (height >= lowest[faces]) & (height <= highest[faces])
        faces, rows = faces[within], rows[within]
        corners = triangles[faces]
        sign = _covers(corners[:, :, [across, up]], ordered[rows][:, [across, up]])
        hit = sign != 0
        faces, rows, corners, sign = faces[hit], rows[hit], corners[hit], sign[hit]
        above = _height(corners, ordered[rows], axis) > ordered[rows, axis]
        np.add.at(winding, rows[above], sign[above])
    result = np.empty_like(winding)
    result[order] = winding
    return result


def _pairs(
    spans: Array, sorted_values: Array
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield blocks of (face, row) where the face's span ``[f, 3]`` holds the row's value."""
    first = np.searchsorted(sorted_values, spans.min(1), side="left")
    counts = np.searchsorted(sorted_values, spans.max(1), side="right") - first
    ends = counts.cumsum()
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        faces = np.repeat(np.arange(start, stop), counts[start:stop])
        begins = ends[start:stop] - counts[start:stop] - done
        rows = np.arange(len(faces)) - np.repeat(begins, counts[start:stop]) + first[faces]
        yield faces, rows
        start = stop


def _covers(corners: Array, points: Array) -> npt.NDArray[np.int64]:
    """Winding of triangles ``[p, 3, 2]`` around points ``[p, 2]``: 1, -1 or 0.

    An edge counts where it passes from one side of the point's horizontal to the other and runs
    to the right of it.
    """
    total = np.zeros(len(points), dtype=np.int64)
    for position in range(3):
        start, end = corners[:, position], corners[:, (position + 1) % 3]
        rises = (start[:, 1] <= points[:, 1]) & (end[:, 1] > points[:, 1])
        falls = (start[:, 1] > points[:, 1]) & (end[:, 1] <= points[:, 1])
        # From the lower end, whichever face asks: the two faces of an edge agree to the last bit.
        low = np.where(rises[:, None], start, end)
        high = np.where(rises[:, None], end, start)
        cross = (high[:, 0] - low[:, 0]) * (points[:, 1] - low[:, 1]) - (high[:, 1] - low[:, 1]) * (
            points[:, 0] - low[:, 0]
        )
        right = cross > 0
        total += np.where(right, rises.astype(np.int64) - falls.astype(np.int64), 0)
    return total


def _height(corners: Array, points: Array, axis: int) -> Any:
    """Coordinate ``axis`` of the plane of each triangle above or below its point."""
    across, up = (axis + 1) % 3, (axis + 2) % 3
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    offset = points - corners[:, 0]
    slant = normal[:, across] * offset[:, across] + normal[:, up] * offset[:, up]
    with np.errstate(divide="ignore", invalid="ignore"):
        height = corners[:, 0, axis] - slant / normal[:, axis]
    # A face seen from its edge: any of its points will do.
    return np.where(np.isfinite(height), height, corners[:, 0, axis])
