"""Pieces that several models are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def perceptron(dims: Sequence[int], activation: str = "relu", dropout: float = 0.0) -> nn.Module:
    """Return linear maps ``dims[0] -> … -> dims[-1]`` with an activation between them."""
    layers: list[nn.Module] = []
    for index in range(len(dims) - 1):
        layers.append(nn.Linear(dims[index], dims[index + 1]))
        if index < len(dims) - 2:
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class FourierFeatures(nn.Module):
    """Sines and cosines of fixed Gaussian projections (Tancik et al. 2020, arXiv 2006.10739).

    ``[..., d] -> [..., 2 n]``: sines first; the frequencies are drawn once from
    Normal(0, sigma**2) and stored with the weights, never trained.
    """

    frequencies: Tensor

    def __init__(self, in_features: int, num_frequencies: int, sigma: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", sigma * torch.randn(in_features, num_frequencies))

    def forward(self, values: Tensor) -> Tensor:
        """Encode values."""
        angle = 2 * math.pi * (values @ self.frequencies)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
