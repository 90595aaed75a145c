"""Normalise rows by numbers per tensor, taken from the training split."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nefbench.spec import ParamSpec

EPS = 1e-6
"""Added to the standard deviation: a tensor that never varies is centred, not divided by zero."""

Normalisation = Literal["standardise", "scale", "none"]
"""``standardise`` subtracts a mean and divides by a standard deviation; ``scale`` divides by the
root mean square alone, so that a sign stays a sign; ``none`` leaves the weights as they are (the
root mean square is still measured: noise is in units of it)."""


class TensorNormalisation(nn.Module):
    """``(x - mean) / (std + 1e-6)`` per tensor; the numbers are part of the classifier.

    One pair per tensor, not per entry: it commutes with permutations of neurons.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ParamSpec, kind: Normalisation = "standardise") -> None:
        super().__init__()
        self.kind = kind
        self._sizes = [tensor.size for tensor in spec.tensors]
        self.register_buffer("mean", torch.zeros(spec.num_params))
        self.register_buffer("std", torch.ones(spec.num_params))

    def measure(self, rows: Tensor) -> None:
        """Set the statistics from training rows ``[N, P]``, summed in float64."""
        means, stds = [], []
        for block in torch.split(rows, self._sizes, dim=1):
            exact = block.to(torch.float64)
            mean = exact.mean() if self.kind == "standardise" else torch.zeros_like(exact.mean())
            std = (exact - mean).square().mean().sqrt()
            means.append(mean.expand(block.shape[1]))
            stds.append(std.expand(block.shape[1]))
        self.mean.copy_(torch.cat(means))
        self.std.copy_(torch.cat(stds))

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise ``[B, P]``."""
        if self.kind == "none":
            return rows
        return (rows - self.mean) / (self.std + EPS)
