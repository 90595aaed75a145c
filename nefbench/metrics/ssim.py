"""Structural similarity of images (Wang et al. 2004)."""

from __future__ import annotations

import torch
from torch import Tensor

from nefbench.metrics._shapes import check_same_shape

_SIGMA = 1.5
_WINDOW = 11
_K1, _K2 = 0.01, 0.03


def ssim(truth: Tensor, estimate: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """SSIM per field: Gaussian window (sigma 1.5, 11 x 11), population covariances, data range 1.

    Averaged over the positions where the window fits and over channels. Images with a side
    under 11 pixels use the largest odd window that fits: a number of its own kind, to be compared
    among such images only. With a side under 3 the window is one pixel, and the number compares
    brightness alone.

    Args:
        truth: ``[N, Q, c]``, values in [0, 1], points row by row.
        estimate: ``[N, Q, c]``; clipped to [0, 1] first.
        grid_shape: Height and width, ``H * W = Q``.

    Returns:
        ``[N]`` in [-1, 1], computed in float64, in the type of ``truth``.

    Raises:
        ValueError: If the shapes differ, a side is empty or ``Q`` differs from the grid.
    """
    check_same_shape(truth, estimate)
    height, width = grid_shape
    if min(grid_shape) < 1 or height * width != truth.shape[1]:
        raise ValueError(
            f"expected sides of at least 1 pixel and values [N, {height * width}, c] on grid "
            f"{height} x {width} (got shape {tuple(truth.shape)})"
        )
    size = min(_WINDOW, height - 1 + height % 2, width - 1 + width % 2)
    x, y = (_as_planes(image, grid_shape) for image in (truth, estimate.clamp(0, 1)))
    # One smoothing for all five moments: they share the window.
    moments = torch.stack([x, y, x * x, y * y, x * y])
    down, across = (_gaussian_band(side, size, moments) for side in grid_shape)
    mean_x, mean_y, xx, yy, xy = down @ moments @ across.T
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    per_field: Tensor = similarity.reshape(len(truth), -1).mean(1)
    return per_field.to(truth.dtype)


def _gaussian_band(side: int, size: int, like: Tensor) -> Tensor:
    """Return the window at every position of one axis where it fits, ``[side - size + 1, side]``.

    Two products with such matrices are the convolution with the window, several times faster
    than ``conv2d`` on images of these sizes.
    """
    pixels = torch.arange(side, dtype=like.dtype, device=like.device)
    centres = pixels[: side - size + 1, None] + size // 2
    offsets = pixels - centres
    band = torch.exp(-(offsets**2) / (2 * _SIGMA**2)) * (offsets.abs() <= size // 2)
    return band / band.sum(1, keepdim=True)


def _as_planes(values: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """Return one plane per field and channel, ``[N c, H, W]``.

    In float64: a variance is the small difference of two moments, and in flat bright regions
    float32 loses more of it than the constants of SSIM hide.
    """
    return values.double().transpose(1, 2).reshape(-1, *grid_shape)
