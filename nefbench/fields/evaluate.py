"""Evaluate fields from flat rows: many at once, and their derivatives to any order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from nefbench.fields.base import Field, Params
from nefbench.spec import ParamSpec


def evaluate(field: Field, spec: ParamSpec, rows: Tensor, coords: Tensor) -> Tensor:
    """Evaluate fields ``[N, P]`` at ``coords``; returns ``[N, Q, c]``.

    The points are ``[Q, d]`` for all fields, or ``[N, Q, d]`` where each has its own.
    """
    in_dims = (0, 0 if coords.ndim == 3 else None)
    values = vmap(lambda row, points: field.apply(spec.unflatten(row), points), in_dims=in_dims)
    result: Tensor = values(rows, coords)
    return result


def render(
    field: Field, spec: ParamSpec, rows: Tensor, coords: Tensor, *, max_values: int = 2**22
) -> Tensor:
    """Evaluate without gradients, in pieces of at most ``max_values`` hidden values each.

    Points as in ``evaluate``.
    """
    with torch.no_grad():
        coords_per_piece = max(1, min(coords.shape[-2], max_values // field.hidden_dim))
        fields_per_piece = max(1, max_values // (field.hidden_dim * coords_per_piece))
        own = coords.ndim == 3
        pieces = []
        for start in range(0, max(len(rows), 1), fields_per_piece):
            fields = slice(start, start + fields_per_piece)
            points = coords[fields] if own else coords
            values = [
                evaluate(field, spec, rows[fields], some)
                for some in points.split(coords_per_piece, dim=-2)
            ]
            pieces.append(torch.cat(values, dim=1))
        return torch.cat(pieces)


def derivative(field: Field, params: Params, coords: Tensor, order: int) -> Tensor:
    """Differentiate one field with respect to its coordinates, exactly.

    Args:
        field: The architecture.
        params: One field's parameters, unbatched.
        coords: Where, ``[Q, d]``.
        order: 0 for the values, 1 for the Jacobian, 2 for the Hessian, and so on.

    Returns:
        Tensor ``[Q, c, d, …, d]`` with ``order`` trailing axes of length ``d``. The derivative is
        the one of the program: a ReLU network has zero second derivatives almost everywhere.
    """
    function: Callable[[Tensor], Tensor] = lambda point: field.apply(params, point)  # noqa: E731
    for _ in range(order):
        function = jacfwd(function)
    result: Tensor = vmap(function)(coords)
    return result
