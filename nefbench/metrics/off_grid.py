"""Where and against what a field is compared between the samples it was fitted to.

The truth between samples is interpolated, so a field that is exactly right scores only as well as
the interpolation does: read off-grid numbers beside each other, not as absolute errors.

The grids are those of the fitted samples: the first and the last sample of every axis lie at -1
and 1, the last axis is fastest, and component 0 of a coordinate is the fastest axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def midpoint_coords(grid_shape: Sequence[int]) -> Tensor:
    """Return the midpoints of the cells of a grid, ``-1 + (2 i + 1) / (n - 1)`` on every axis.

    Args:
        grid_shape: Samples per axis, slowest first, ``d`` of them.

    Returns:
        Float32 ``[Q', d]`` inside (-1, 1), where ``Q'`` is the product of ``n - 1`` over the axes.

    Raises:
        ValueError: If an axis has fewer than two samples.
    """
    _check_grid(grid_shape)
    return _coords([(2 * _count(size - 1) + 1) / (size - 1) - 1 for size in grid_shape])


def midpoint_values(values: Tensor, grid_shape: Sequence[int]) -> Tensor:
    """Interpolate signals at the midpoints: the mean over the ``2^d`` corners of every cell.

    This is multilinear interpolation at the positions of ``midpoint_coords``.

    Args:
        values: ``[N, Q, c]``, floating point, ``Q`` the product of the grid.
        grid_shape: Samples per axis, slowest first.

    Returns:
        ``[N, Q', c]`` in the type of ``values``, inside their range.

    Raises:
        TypeError: If the values are integers or booleans.
        ValueError: If an axis has fewer than two samples or ``Q`` differs from the grid.
    """
    grid = _as_grid(values, grid_shape)
    for axis, size in enumerate(grid_shape, start=1):
        grid = (grid.narrow(axis, 0, size - 1) + grid.narrow(axis, 1, size - 1)) / 2
    return grid.flatten(1, -2)


def legacy_midpoint_coords(grid_shape: tuple[int, int]) -> Tensor:
    """Return the field coordinates of fit-a-nef's off-grid measure; only for comparison with it.

    ``linspace(-1 + 1/n, 1 - 1/n, n - 1)`` on every axis. These are not the positions at which
    ``legacy_midpoint_values`` reads the image: they agree in the centre only.

    Args:
        grid_shape: Height and width.

    Returns:
        Float32 ``[(H - 1) (W - 1), 2]``.

    Raises:
        ValueError: If a side is under two pixels.
    """
    _check_image(grid_shape)
    return _coords(
        [
            torch.linspace(-1 + 1 / size, 1 - 1 / size, size - 1, dtype=torch.float64)
            for size in grid_shape
        ]
    )


def legacy_midpoint_values(values: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """Interpolate images as fit-a-nef's off-grid measure does; only for comparison with it.

    Bilinear at pixel ``linspace(0.5, n - 0.5, n - 1)`` on every axis. The spacing is over one
    pixel, and the last row and column lie half a pixel outside the image, where they are blended
    with 0. So a field that is right everywhere scores 20 to 30 dB where the midpoints give over 50.

    Args:
        values: ``[N, Q, c]``, floating point, ``Q = H W``.
        grid_shape: Height and width.

    Returns:
        ``[N, (H - 1) (W - 1), c]`` in the type of ``values``.

    Raises:
        TypeError: If the values are integers or booleans.
        ValueError: If a side is under two pixels or ``Q`` differs from the grid.
    """
    _check_image(grid_shape)
    images = _as_grid(values, grid_shape)
    down, across = (_hat_weights(size).to(values) for size in grid_shape)
    rows = torch.einsum("ir,nrkc->nikc", down, images)
    between: Tensor = torch.einsum("jk,nikc->nijc", across, rows)
    return between.flatten(1, 2)


def _hat_weights(size: int) -> Tensor:
    """Return linear interpolation at the legacy positions, 0 outside, float64 ``[n - 1, n]``."""
    positions = torch.linspace(0.5, size - 0.5, size - 1, dtype=torch.float64)
    return (1 - (positions[:, None] - _count(size)).abs()).clamp_min(0)


def _count(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64)


def _coords(axes: Sequence[Tensor]) -> Tensor:
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in reversed(mesh)], dim=-1).float()


def _as_grid(values: Tensor, grid_shape: Sequence[int]) -> Tensor:
    """Return values ``[N, *grid, c]``."""
    _check_grid(grid_shape)
    if not values.is_floating_point():
        raise TypeError(f"expected floating point values (got {values.dtype})")
    if values.ndim != 3 or values.shape[1] != math.prod(grid_shape):
        raise ValueError(
            f"expected values [N, {math.prod(grid_shape)}, c] on grid {tuple(grid_shape)} "
            f"(got shape {tuple(values.shape)})"
        )
    grid: Tensor = values.unflatten(1, tuple(grid_shape))
    return grid


def _check_grid(grid_shape: Sequence[int]) -> None:
    if not grid_shape:
        raise ValueError("expected a grid of at least one axis (got none)")
    for axis, size in enumerate(grid_shape):
        if size < 2:
            raise ValueError(
                f"expected at least 2 samples on axis {axis} of grid {tuple(grid_shape)} "
                f"(got {size}); there is nothing between samples"
            )


def _check_image(grid_shape: Sequence[int]) -> None:
    if len(grid_shape) != 2:
        raise ValueError(f"expected an image, height and width (got grid {tuple(grid_shape)})")
    _check_grid(grid_shape)
