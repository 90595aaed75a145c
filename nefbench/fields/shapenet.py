"""ShapeNet of neural implicit flow, as a field of its own (Pan et al. 2023, JMLR 24(41):1-60)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from nefbench.fields import base
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, Slot, TensorSpec, UnitSymmetry


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeNet:
    """A stream ``u`` of width ``h`` to which every block adds.

    ``u_0 = act(x W + b)`` and a linear output map, between them per block

    * ``shortcut``: ``u <- u + act(u W + b)``,
    * ``residual``: ``t = act(u W_0 + b_0)``, ``u <- (u + act(t W_1 + b_1)) / 2``.

    A sine has its factor on the kernel alone, ``sin(omega_0 u W + b)``, as in the authors' code.
    Without blocks' shortcuts the multiscale ShapeNet is ``Siren(preset="paper")``.

    The start is what the authors' hyper-network generates at latent zero: U(±s) with sines, where
    ``s`` is 1 / d for the first kernel, sqrt(6 / h) / omega_0 in blocks, sqrt(3 / h) for the last
    and 1 / h for biases; otherwise Normal(0, 0.1**2) cut at two standard deviations. A row holds
    all kernels, then all biases: the vector that a hyper-network of theirs puts out.
    """

    kind: Literal["shapenet"] = "shapenet"
    hidden_dim: int = 32
    """Width ``h`` of the stream and of every block."""
    num_blocks: int = 2
    """Blocks between the first and the last linear map."""
    block: Literal["shortcut", "residual"] = "residual"
    """What a block computes."""
    activation: Literal["sine", "tanh", "swish"] = "sine"
    """After every linear map but the last; residual blocks have sines."""
    omega_0: float = 30.0
    """Frequency factor of every sine, radians per unit of its input."""

    def __post_init__(self) -> None:
        base.check_at_least("hidden_dim", self.hidden_dim, 1)
        base.check_at_least("num_blocks", self.num_blocks, 1)
        base.check_positive("omega_0", self.omega_0)
        if self.block == "residual" and self.activation != "sine":
            raise ValueError(
                f"expected activation 'sine' with residual blocks (got {self.activation!r}); "
                f"block 'shortcut' takes any"
            )

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors: kernels, then biases.

        All that reads or writes the stream shares the exchangeable group ``s``; the inner units of
        residual block ``i`` are the group ``t{i}``.
        """
        shapes: dict[str, tuple[tuple[int, int], tuple[str | None, str | None]]] = {}
        width = self.hidden_dim
        shapes["input_linear"] = (in_dim, width), (None, "s")
        for i in range(self.num_blocks):
            if self.block == "shortcut":
                shapes[f"blocks_{i}.linear"] = (width, width), ("s", "s")
            else:
                shapes[f"blocks_{i}.linear_0"] = (width, width), ("s", f"t{i}")
                shapes[f"blocks_{i}.linear_1"] = (width, width), (f"t{i}", "s")
        shapes["output_linear"] = (width, out_dim), ("s", None)
        linears = [base.linear_specs(name, *both) for name, both in shapes.items()]
        biases, kernels = zip(*linears, strict=True)
        return ParamSpec((*kernels, *biases), tuple(self._symmetries()))

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw the start."""
        return {
            tensor.name: self._law(tensor.name, in_dim)(draws, tensor)
            for tensor in self.spec(in_dim, out_dim).tensors
        }

    def apply(self, params: base.Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``."""
        return base.outputs_of(self._stages(params, coords))

    def trace(self, params: base.Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return its units, the stream after every block."""
        return base.trace_of(self._stages(params, coords))

    def _stages(self, params: base.Params, coords: Tensor) -> base.Stages:
        stream = self._layer(params, "input_linear", coords)
        yield "s", stream
        for i in range(self.num_blocks):
            if self.block == "shortcut":
                stream = stream + self._layer(params, f"blocks_{i}.linear", stream)
            else:
                inner = self._layer(params, f"blocks_{i}.linear_0", stream)
                yield f"t{i}", inner
                stream = (stream + self._layer(params, f"blocks_{i}.linear_1", inner)) / 2
            yield "s", stream
        yield base.OUTPUTS, base.linear(params, "output_linear", stream)

    def _layer(self, params: base.Params, prefix: str, hidden: Tensor) -> Tensor:
        kernel, bias = params[f"{prefix}.kernel"], params[f"{prefix}.bias"]
        if self.activation == "sine":
            return torch.sin(hidden @ (kernel * self.omega_0) + bias)
        activation = torch.tanh if self.activation == "tanh" else F.silu
        return activation(hidden @ kernel + bias)

    def _symmetries(self) -> Iterator[UnitSymmetry]:
        """Declare signs and phases; swish has none.

        A unit of the stream is a sum, so it changes sign only if all its terms do: by the sign of
        what enters them, or by half a period in each. Whole periods are free for every bias; those
        of the first follow from the rest.
        """
        if self.activation == "swish":
            return
        blocks = range(self.num_blocks)
        inner = "linear" if self.block == "shortcut" else "linear_0"
        outer = "linear" if self.block == "shortcut" else "linear_1"
        terms = ["input_linear", *(f"blocks_{i}.{outer}" for i in blocks)]
        readers = [*(f"blocks_{i}.{inner}" for i in blocks), "output_linear"]
        leaving = tuple(Slot(f"{name}.kernel", 0) for name in readers)
        yield UnitSymmetry("s", "sign", (*_entering(*terms), *leaving))
        if self.activation == "tanh":
            return
        half_periods = tuple((f"{name}.bias", math.pi) for name in terms)
        yield UnitSymmetry("s", "phase", leaving, half_periods)
        for name in terms[1:]:
            period = ((f"{name}.bias", 2 * math.pi),)
            yield UnitSymmetry("s", "phase", (), period, name=f"phase of {name}")
        if self.block == "residual":
            for i in blocks:
                entering = _entering(f"blocks_{i}.linear_0")
                outgoing = Slot(f"blocks_{i}.linear_1.kernel", 0)
                shift = (f"blocks_{i}.linear_0.bias", math.pi)
                yield UnitSymmetry(f"t{i}", "sign", (*entering, outgoing))
                yield UnitSymmetry(f"t{i}", "phase", (outgoing,), (shift,))

    def _law(self, name: str, in_dim: int) -> base.Law:
        if self.activation != "sine":
            return _truncated_normal
        if name.endswith("bias"):
            return base.uniform(1 / self.hidden_dim)
        if name.startswith("input"):
            return base.uniform(1 / in_dim)
        if name.startswith("output"):
            return base.uniform(math.sqrt(3 / self.hidden_dim))
        return base.uniform(math.sqrt(6 / self.hidden_dim) / self.omega_0)


def _entering(*linears: str) -> tuple[Slot, ...]:
    """Return the slots of what enters the units after linear maps."""
    return tuple(
        slot for name in linears for slot in (Slot(f"{name}.bias", 0), Slot(f"{name}.kernel", 1))
    )


def _truncated_normal(draws: Draws, tensor: TensorSpec) -> Tensor:
    """Draw from Normal(0, 0.1**2) between -0.2 and 0.2, by inverting its distribution function."""
    unit = draws.uniform(tensor.name, tensor.shape, 1.0)
    return 0.1 * math.sqrt(2) * torch.erfinv(unit * math.erf(math.sqrt(2)))
