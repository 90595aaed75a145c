"""Weights of sine networks without their phases: the same function, no periods, no branch cuts.

A phase enters the function as ``sin(z + b) w = cos(z) (w sin b) + sin(z) (w cos b)``. Storing the
two products in place of ``w`` and ``b`` leaves nothing that half a period could change, and is
smooth in the weights. Of the symmetries only permutations and signs are left.

Split SIREN, with the frequency factor in the weights: ``z_1 = x W_1``, ``z_{l+1} = cos(z_l) A_{l+1}
+ sin(z_l) B_{l+1}``. In a multiplicative filter network every filter is split: its phase goes into
the linear map that reads it (first filter) or that it multiplies (all others).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.errors import ConfigError
from nefbench.fields import FieldConfig, FourierNet, GaborNet, Siren
from nefbench.fields.base import Params
from nefbench.spec import ParamSpec, Slot, TensorSpec, UnitSymmetry

Rows = dict[str, Tensor]
"""Tensors ``[B, *shape]`` by name."""


@dataclass(frozen=True)
class PhaseSplit:
    """The split weights of one architecture.

    Attributes:
        spec: Tensors of a split row, their axis groups and signs. Names end in what they multiply:
            ``.cosine`` (of ``A``) or ``.sine`` (of ``B``).
        source: Tensors of the rows that are split.
    """

    spec: ParamSpec
    source: ParamSpec
    _split: Callable[[Rows], Rows]
    _apply: Callable[[Params, Tensor], Tensor]

    def split(self, rows: Tensor) -> Tensor:
        """Split rows ``[B, P]`` as the field computes with them, never normalised ones."""
        return self.spec.flatten(self._split(self.source.unflatten(rows)))

    def apply(self, params: Params, coords: Tensor) -> Tensor:
        """Evaluate one field from split tensors: coords ``[..., d]`` to values ``[..., c]``."""
        return self._apply(params, coords)


def phase_split(field: FieldConfig, in_dim: int, out_dim: int) -> PhaseSplit:
    """Return how the weights of an architecture are split.

    Raises:
        ConfigError: If its units are no sines of one phase each.
    """
    if isinstance(field, Siren):
        return _split_siren(field, in_dim, out_dim)
    if isinstance(field, FourierNet | GaborNet):
        return _split_filters(field, in_dim, out_dim)
    raise ConfigError(
        f"phases can be split off fields of kind siren, fouriernet and gabornet (got {field.kind})"
    )


def _pair(
    name: str, shape: tuple[int, int], axes: tuple[str | None, str | None]
) -> list[TensorSpec]:
    return [TensorSpec(f"{name}.{part}", shape, axes) for part in ("cosine", "sine")]


def _split_siren(field: Siren, in_dim: int, out_dim: int) -> PhaseSplit:
    width, num_hidden = field.hidden_dim, field.num_layers - 1
    omega = field.omega_0
    bias_factor = 1.0 if field.preset == "paper" else omega
    hidden = [f"kernel_net_{i}" for i in range(num_hidden)]
    after = [*hidden[1:], "output_linear"]
    tensors = [TensorSpec(hidden[0], (in_dim, width), (None, "h0"))]
    for i, name in enumerate(after):
        is_last = i == num_hidden - 1
        shape = (width, out_dim if is_last else width)
        tensors += _pair(name, shape, (f"h{i}", None if is_last else f"h{i + 1}"))
    tensors.append(TensorSpec("output_linear.bias", (out_dim,), (None,)))

    def symmetries() -> Iterator[UnitSymmetry]:
        for i, name in enumerate(after):
            entering = [Slot(hidden[0], 1)]
            if i > 0:
                entering = [Slot(f"{hidden[i]}.{part}", 1) for part in ("cosine", "sine")]
            yield UnitSymmetry(f"h{i}", "sign", (*entering, Slot(f"{name}.sine", 0)))

    def split(parts: Rows) -> Rows:
        result = {hidden[0]: parts[f"{hidden[0]}.linear.kernel"] * omega}
        for before, name in itertools.pairwise([*hidden, "output_linear"]):
            phase = (parts[f"{before}.linear.bias"] * bias_factor).unsqueeze(-1)
            is_last = name == "output_linear"
            kernel = parts[f"{name}.kernel"] if is_last else parts[f"{name}.linear.kernel"] * omega
            result[f"{name}.cosine"] = phase.sin() * kernel
            result[f"{name}.sine"] = phase.cos() * kernel
        result["output_linear.bias"] = parts["output_linear.bias"]
        return result

    def apply(params: Params, coords: Tensor) -> Tensor:
        values = coords @ params[hidden[0]]
        for name in after:
            values = values.cos() @ params[f"{name}.cosine"] + values.sin() @ params[f"{name}.sine"]
        return values + params["output_linear.bias"]

    spec = ParamSpec(tuple(tensors), tuple(symmetries()))
    return PhaseSplit(spec, field.spec(in_dim, out_dim), split, apply)


def _split_filters(field: FourierNet | GaborNet, in_dim: int, out_dim: int) -> PhaseSplit:
    """Split a multiplicative filter network.

    The columns ``[W; b]`` of a linear map times the sine and the cosine of the phase that its
    result meets are divided by their joint norm, which moves on to what leaves the unit: no scale
    is left. Two signs are: of what enters and leaves a unit (half a period does the same), and of
    a filter's frequencies together with the part that its sine multiplies.
    """
    width, last = field.hidden_dim, field.num_filters - 1
    has_envelope = isinstance(field, GaborNet)
    source = field.spec(in_dim, out_dim)
    after = [*(f"linears_{i}" for i in range(last)), "output_linear"]
    tensors: list[TensorSpec] = []
    symmetries: list[UnitSymmetry] = []
    for i in range(last + 1):
        group = f"g{i}"
        if has_envelope:
            tensors.append(TensorSpec(f"filters_{i}.gamma", (width,), (group,)))
            tensors.append(TensorSpec(f"filters_{i}.mu", (in_dim, width), (None, group)))
        tensors.append(TensorSpec(f"filters_{i}", (in_dim, width), (None, group)))
    for i, name in enumerate(after):
        is_last = i == last
        axes = (f"g{i}", None if is_last else f"g{i + 1}")
        shape = (width, out_dim if is_last else width)
        for kernel in _kernels(i, name, is_last):
            tensors.append(TensorSpec(kernel, shape, axes))
        for bias in _biases(name, is_last):
            tensors.append(TensorSpec(bias, shape[1:], axes[1:]))
    for i, name in enumerate(after):
        leaving = _kernels(i, name, i == last)
        sine = Slot(f"filters_{i}", 1)
        if i == 0:
            odd = tuple(Slot(kernel, 0) for kernel in leaving if ".of_sine" in kernel)
            symmetries.append(UnitSymmetry("g0", "sign", (sine, *odd)))
            continue
        entering = [Slot(kernel, 1) for kernel in _kernels(i - 1, after[i - 1], False)]
        entering += [Slot(bias, 0) for bias in _biases(after[i - 1], False)]
        of_sine = tuple(slot for slot in entering if slot.tensor.endswith(".sine"))
        out = tuple(Slot(kernel, 0) for kernel in leaving)
        symmetries.append(UnitSymmetry(f"g{i}", "sign", (*entering, *out)))
        symmetries.append(UnitSymmetry(f"g{i}", "filter-sign", (sine, *of_sine)))

    def split(parts: Rows) -> Rows:
        result = {}
        for i in range(last + 1):
            if has_envelope:
                for leaf in ("gamma", "mu"):
                    result[f"filters_{i}.{leaf}"] = parts[f"filters_{i}.{leaf}"]
            result[f"filters_{i}"] = parts[f"filters_{i}.linear.kernel"]
        norm = None
        for i, name in enumerate(after):
            kernel, bias = parts[f"{name}.kernel"], parts[f"{name}.bias"]
            if norm is not None:
                kernel = norm.unsqueeze(-1) * kernel
            if i == last:
                factors = {"": torch.ones_like(bias)}
            else:
                squares = kernel.square().sum(-2) + bias.square()
                norm = torch.where(squares > 0, squares, 1.0).sqrt()
                phase = parts[f"filters_{i + 1}.linear.bias"]
                factors = {".cosine": phase.sin() / norm, ".sine": phase.cos() / norm}
            first = parts["filters_0.linear.bias"].unsqueeze(-1)
            rows = {"": kernel}
            if i == 0:
                rows = {".of_cosine": first.sin() * kernel, ".of_sine": first.cos() * kernel}
            for end, factor in factors.items():
                result[f"{name}.bias{end}"] = bias * factor
                for start, values in rows.items():
                    result[f"{name}{start}{end}"] = values * factor.unsqueeze(-2)
        return result

    def apply(params: Params, coords: Tensor) -> Tensor:
        def waves(i: int) -> tuple[Tensor, Tensor]:
            angle = coords @ params[f"filters_{i}"]
            if not has_envelope:
                return angle.cos(), angle.sin()
            offset = coords.unsqueeze(-1) - params[f"filters_{i}.mu"]
            distance = offset.square().sum(-2)
            envelope = torch.exp(-0.5 * params[f"filters_{i}.gamma"] * distance)
            return envelope * angle.cos(), envelope * angle.sin()

        def linear(i: int, end: str) -> Tensor:
            name = after[i]
            if i > 0:
                return hidden @ params[f"{name}{end}"] + params[f"{name}.bias{end}"]
            cosine, sine = waves(0)
            values = cosine @ params[f"{name}.of_cosine{end}"]
            return values + sine @ params[f"{name}.of_sine{end}"] + params[f"{name}.bias{end}"]

        hidden = coords
        for i in range(last):
            cosine, sine = waves(i + 1)
            hidden = cosine * linear(i, ".cosine") + sine * linear(i, ".sine")
        return linear(last, "")

    return PhaseSplit(ParamSpec(tuple(tensors), tuple(symmetries)), source, split, apply)


def _kernels(place: int, name: str, is_last: bool) -> list[str]:
    """Name the parts of a linear map: by the wave that it reads, and the one that it meets."""
    starts = [".of_cosine", ".of_sine"] if place == 0 else [""]
    ends = [""] if is_last else [".cosine", ".sine"]
    return [f"{name}{start}{end}" for start in starts for end in ends]


def _biases(name: str, is_last: bool) -> list[str]:
    return [f"{name}.bias{end}" for end in ([""] if is_last else [".cosine", ".sine"])]
