"""What a field is: a frozen configuration with three pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, Slot, TensorSpec, UnitSymmetry

Params = Mapping[str, Tensor]

Stages = Iterator[tuple[str, Tensor]]
"""What a field computes, in order: ``(group id, values of its units)``, the outputs last. A group
comes once for every value that its units take."""

OUTPUTS = "outputs"
"""Name of the last stage."""


class Field(Protocol):
    """A neural field architecture.

    A field of a parametrised signal takes its parameters and its position as one coordinate
    vector, parameters first; how many of each is a matter of its own configuration.
    """

    @property
    def kind(self) -> str:
        """Name of the architecture in configurations and figures."""

    @property
    def hidden_dim(self) -> int:
        """Width ``h`` of the hidden layers."""

    def spec(self, in_dim: int, out_dim: int) -> ParamSpec:
        """Declare the tensors for ``d`` coordinates and ``c`` output channels."""

    def init(self, in_dim: int, out_dim: int, draws: Draws) -> dict[str, Tensor]:
        """Draw initial parameters, ``name -> [N, *shape]``."""

    def apply(self, params: Params, coords: Tensor) -> Tensor:
        """Evaluate one field: coords ``[..., d]`` to values ``[..., c]``.

        ``params`` are unbatched; use ``torch.func.vmap`` for many fields.
        """

    def trace(self, params: Params, coords: Tensor) -> dict[str, Tensor]:
        """Evaluate one field and return the values of all units, post activation.

        Returns:
            ``group id -> [..., n]`` for every group of the spec, ``[..., n, m]`` where a unit takes
            ``m`` values, and under ``outputs`` what ``apply`` returns.
        """


def outputs_of(stages: Stages) -> Tensor:
    """Return the values of the last stage; those before it are not kept."""
    for _, values in stages:  # noqa: B007 - the last ones stay
        pass
    return values


def trace_of(stages: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Keep the values of all stages; see ``Field.trace``."""
    traced: dict[str, list[Tensor]] = {}
    for name, values in stages:
        traced.setdefault(name, []).append(values)
    return {
        name: values[0] if len(values) == 1 else torch.stack(values, dim=-1)
        for name, values in traced.items()
    }


def linear(params: Params, prefix: str, hidden: Tensor) -> Tensor:
    """Return ``hidden W + b`` with the kernel and bias stored under ``prefix``."""
    return hidden @ params[f"{prefix}.kernel"] + params[f"{prefix}.bias"]


def linear_specs(
    prefix: str, shape: tuple[int, int], groups: tuple[str | None, str | None]
) -> tuple[TensorSpec, TensorSpec]:
    """Declare bias and kernel of a linear map, bias first as in the canonical order."""
    return (
        TensorSpec(f"{prefix}.bias", (shape[1],), (groups[1],)),
        TensorSpec(f"{prefix}.kernel", shape, groups),
    )


def relu_scales(layers: Sequence[str], groups: Sequence[str]) -> tuple[UnitSymmetry, ...]:
    """Declare the positive scale of ReLU units.

    Args:
        layers: Prefixes of consecutive linear maps, the output map last.
        groups: Group of the units after every map but the last.
    """
    return tuple(
        UnitSymmetry(
            group,
            "scale",
            (Slot(f"{layer}.bias", 0), Slot(f"{layer}.kernel", -1), Slot(f"{after}.kernel", 0, -1)),
        )
        for group, (layer, after) in zip(groups, itertools.pairwise(layers), strict=True)
    )


Law = Callable[[Draws, TensorSpec], Tensor]
"""How one tensor is drawn: ``(draws, tensor) -> [N, *shape]``."""


def zeros(draws: Draws, tensor: TensorSpec) -> Tensor:
    """Start at zero."""
    return draws.zeros(tensor.shape)


def uniform(bound: float) -> Law:
    """Draw from U(-bound, bound)."""
    return lambda draws, tensor: draws.uniform(tensor.name, tensor.shape, bound)


def normal(std: float) -> Law:
    """Draw from Normal(0, std**2)."""
    return lambda draws, tensor: draws.normal(tensor.name, tensor.shape, std)


def he_uniform(fan_in: int) -> Law:
    """Draw from U(±sqrt(6 / fan_in)) (He et al. 2015)."""
    return uniform(math.sqrt(6 / fan_in))


def torch_default(fan_in: int) -> Law:
    """Draw from U(±1 / sqrt(fan_in)), what ``torch.nn.Linear`` does for kernel and bias."""
    return uniform(1 / math.sqrt(fan_in))


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise ``ValueError`` unless ``value >= least``."""
    if not value >= least:
        raise ValueError(f"expected {name} >= {least} (got {value})")


def check_positive(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is finite and above zero."""
    if not 0 < value < math.inf:
        raise ValueError(f"expected {name} > 0 and finite (got {value})")
