"""One representative of all the weights that compute the same field.

Groups are treated from the inputs to the outputs, so what a choice in one group depends on has its
final form by then. The result is made of elements of the symmetry group alone: it is a row like any
other, in the field's own convention, of the same function.

A canonical form has branch cuts: where two units have nearly the same norm, or a sum is nearly
zero, a small change of the weights changes the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.fields import FieldConfig
from nefbench.spec import ParamSpec, Slot, UnitSymmetry
from nefbench.weights.symmetries import GroupElement, act

_MAX_SWEEPS = 1000


def canonicalise(field: FieldConfig, in_dim: int, out_dim: int, rows: Tensor) -> Tensor:
    """Replace rows by the representatives of their orbits.

    1. Scales (ReLU units, linear factors of filter networks): what enters a unit and what leaves it
       have equal norms.
    2. Signs: the sum of the kernel that enters a unit is not negative.
    3. Phases: biases of sines lie within half a period around zero, ``[-pi/2, pi/2)`` in radians,
       and what leaves a unit changes sign with every half period taken off.
    4. Order: by the norm of the first kernel that enters the units.

    Args:
        field: The architecture.
        in_dim: Coordinates ``d``.
        out_dim: Channels ``c``.
        rows: Weights as the field computes with them, never normalised ones, ``[B, P]``.

    Returns:
        Rows ``[B, P]`` of the same functions; computed in float64, in the dtype of ``rows``.
    """
    spec = field.spec(in_dim, out_dim)
    result, _ = balance_scales(spec, rows.double())
    for group in spec.group_sizes:
        own = [symmetry for symmetry in spec.symmetries if symmetry.group == group]
        # A filter's sign goes first: it also negates what the other sign is chosen by.
        for kind in ("filter-sign", "sign", "phase"):
            for symmetry in own:
                if symmetry.kind == kind:
                    choice = {symmetry.key: _choice(spec, result, symmetry)}
                    result = act(spec, result, GroupElement({}, choice))
        order = _norms(spec, result, group).argsort(dim=1, stable=True)
        result = act(spec, result, GroupElement({group: order}, {}))
    return result.to(rows.dtype)


def balance_scales(spec: ParamSpec, rows: Tensor) -> tuple[Tensor, dict[tuple[str, str], Tensor]]:
    """Give what enters and what leaves every unit with a free scale the same norm.

    The sum of squares of a row, as a function of the logarithms of the scales, is convex, and this
    is its minimum; it is found by minimising over one group after the other. A unit with nothing
    entering or nothing leaving keeps its scale.

    Returns:
        Rows ``[B, P]`` of the same functions, and per ``UnitSymmetry.key`` the scales ``[B, n]``
        that were applied.
    """
    scaled = [symmetry for symmetry in spec.symmetries if symmetry.kind == "scale"]
    squares = spec.unflatten(rows.square())
    terms = {symmetry.key: _terms(spec, squares, symmetry, scaled) for symmetry in scaled}
    squared_scales = {
        symmetry.key: rows.new_ones(len(rows), spec.group_sizes[symmetry.group])
        for symmetry in scaled
    }
    for _ in range(_MAX_SWEEPS):
        is_balanced = True
        for key, scale in squared_scales.items():
            # Entering is a multiple of the squared scale, leaving of one over it.
            entering, leaving = (
                torch.stack([t.sum(squared_scales) for t in terms[key] if t.power == power]).sum(0)
                for power in (1, -1)
            )
            balanced = torch.sqrt(leaving / entering)
            balanced = torch.where((balanced > 0) & balanced.isfinite(), balanced, 1.0)
            change = (balanced / scale).log().abs()
            is_balanced &= bool((change <= 8 * torch.finfo(rows.dtype).eps).all())
            squared_scales[key] = balanced
        if is_balanced:
            break
    scales = {key: scale.sqrt() for key, scale in squared_scales.items()}
    return act(spec, rows, GroupElement({}, scales)), scales


@dataclass(frozen=True)
class _Term:
    """Part of the squared norm of what enters or leaves units, without the units' own scale.

    Attributes:
        power: 1 if it enters, -1 if it leaves.
        squares: ``[B, n, m]``.
        other: Key of the scale on the last axis; None where ``m`` is 1.
        other_power: Power of that scale.
    """

    power: int
    squares: Tensor
    other: tuple[str, str] | None
    other_power: int

    def sum(self, squared_scales: Mapping[tuple[str, str], Tensor]) -> Tensor:
        """Sum over the last axis, ``[B, n]``."""
        if self.other is None:
            return self.squares[:, :, 0]
        weights = squared_scales[self.other] ** self.other_power
        return (self.squares @ weights[:, :, None])[:, :, 0]


def _terms(
    spec: ParamSpec,
    squares: Mapping[str, Tensor],
    symmetry: UnitSymmetry,
    scaled: list[UnitSymmetry],
) -> list[_Term]:
    """Split the norms at the units of one scale by what else scales them."""
    tensors = {tensor.name: tensor for tensor in spec.tensors}
    terms = []
    for slot in symmetry.slots:
        tensor = tensors[slot.tensor]
        num_axes = len(tensor.axes)
        view = squares[tensor.name].reshape(-1, *tensor.symmetry_shape)
        axis, kept, other, other_power = slot.axis % num_axes, [slot.axis % num_axes], None, 1
        for candidate in scaled:
            for place in candidate.slots:
                if place.tensor == tensor.name and place.axis % num_axes != axis:
                    other, other_power = candidate.key, place.power
                    kept.append(place.axis % num_axes)
        rest = [a + 1 for a in range(num_axes) if a not in kept]
        view = view.sum(rest) if rest else view
        if len(kept) == 1:
            view = view[:, :, None]
        elif kept[0] > kept[1]:
            view = view.mT
        terms.append(_Term(slot.power, view, other, other_power))
    return terms


def units(spec: ParamSpec, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
    """View the entries of one slot as one vector per unit, ``[B, n, m]``."""
    tensor = next(tensor for tensor in spec.tensors if tensor.name == slot.tensor)
    values = parts[slot.tensor]
    view = values.reshape(len(values), *tensor.symmetry_shape)
    if slot.channel is not None:
        view = view[:, slot.channel : slot.channel + 1]
    axis = slot.axis % len(tensor.axes)
    return view.movedim(axis + 1, 1).flatten(2) if view.ndim > 2 else view[:, :, None]


def _choice(spec: ParamSpec, rows: Tensor, symmetry: UnitSymmetry) -> Tensor:
    """Choose signs or phase steps, ``[B, n]``."""
    parts = spec.unflatten(rows)
    if symmetry.kind == "phase":
        bias, amount = symmetry.shifts[0]
        return -torch.floor(parts[bias] / amount + 0.5)
    kernel = next(slot for slot in symmetry.slots if slot.tensor.endswith("kernel"))
    return torch.where(units(spec, parts, kernel).sum(2) < 0, -1.0, 1.0).to(rows)


def _norms(spec: ParamSpec, rows: Tensor, group: str) -> Tensor:
    """Return the norm of what enters every unit through the first kernel, ``[B, n]``."""
    entering = next(t for t in spec.tensors if len(t.axes) > 1 and t.axes[-1] == group)
    norms: Tensor = units(spec, spec.unflatten(rows), Slot(entering.name, -1)).norm(dim=2)
    return norms
