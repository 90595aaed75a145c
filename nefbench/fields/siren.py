"""SIREN: a multilayer perceptron with sine activations (Sitzmann et al. 2020, arXiv 2006.09661)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nefbench.fields import base
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, Slot, TensorSpec, UnitSymmetry


@dataclass(frozen=True, kw_only=True, slots=True)
class Siren:
    """A sinusoidal field: ``h <- sin(omega_0 (h W + b))``, then a linear output map.

    Preset ``paper`` follows the supplement of Papa et al. 2024 (arXiv 2312.10531), which leaves the
    bias outside the factor: ``sin(omega_0 h W + b)``. Their bound for the first kernel,
    ``kappa / sqrt(d)``, comes without a value of kappa, and their biases without a law: here
    kappa = 1 and zero, which are our choices.
    """

    kind: Literal["siren"] = "siren"
    hidden_dim: int = 32
    """Width ``h`` of every hidden layer."""
    num_layers: int = 3
    """Linear maps ``L``, the output map included."""
    omega_0: float = 30.0
    """Frequency factor of every sine, radians per unit of its input."""
    preset: Literal["paper", "fit-a-nef", "original"] = "fit-a-nef"
    """Whose initialisation and sine argument to follow."""

    def __post_init__(self) -> None:
        base.check_at_least("hidden_dim", self.hidden_dim, 1)
        base.check_at_least("num_layers", self.num_layers, 2)
        base.check_positive("omega_0", self.omega_0)

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors; hidden layer ``i`` has the exchangeable group ``h{i}``.

        Negating what enters and leaves a unit keeps the function, and so does half a period more
        phase with negated outgoing weights.
        """
        tensors: list[TensorSpec] = []
        fan_in, group_in = in_dim, None
        for i in range(self.num_layers - 1):
            group = f"h{i}"
            tensors += base.linear_specs(
                f"kernel_net_{i}.linear", (fan_in, self.hidden_dim), (group_in, group)
            )
            fan_in, group_in = self.hidden_dim, group
        tensors += base.linear_specs("output_linear", (fan_in, out_dim), (group_in, None))
        return ParamSpec(tuple(tensors), tuple(self._symmetries()))

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw the start; the laws are those of ``preset``."""
        params = {}
        for tensor in self.spec(in_dim, out_dim).tensors:
            layer = tensor.name.split(".")[0]
            fan_in = in_dim if layer == "kernel_net_0" else self.hidden_dim
            law = (
                self._bias_law(fan_in)
                if tensor.name.endswith("bias")
                else self._kernel_law(layer, fan_in)
            )
            params[tensor.name] = law(draws, tensor)
        return params

    def apply(self, params: base.Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``."""
        return base.outputs_of(self._stages(params, coords))

    def trace(self, params: base.Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return the sines of all units; see ``Field.trace``."""
        return base.trace_of(self._stages(params, coords))

    def _stages(self, params: base.Params, coords: Tensor) -> base.Stages:
        # The factor goes into the kernel: scaling h x h numbers is cheaper than scaling Q x h.
        bias_factor = 1.0 if self.preset == "paper" else self.omega_0
        hidden = coords
        for i in range(self.num_layers - 1):
            kernel = params[f"kernel_net_{i}.linear.kernel"] * self.omega_0
            bias = params[f"kernel_net_{i}.linear.bias"] * bias_factor
            hidden = torch.sin(hidden @ kernel + bias)
            yield f"h{i}", hidden
        yield base.OUTPUTS, base.linear(params, "output_linear", hidden)

    def _symmetries(self) -> Iterator[UnitSymmetry]:
        half_period = math.pi / (1.0 if self.preset == "paper" else self.omega_0)
        layers = [f"kernel_net_{i}.linear" for i in range(self.num_layers - 1)]
        for i, (layer, after) in enumerate(itertools.pairwise([*layers, "output_linear"])):
            outgoing = Slot(f"{after}.kernel", 0)
            incoming = (Slot(f"{layer}.bias", 0), Slot(f"{layer}.kernel", 1))
            yield UnitSymmetry(f"h{i}", "sign", (*incoming, outgoing))
            yield UnitSymmetry(f"h{i}", "phase", (outgoing,), ((f"{layer}.bias", half_period),))

    def _bias_law(self, fan_in: int) -> base.Law:
        return base.torch_default(fan_in) if self.preset == "original" else base.zeros

    def _kernel_law(self, layer: str, fan_in: int) -> base.Law:
        if layer == "kernel_net_0":
            return base.uniform(1 / math.sqrt(fan_in) if self.preset == "paper" else 1 / fan_in)
        if layer == "output_linear" and self.preset == "fit-a-nef":
            return base.normal(1 / math.sqrt(fan_in))
        return base.uniform(math.sqrt(6 / fan_in) / self.omega_0)
