"""The symmetry group of a field: random elements, and what they do to rows of weights.

Permutations come from the axis groups, everything else from the unit symmetries of the field's
``ParamSpec``. Elements are drawn and applied for many rows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, Slot, SymmetryKind, TensorSpec

PERMUTATION = "permutation"
"""Name of the permutations beside the kinds of unit symmetries."""


@dataclass(frozen=True)
class GroupElement:
    """One element of the symmetry group for each of ``B`` rows.

    Attributes:
        permutations: Per group id ``[B, n]``: unit ``k`` of the result is unit ``index[b, k]``.
        parameters: ``[B, n]`` per ``UnitSymmetry.key``, the group id and the kind (or the name
            where a group has several of a kind): signs, positive factors, or whole numbers of
            phase steps.
    """

    permutations: Mapping[str, Tensor]
    parameters: Mapping[tuple[str, str], Tensor]


def symmetry_kinds(spec: ParamSpec) -> tuple[str, ...]:
    """Name the kinds of symmetries of a field, ``permutation`` first."""
    has_groups = (PERMUTATION,) if spec.group_sizes else ()
    return (*has_groups, *dict.fromkeys(symmetry.kind for symmetry in spec.symmetries))


def random_element(
    spec: ParamSpec,
    draws: Draws,
    kinds: Iterable[str] | None = None,
    *,
    max_phase: int = 1,
    max_scale: float = 10.0,
) -> GroupElement:
    """Draw an element for every index of ``draws``.

    Args:
        spec: Whose symmetries.
        draws: One row per index; equal indices give equal elements.
        kinds: Which symmetries, of ``symmetry_kinds``; None: all. Other kinds stay at the identity.
        max_phase: Phase steps lie between plus and minus this number; one step is half a period.
        max_scale: Scales lie between one over this number and this number, log-uniformly.
    """
    chosen = set(symmetry_kinds(spec) if kinds is None else kinds)
    permutations = {}
    if PERMUTATION in chosen:
        permutations = {
            group: draws.uniform(f"permutation/{group}", (size,), 1.0).argsort(dim=-1, stable=True)
            for group, size in spec.group_sizes.items()
        }
    parameters: dict[tuple[str, str], Tensor] = {}
    for symmetry in spec.symmetries:
        if symmetry.kind in chosen:
            group, name = symmetry.key
            unit = draws.uniform(f"{name}/{group}", (spec.group_sizes[group],), 1.0)
            parameters[symmetry.key] = _parameter(symmetry.kind, unit, max_phase, max_scale)
    return GroupElement(permutations, parameters)


def _parameter(kind: SymmetryKind, unit: Tensor, max_phase: int, max_scale: float) -> Tensor:
    """Turn numbers from [-1, 1) into parameters of a symmetry."""
    if kind == "phase":
        return ((unit + 1) / 2 * (2 * max_phase + 1)).floor() - max_phase
    if kind == "scale":
        # Powers of several numbers at once may differ from those of one in the last bit, so that is
        # taken off.
        return (max_scale ** unit.double()).to(unit)
    return torch.where(unit < 0, -1.0, 1.0).to(unit)


def act(spec: ParamSpec, rows: Tensor, element: GroupElement) -> Tensor:
    """Apply a group element to rows ``[B, P]``: unit symmetries first, then permutations.

    The field computed by every row stays the same, up to rounding.
    """
    tensors = {tensor.name: tensor for tensor in spec.tensors}
    parts = spec.unflatten(rows)
    for symmetry in spec.symmetries:
        parameter = element.parameters.get(symmetry.key)
        if parameter is None:
            continue
        parameter = parameter.to(rows)
        factor = parameter
        if symmetry.kind == "phase":
            factor = 1 - 2 * parameter.remainder(2)
            for name, amount in symmetry.shifts:
                parts[name] = parts[name] + parameter * amount
        for slot in symmetry.slots:
            parts[slot.tensor] = _multiply(
                tensors[slot.tensor], parts[slot.tensor], slot, factor**slot.power
            )
    return spec.flatten(
        {
            tensor.name: _permute(tensor, parts[tensor.name], element.permutations)
            for tensor in spec.tensors
        }
    )


def _multiply(tensor: TensorSpec, values: Tensor, slot: Slot, factor: Tensor) -> Tensor:
    """Multiply ``[B, *shape]`` by a factor ``[B, n]`` along the axis of a slot."""
    view = values.reshape(len(values), *tensor.symmetry_shape)
    axis = slot.axis % len(tensor.axes)
    shape = [len(values)] + [1] * len(tensor.axes)
    shape[axis + 1] = factor.shape[1]
    scaled = factor.reshape(shape)
    if slot.channel is None:
        view = view * scaled
    else:
        is_channel = torch.zeros(tensor.symmetry_shape[0], dtype=torch.bool, device=values.device)
        is_channel[slot.channel] = True
        mask = is_channel.reshape(-1, *[1] * (len(tensor.axes) - 1))
        view = torch.where(mask, view * scaled, view)
    return view.reshape(values.shape)


def _permute(tensor: TensorSpec, values: Tensor, permutations: Mapping[str, Tensor]) -> Tensor:
    view = values.reshape(len(values), *tensor.symmetry_shape)
    for axis, group in enumerate(tensor.axes):
        if group is not None and group in permutations:
            shape = [len(values)] + [1] * len(tensor.axes)
            shape[axis + 1] = view.shape[axis + 1]
            index = permutations[group].to(values.device).reshape(shape).expand(view.shape)
            view = view.gather(axis + 1, index)
    return view.reshape(values.shape)
