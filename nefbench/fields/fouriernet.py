"""FourierNet, a multiplicative filter network (Fathony et al. 2021, ICLR)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nefbench.fields import base
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, Slot, TensorSpec, UnitSymmetry


def chain_specs(num_filters: int, hidden_dim: int, out_dim: int) -> list[TensorSpec]:
    """Declare the linear maps between the filters of a multiplicative filter network.

    Filter ``i`` and the linear map whose output it multiplies share the exchangeable group
    ``g{i}``.
    """
    tensors: list[TensorSpec] = []
    for i in range(num_filters - 1):
        tensors += base.linear_specs(
            f"linears_{i}", (hidden_dim, hidden_dim), (f"g{i}", f"g{i + 1}")
        )
    tensors += base.linear_specs(
        "output_linear", (hidden_dim, out_dim), (f"g{num_filters - 1}", None)
    )
    return tensors


def chain_symmetries(num_filters: int) -> Iterator[UnitSymmetry]:
    """Declare the signs, phases and scales of the units of a multiplicative filter network.

    A filter is a sine of the coordinates, so its units have the sign and phase of a SIREN. From the
    second filter on a unit is a product: of its two factors both may be negated, and the linear one
    may be multiplied by any number if what leaves the unit is divided by it.
    """
    linears = [f"linears_{i}" for i in range(num_filters - 1)]
    for i, after in enumerate([*linears, "output_linear"]):
        group, outgoing = f"g{i}", Slot(f"{after}.kernel", 0)
        prefix = f"filters_{i}.linear"
        sine = (Slot(f"{prefix}.bias", 0), Slot(f"{prefix}.kernel", 1))
        if i == 0:
            yield UnitSymmetry(group, "sign", (*sine, outgoing))
        else:
            factor = (Slot(f"{linears[i - 1]}.bias", 0), Slot(f"{linears[i - 1]}.kernel", 1))
            inverse = Slot(outgoing.tensor, 0, -1)
            yield UnitSymmetry(group, "sign", (*factor, outgoing))
            yield UnitSymmetry(group, "filter-sign", (*sine, *factor))
            yield UnitSymmetry(group, "scale", (*factor, inverse))
        yield UnitSymmetry(group, "phase", (outgoing,), ((f"{prefix}.bias", math.pi),))


def multiply_filters(params: base.Params, filters: list[Tensor]) -> base.Stages:
    """Run ``z_i = g_i * (z_{i-1} A_{i-1} + a_{i-1})`` over all filters, then the output map."""
    hidden = filters[0]
    yield "g0", hidden
    for i, response in enumerate(filters[1:]):
        hidden = response * base.linear(params, f"linears_{i}", hidden)
        yield f"g{i + 1}", hidden
    yield base.OUTPUTS, base.linear(params, "output_linear", hidden)


@dataclass(frozen=True, kw_only=True, slots=True)
class FourierNet:
    """Sines of the coordinates, multiplied into a linear chain.

    ``g_i(x) = sin(x Omega_i + phi_i)``; the kernel of each filter starts at
    U(±sqrt(3 s / (sqrt(F) d))) in ``fit-a-nef``, U(±s / sqrt(F d)) in ``original`` and
    U(±sqrt(s / F)) in ``paper`` (Papa et al. 2024, supplement). The paper gives no law for phases,
    biases and the constant of the linear maps ("as SIREN"): U(±pi), zero and U(±sqrt(6 / h)) here.
    """

    kind: Literal["fouriernet"] = "fouriernet"
    hidden_dim: int = 32
    """Width ``h`` of every filter."""
    num_filters: int = 4
    """Filters ``F``; there are ``F`` linear maps, the output map included."""
    input_scale: float = 16.0
    """Spread ``s`` of the frequencies."""
    weight_scale: float | None = None
    """Linear maps start at U(±sqrt(weight_scale / h)); None: 6, or 1 in preset ``original``."""
    preset: Literal["paper", "fit-a-nef", "original"] = "fit-a-nef"
    """Whose initialisation to follow."""

    def __post_init__(self) -> None:
        base.check_at_least("hidden_dim", self.hidden_dim, 1)
        base.check_at_least("num_filters", self.num_filters, 1)
        base.check_positive("input_scale", self.input_scale)
        if self.weight_scale is not None:
            base.check_positive("weight_scale", self.weight_scale)

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors: filters, linear maps, output map."""
        tensors: list[TensorSpec] = []
        for i in range(self.num_filters):
            tensors += base.linear_specs(
                f"filters_{i}.linear", (in_dim, self.hidden_dim), (None, f"g{i}")
            )
        tensors += chain_specs(self.num_filters, self.hidden_dim, out_dim)
        return ParamSpec(tuple(tensors), tuple(chain_symmetries(self.num_filters)))

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw the start; the laws are those of ``preset``."""
        return {
            tensor.name: self._law(tensor.name, in_dim)(draws, tensor)
            for tensor in self.spec(in_dim, out_dim).tensors
        }

    def apply(self, params: base.Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``."""
        return base.outputs_of(self._stages(params, coords))

    def trace(self, params: base.Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return the products of all filters so far; see ``Field.trace``."""
        return base.trace_of(self._stages(params, coords))

    def _stages(self, params: base.Params, coords: Tensor) -> base.Stages:
        filters = [
            torch.sin(base.linear(params, f"filters_{i}.linear", coords))
            for i in range(self.num_filters)
        ]
        yield from multiply_filters(params, filters)

    def _law(self, name: str, in_dim: int) -> base.Law:
        is_bias = name.endswith("bias")
        if name.startswith("filters"):
            return base.uniform(math.pi) if is_bias else base.uniform(self._filter_bound(in_dim))
        if is_bias:
            original = self.preset == "original"
            return base.torch_default(self.hidden_dim) if original else base.zeros
        if name.startswith("output"):
            original = self.preset == "original"
            law = base.torch_default if original else base.he_uniform
            return law(self.hidden_dim)
        default = 1.0 if self.preset == "original" else 6.0
        scale = default if self.weight_scale is None else self.weight_scale
        return base.uniform(math.sqrt(scale / self.hidden_dim))

    def _filter_bound(self, in_dim: int) -> float:
        root = math.sqrt(self.num_filters)
        if self.preset == "fit-a-nef":
            return math.sqrt(3 * self.input_scale / (root * in_dim))
        if self.preset == "original":
            return self.input_scale / root / math.sqrt(in_dim)
        return math.sqrt(self.input_scale / self.num_filters)
