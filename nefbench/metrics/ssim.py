"""Structural similarity of images (Wang et al. 2004)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

_SIGMA = 1.5
_WINDOW = 11
_K1, _K2 = 0.01, 0.03


def ssim(truth: Tensor, estimate: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """SSIM per field: Gaussian window (sigma 1.5, 11 x 11), population covariances, data range 1.

    Averaged over the positions where the window fits and over channels. Images with a side
    under 11 pixels use the largest odd window that fits: a number of its own kind, to be compared
    among such images only.

    Args:
        truth: ``[N, Q, c]``, values in [0, 1], points row by row.
        estimate: ``[N, Q, c]``; clipped to [0, 1] first.
        grid_shape: Height and width, ``H * W = Q``.

    Returns:
        ``[N]``, at most 1.
    """
    height, width = grid_shape
    size = min(_WINDOW, height - 1 + height % 2, width - 1 + width % 2)
    kernel = _gaussian(size, truth)
    x, y = (_as_planes(image, grid_shape) for image in (truth, estimate.clamp(0, 1)))
    # One convolution for all five moments: they share the window.
    moments = torch.stack([x, y, x * x, y * y, x * y])
    smooth = F.conv2d(moments.reshape(-1, 1, height, width), kernel)
    mean_x, mean_y, xx, yy, xy = smooth.reshape(5, x.shape[0], -1)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    per_field: Tensor = similarity.reshape(truth.shape[0], -1).mean(1)
    return per_field


def _gaussian(size: int, like: Tensor) -> Tensor:
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    line = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    plane = line[:, None] * line[None, :]
    return (plane / plane.sum())[None, None]


def _as_planes(values: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    return values.transpose(1, 2).reshape(-1, *grid_shape)
