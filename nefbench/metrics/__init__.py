"""Measures of how well a field represents its signal: pure functions, one value per field."""

from nefbench.metrics.mse import mse
from nefbench.metrics.psnr import psnr, psnr_peak
from nefbench.metrics.ssim import ssim

__all__ = ["mse", "psnr", "psnr_peak", "ssim"]
