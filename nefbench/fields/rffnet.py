"""RFFNet: a ReLU network on random Fourier features (Tancik et al. 2020, arXiv 2006.10739)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nefbench.fields import base
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, Slot, TensorSpec, UnitSymmetry

_ENCODING = "encoding.coefficients.kernel"


@dataclass(frozen=True, kw_only=True, slots=True)
class RFFNet:
    """``[sin e, cos e]`` with ``e = 2 pi std x B``, then ReLU layers and a linear output map.

    Preset ``paper`` (Papa et al. 2024, supplement) has no factor 2 pi; its biases have no published
    law and start at zero here. ``original`` is the network of Tancik et al.'s code: Glorot-normal
    kernels and biases from Normal(0, 0.01**2).
    """

    kind: Literal["rffnet"] = "rffnet"
    hidden_dim: int = 32
    """Width ``h`` of the encoding and of every hidden layer; even."""
    num_layers: int = 3
    """Linear maps ``L`` after the encoding, the output map included."""
    std: float = 3.5
    """Spread of the frequencies."""
    learnable_coefficients: bool = True
    """Whether the frequencies ``B`` are fitted; if not, nothing changes them, decay included."""
    preset: Literal["paper", "fit-a-nef", "original"] = "fit-a-nef"
    """Whose initialisation and frequency factor to follow."""

    def __post_init__(self) -> None:
        base.check_at_least("hidden_dim", self.hidden_dim, 2)
        if self.hidden_dim % 2:
            raise ValueError(f"expected an even hidden_dim (got {self.hidden_dim})")
        base.check_at_least("num_layers", self.num_layers, 2)
        base.check_positive("std", self.std)

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors.

        The sine and the cosine of one frequency move together: the first ReLU kernel is seen as
        ``[2, h/2, h]`` with the exchangeable group ``f`` on its middle axis. A negated frequency
        negates its sine; ReLU units have a positive scale.
        """
        width, half = self.hidden_dim, self.hidden_dim // 2
        tensors = [
            TensorSpec(
                _ENCODING, (in_dim, half), (None, "f"), trainable=self.learnable_coefficients
            )
        ]
        for i in range(self.num_layers):
            last = i == self.num_layers - 1
            name = "linear_final" if last else f"layers_{i}.linear"
            shape = (width, out_dim if last else width)
            group_out = None if last else f"h{i}"
            bias, kernel = base.linear_specs(name, shape, (f"h{i - 1}", group_out))
            if i == 0:
                kernel = TensorSpec(
                    kernel.name, shape, (None, "f", group_out), view=(2, half, shape[1])
                )
            tensors += (bias, kernel)
        layers = [f"layers_{i}.linear" for i in range(self.num_layers - 1)]
        groups = [f"h{i}" for i in range(self.num_layers - 1)]
        symmetries = base.relu_scales([*layers, "linear_final"], groups)
        if self.learnable_coefficients:  # frozen frequencies are nobody's to negate
            sines = Slot(f"{layers[0]}.kernel", 1, channel=0)
            symmetries = (UnitSymmetry("f", "sign", (Slot(_ENCODING, 1), sines)), *symmetries)
        return ParamSpec(tuple(tensors), symmetries)

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw the start; the laws are those of ``preset``."""
        return {
            tensor.name: self._law(tensor)(draws, tensor)
            for tensor in self.spec(in_dim, out_dim).tensors
        }

    def apply(self, params: base.Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``."""
        return base.outputs_of(self._stages(params, coords))

    def trace(self, params: base.Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return all units, a frequency as sine and cosine."""
        return base.trace_of(self._stages(params, coords))

    def _stages(self, params: base.Params, coords: Tensor) -> base.Stages:
        factor = self.std if self.preset == "paper" else 2 * math.pi * self.std
        angle = coords @ (params[_ENCODING] * factor)
        sine, cosine = torch.sin(angle), torch.cos(angle)
        yield "f", sine
        yield "f", cosine
        hidden = torch.cat([sine, cosine], dim=-1)
        for i in range(self.num_layers - 1):
            hidden = torch.relu(base.linear(params, f"layers_{i}.linear", hidden))
            yield f"h{i}", hidden
        yield base.OUTPUTS, base.linear(params, "linear_final", hidden)

    def _law(self, tensor: TensorSpec) -> base.Law:
        if tensor.name == _ENCODING:
            return base.normal(1.0)
        if tensor.name.endswith("bias"):
            stds = {"fit-a-nef": 1e-6, "original": 1e-2}
            return base.normal(stds[self.preset]) if self.preset in stds else base.zeros
        fan_in, fan_out = tensor.shape
        if self.preset == "original":
            return base.normal(math.sqrt(2 / (fan_in + fan_out)))
        if self.preset == "fit-a-nef" and tensor.name != "linear_final.kernel":
            return base.normal(math.sqrt(2 / fan_in))
        return base.he_uniform(fan_in)
