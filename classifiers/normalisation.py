"""Normalise rows by one mean and one standard deviation per tensor, from the training split."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from classifiers.examples import Layout

EPS = 1e-6
"""Added to the standard deviation: a tensor that never varies is centred, not divided by zero."""


class TensorNormalisation(nn.Module):
    """``(x - mean) / (std + 1e-6)`` per tensor; the numbers are part of the classifier.

    One pair per tensor, not per entry: it commutes with permutations of neurons.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._sizes = [math.prod(shape) for _, shape in layout]
        self.register_buffer("mean", torch.zeros(sum(self._sizes)))
        self.register_buffer("std", torch.ones(sum(self._sizes)))

    def measure(self, rows: Tensor) -> None:
        """Set the statistics from training rows ``[N, P]``, summed in float64."""
        means, stds = [], []
        for block in torch.split(rows, self._sizes, dim=1):
            exact = block.to(torch.float64)
            mean = exact.mean()
            std = (exact - mean).square().mean().sqrt()
            means.append(mean.expand(block.shape[1]))
            stds.append(std.expand(block.shape[1]))
        self.mean.copy_(torch.cat(means))
        self.std.copy_(torch.cat(stds))

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise ``[B, P]``."""
        return (rows - self.mean) / (self.std + EPS)
