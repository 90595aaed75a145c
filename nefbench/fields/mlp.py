"""MLP: a plain ReLU network on the coordinates, the baseline that every encoding has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nefbench.fields import base
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MLP:
    """ReLU layers and a linear output map; Glorot-normal kernels, zero biases."""

    kind: Literal["mlp"] = "mlp"
    hidden_dim: int = 32
    """Width ``h`` of every hidden layer."""
    num_layers: int = 3
    """Hidden layers ``L``; there are ``L + 1`` linear maps."""

    def __post_init__(self) -> None:
        base.check_at_least("hidden_dim", self.hidden_dim, 1)
        base.check_at_least("num_layers", self.num_layers, 1)

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors; hidden layer ``i`` has the exchangeable group ``h{i}``.

        What enters a unit may grow by any positive factor if what leaves it shrinks by the same.
        """
        tensors: list[TensorSpec] = []
        fan_in, group_in = in_dim, None
        for i in range(self.num_layers):
            group = f"h{i}"
            tensors += base.linear_specs(f"Dense_{i}", (fan_in, self.hidden_dim), (group_in, group))
            fan_in, group_in = self.hidden_dim, group
        tensors += base.linear_specs(
            f"Dense_{self.num_layers}", (fan_in, out_dim), (group_in, None)
        )
        layers = [f"Dense_{i}" for i in range(self.num_layers + 1)]
        groups = [f"h{i}" for i in range(self.num_layers)]
        return ParamSpec(tuple(tensors), base.relu_scales(layers, groups))

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw the start."""
        params = {}
        for tensor in self.spec(in_dim, out_dim).tensors:
            is_bias = tensor.name.endswith("bias")
            law = base.zeros if is_bias else base.normal(math.sqrt(2 / sum(tensor.shape)))
            params[tensor.name] = law(draws, tensor)
        return params

    def apply(self, params: base.Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``."""
        return base.outputs_of(self._stages(params, coords))

    def trace(self, params: base.Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return all units after their ReLU; see ``Field.trace``."""
        return base.trace_of(self._stages(params, coords))

    def _stages(self, params: base.Params, coords: Tensor) -> base.Stages:
        hidden = coords
        for i in range(self.num_layers):
            hidden = torch.relu(base.linear(params, f"Dense_{i}", hidden))
            yield f"h{i}", hidden
        yield base.OUTPUTS, base.linear(params, f"Dense_{self.num_layers}", hidden)
