"""GaborNet, a multiplicative filter network with local filters (Fathony et al. 2021, ICLR)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nefbench.fields import base
from nefbench.fields.fouriernet import chain_specs, chain_symmetries, multiply_filters
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class GaborNet:
    """Gabor filters of the coordinates, multiplied into a linear chain.

    ``g_i(x) = exp(-gamma_i |x - mu_i|^2 / 2) sin(x Omega_i + phi_i)``. The start follows the
    original code: gamma ~ Gamma(alpha / F, beta), mu ~ U(-1, 1), Omega ~ U(±1 / sqrt(d)) times
    ``s sqrt(gamma / F)``, linear maps as in FourierNet's preset ``original``. The published study
    never stored a GaborNet, so the tensor names are ours.
    """

    kind: Literal["gabornet"] = "gabornet"
    hidden_dim: int = 32
    """Width ``h`` of every filter."""
    num_filters: int = 4
    """Filters ``F``; there are ``F`` linear maps, the output map included."""
    input_scale: float = 256.0
    """Spread ``s`` of the frequencies."""
    weight_scale: float = 1.0
    """Linear maps start at U(±sqrt(weight_scale / h))."""
    alpha: float = 6.0
    """Shape of the Gamma distribution of the filters' precision, divided by ``F``."""
    beta: float = 1.0
    """Rate of the Gamma distribution."""
    preset: Literal["original"] = "original"
    """Whose initialisation to follow."""

    def __post_init__(self) -> None:
        base.check_at_least("hidden_dim", self.hidden_dim, 1)
        base.check_at_least("num_filters", self.num_filters, 1)
        for name in ("input_scale", "weight_scale", "alpha", "beta"):
            base.check_positive(name, getattr(self, name))

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors: filters (gamma, mu, bias, kernel), linear maps, output map."""
        tensors: list[TensorSpec] = []
        for i in range(self.num_filters):
            group = f"g{i}"
            tensors += (
                TensorSpec(f"filters_{i}.gamma", (self.hidden_dim,), (group,)),
                TensorSpec(f"filters_{i}.mu", (in_dim, self.hidden_dim), (None, group)),
                *base.linear_specs(f"filters_{i}.linear", (in_dim, self.hidden_dim), (None, group)),
            )
        tensors += chain_specs(self.num_filters, self.hidden_dim, out_dim)
        return ParamSpec(tuple(tensors), tuple(chain_symmetries(self.num_filters)))

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw the start."""
        params: dict[str, Tensor] = {}
        scale = self.input_scale / math.sqrt(self.num_filters)
        for tensor in self.spec(in_dim, out_dim).tensors:
            prefix, _, leaf = tensor.name.partition(".")
            if leaf == "gamma":
                shape_parameter = self.alpha / self.num_filters
                value = draws.gamma(tensor.name, tensor.shape, shape_parameter) / self.beta
            elif leaf == "mu":
                value = draws.uniform(tensor.name, tensor.shape, 1.0)
            elif leaf == "linear.kernel":
                gamma = params[f"{prefix}.gamma"][:, None, :]
                unit = base.torch_default(in_dim)(draws, tensor)
                value = unit * scale * torch.sqrt(gamma)
            else:
                value = self._law(tensor.name)(draws, tensor)
            params[tensor.name] = value
        return params

    def apply(self, params: base.Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``."""
        return base.outputs_of(self._stages(params, coords))

    def trace(self, params: base.Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return the products of all filters so far; see ``Field.trace``."""
        return base.trace_of(self._stages(params, coords))

    def _stages(self, params: base.Params, coords: Tensor) -> base.Stages:
        filters = [self._filter(params, f"filters_{i}", coords) for i in range(self.num_filters)]
        yield from multiply_filters(params, filters)

    def _filter(self, params: base.Params, prefix: str, coords: Tensor) -> Tensor:
        mu = params[f"{prefix}.mu"]
        distance = (coords**2).sum(-1, keepdim=True) + (mu**2).sum(0) - 2 * (coords @ mu)
        envelope = torch.exp(-0.5 * params[f"{prefix}.gamma"] * distance)
        return envelope * torch.sin(base.linear(params, f"{prefix}.linear", coords))

    def _law(self, name: str) -> base.Law:
        if name.startswith("filters"):
            return base.uniform(math.pi)
        if name.endswith("bias") or name.startswith("output"):
            return base.torch_default(self.hidden_dim)
        return base.uniform(math.sqrt(self.weight_scale / self.hidden_dim))
