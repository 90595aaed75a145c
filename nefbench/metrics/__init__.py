"""Measures of how well fields represent their signals, and of how their weights cluster.

Pure functions. Those that compare a field with its signal give one value per field.
"""

from nefbench.metrics.iou import iou
from nefbench.metrics.mae import mae
from nefbench.metrics.mse import mse
from nefbench.metrics.nmi import NMI, nmi
from nefbench.metrics.off_grid import (
    legacy_midpoint_coords,
    legacy_midpoint_values,
    midpoint_coords,
    midpoint_values,
)
from nefbench.metrics.psnr import psnr, psnr_peak
from nefbench.metrics.ratio import SetRatio, quality_ratio, set_ratio
from nefbench.metrics.simse import simse
from nefbench.metrics.ssim import ssim

__all__ = [
    "NMI",
    "SetRatio",
    "iou",
    "legacy_midpoint_coords",
    "legacy_midpoint_values",
    "mae",
    "midpoint_coords",
    "midpoint_values",
    "mse",
    "nmi",
    "psnr",
    "psnr_peak",
    "quality_ratio",
    "set_ratio",
    "simse",
    "ssim",
]
