"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from nefbench.metrics.mse import mse

LEAST_MSE = 1e-10
"""Floor of the squared error: PSNR is at most 100 dB, so means over fields stay finite."""


def psnr(truth: Tensor, estimate: Tensor) -> Tensor:
    """PSNR in dB per field, peak 1, at most 100.

    Args:
        truth: ``[N, Q, c]``, values in [0, 1].
        estimate: ``[N, Q, c]``; clipped to [0, 1] first, as a display would.

    Returns:
        ``[N]``; the squared error is averaged over points and channels before the logarithm.

    Raises:
        ValueError: If the shapes differ.
    """
    return -10 * torch.log10(mse(truth, estimate.clamp(0, 1)).clamp_min(LEAST_MSE))


def psnr_peak(truth: Tensor, estimate: Tensor) -> Tensor:
    """PSNR in dB per field relative to that field's own maximum, as fit-a-nef reports it.

    Not comparable between images of different brightness; kept for comparison with published
    numbers. Nothing is clipped; a perfect field scores exactly 80 dB.

    fit-a-nef divides by zero for an image that is black throughout; here its peak is 1.

    Args:
        truth: ``[N, Q, c]``, values in [0, 1]; a field whose maximum is 0 or less has peak 1.
        estimate: ``[N, Q, c]``.

    Returns:
        ``[N]``, at most 80.

    Raises:
        ValueError: If the shapes differ.
    """
    peak = truth.flatten(1).amax(1)[:, None, None]
    peak = torch.where(peak > 0, peak, 1)
    return -10 * torch.log10(mse(truth / peak, estimate / peak) + 1e-8)
