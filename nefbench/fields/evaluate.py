"""Evaluate fields from flat rows: many at once, and their derivatives to any order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from nefbench.fields.base import Field, Params
from nefbench.spec import ParamSpec


def evaluate(field: Field, spec: ParamSpec, rows: Tensor, coords: Tensor) -> Tensor:
    """Evaluate fields ``[N, P]`` at shared ``coords`` ``[Q, d]``; returns ``[N, Q, c]``."""
    result: Tensor = vmap(lambda row: field.apply(spec.unflatten(row), coords))(rows)
    return result


def render(
    field: Field, spec: ParamSpec, rows: Tensor, coords: Tensor, *, max_values: int = 2**22
) -> Tensor:
    """Evaluate without gradients, in pieces of at most ``max_values`` hidden values each."""
    with torch.no_grad():
        coords_per_piece = max(1, min(len(coords), max_values // field.hidden_dim))
        fields_per_piece = max(1, max_values // (field.hidden_dim * coords_per_piece))
        return torch.cat(
            [
                torch.cat(
                    [
                        evaluate(field, spec, some_rows, some_coords)
                        for some_coords in coords.split(coords_per_piece)
                    ],
                    dim=1,
                )
                for some_rows in rows.split(fields_per_piece)
            ]
        )


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
