"""Names, shapes, order, exchangeable axes and unit symmetries of the tensors in one flat row.

Everything that treats weights as data reads this table: storage, normalisation, symmetries,
graphs. A field states it once (``Field.spec``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One parameter tensor.

    Attributes:
        name: Canonical name.
        shape: Stored shape; a kernel is ``[in, out]`` and applied as ``y = x W + b``.
        axes: Group id of every axis of ``view``, or None for an axis that is not exchangeable.
            Axes with one id are permuted together and the function stays the same.
        view: Shape in which ``axes`` holds, a reshape of ``shape``; ``shape`` itself if None.
        trainable: Whether the optimizer may change it.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    view: tuple[int, ...] | None = None
    trainable: bool = True

    def __post_init__(self) -> None:
        assert len(self.axes) == len(self.symmetry_shape), f"{self.name}: one group id per axis"
        assert math.prod(self.symmetry_shape) == self.size, f"{self.name}: view has another size"

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    @property
    def symmetry_shape(self) -> tuple[int, ...]:
        """Shape in which ``axes`` holds."""
        return self.shape if self.view is None else self.view


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the factor of a unit symmetry enters: one axis of one tensor.

    Attributes:
        tensor: Name of the tensor.
        axis: Axis of its view that carries the group.
        power: The entries of unit ``k`` are multiplied by the factor of ``k`` to this power.
        channel: Only this index of the view's first axis is multiplied; None: all of it.
    """

    tensor: str
    axis: int
    power: int = 1
    channel: int | None = None


SymmetryKind = Literal["sign", "filter-sign", "scale", "phase"]
"""What the parameter of a unit symmetry is: a sign for ``sign`` and ``filter-sign`` (a second,
independent sign of the units of a multiplicative filter network), a positive number for ``scale``,
an integer number of steps for ``phase``."""


@dataclass(frozen=True, slots=True)
class UnitSymmetry:
    """A change of single units that leaves the function as it is.

    Attributes:
        group: The units: a group id of the axes.
        kind: What the parameter of a unit is. The factor of ``phase`` is -1 to the number of steps.
        slots: What the factor multiplies.
        shifts: ``(bias tensor, amount)``: a phase step adds ``amount`` to the unit's entry.
        name: Tells symmetries of one group apart; the kind, unless a group has several of a kind.
    """

    group: str
    kind: SymmetryKind
    slots: tuple[Slot, ...]
    shifts: tuple[tuple[str, float], ...] = ()
    name: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Group and name, by which its parameters are found."""
        return self.group, self.name or self.kind


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """The tensors of one field in storage order, and what may be done to them.

    Attributes:
        tensors: In the order in which their values lie in a row, each flattened row-major.
        symmetries: What leaves the function as it is, beside permutations of the groups.
    """

    tensors: tuple[TensorSpec, ...]
    symmetries: tuple[UnitSymmetry, ...] = ()

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        axes = {tensor.name: tensor.axes for tensor in self.tensors}
        for tensor in self.tensors:
            for group, size in zip(tensor.axes, tensor.symmetry_shape, strict=True):
                if group is not None and sizes.setdefault(group, size) != size:
                    raise AssertionError(f"{tensor.name}: group {group} has two sizes")
        keys = [symmetry.key for symmetry in self.symmetries]
        assert len(set(keys)) == len(keys), "symmetries of one group and kind need names"
        for symmetry in self.symmetries:
            places = [(slot.tensor, slot.axis) for slot in symmetry.slots]
            for name, axis in [*places, *((name, 0) for name, _ in symmetry.shifts)]:
                assert axes[name][axis] == symmetry.group, f"{name} axis {axis} is not the group's"

    @property
    def num_params(self) -> int:
        """Length ``P`` of a row."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def layout(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """``(name, shape)`` per tensor: what is stored with the weights."""
        return tuple((tensor.name, tensor.shape) for tensor in self.tensors)

    @property
    def group_sizes(self) -> dict[str, int]:
        """Size of every group of exchangeable axes, in order of first appearance."""
        return {
            group: size
            for tensor in self.tensors
            for group, size in zip(tensor.axes, tensor.symmetry_shape, strict=True)
            if group is not None
        }

    def slices(self) -> dict[str, slice]:
        """Place of every tensor in a row."""
        places: dict[str, slice] = {}
        start = 0
        for tensor in self.tensors:
            places[tensor.name] = slice(start, start + tensor.size)
            start += tensor.size
        return places

    def unflatten(self, rows: Tensor) -> dict[str, Tensor]:
        """Split rows ``[..., P]`` into named tensors ``[..., *shape]``; views, never copies.

        Raises:
            ValueError: If the last axis is not ``P`` long.
        """
        if rows.shape[-1] != self.num_params:
            raise ValueError(
                f"expected rows of {self.num_params} weights (got shape {tuple(rows.shape)}); "
                f"these rows were written with another field configuration"
            )
        blocks = torch.split(rows, [tensor.size for tensor in self.tensors], dim=-1)
        return {
            tensor.name: block.unflatten(-1, tensor.shape)
            for tensor, block in zip(self.tensors, blocks, strict=True)
        }

    def flatten(self, params: Mapping[str, Tensor]) -> Tensor:
        """Join named tensors ``[..., *shape]`` into rows ``[..., P]``."""
        return torch.cat(
            [params[t.name].flatten(-len(t.shape)) for t in self.tensors],
            dim=-1,
        )

    def trainable_mask(self) -> Tensor | None:
        """Boolean ``[P]``, False where the optimizer must not write; None if all is free."""
        if all(tensor.trainable for tensor in self.tensors):
            return None
        return torch.cat([torch.full((t.size,), t.trainable) for t in self.tensors])

    def permute(self, rows: Tensor, permutations: Mapping[str, Tensor]) -> Tensor:
        """Reorder exchangeable axes of rows ``[..., P]``.

        Args:
            rows: Flat weights.
            permutations: Index tensor per group id; a group left out keeps its order.
        """
        parts = self.unflatten(rows)
        for tensor in self.tensors:
            lead = parts[tensor.name].shape[: -len(tensor.shape)]
            value = parts[tensor.name].reshape(*lead, *tensor.symmetry_shape)
            for axis, group in enumerate(tensor.axes):
                if group is not None and group in permutations:
                    value = value.index_select(axis - len(tensor.axes), permutations[group])
            parts[tensor.name] = value.reshape(*lead, *tensor.shape)
        return self.flatten(parts)
