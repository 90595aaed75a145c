"""Move the coordinates of fields by rewriting their weights: translate, rotate, scale, flip.

Unlike a symmetry, this changes the function. The laws are those of the first layer of each family
(for a filter network: of every filter); nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren

_Parts = dict[str, Tensor]


def transform_coordinates(
    field: FieldConfig, in_dim: int, out_dim: int, rows: Tensor, matrix: Tensor, shift: Tensor
) -> Tensor:
    """Return the weights of ``f'(x) = f(x A + t)``, coordinates as row vectors.

    Frequencies of an RFFNet change even where they were frozen in the fit.

    Args:
        field: The architecture.
        in_dim: Coordinates ``d``.
        out_dim: Channels ``c``.
        rows: Weights as the field computes with them, never normalised ones, ``[B, P]``.
        matrix: ``A`` of every row, ``[B, d, d]``. A GaborNet's filters are round, so there it must
            be an orthogonal matrix times a number.
        shift: ``t`` of every row, ``[B, d]``.

    Raises:
        ValueError: If the shapes do not agree, or no weights of this field compute the result.
    """
    spec = field.spec(in_dim, out_dim)
    expected = ((len(rows), in_dim, in_dim), (len(rows), in_dim))
    if (matrix.shape, shift.shape) != expected:
        raise ValueError(
            f"expected a matrix {list(expected[0])} and a shift {list(expected[1])} "
            f"(got {list(matrix.shape)} and {list(shift.shape)})"
        )
    parts = spec.unflatten(rows)
    _LAWS[field.kind](field, parts, matrix.to(rows), shift.to(rows))
    return spec.flatten(parts)


def _move_linear(
    parts: _Parts, prefix: str, matrix: Tensor, shift: Tensor, factor: float = 1.0
) -> None:
    """Move the input of ``factor x W + b``."""
    kernel = parts[f"{prefix}.kernel"]
    parts[f"{prefix}.bias"] = parts[f"{prefix}.bias"] + factor * _times(shift, kernel)
    parts[f"{prefix}.kernel"] = matrix @ kernel


def _times(shift: Tensor, kernel: Tensor) -> Tensor:
    """Multiply a row vector ``[B, d]`` and a kernel ``[B, d, n]``."""
    return (shift[:, None] @ kernel)[:, 0]


def _move_siren(field: Siren, parts: _Parts, matrix: Tensor, shift: Tensor) -> None:
    # Only in preset "paper" the bias lies outside the factor, which the shift then has to bring.
    factor = field.omega_0 if field.preset == "paper" else 1.0
    _move_linear(parts, "kernel_net_0.linear", matrix, shift, factor)


def _move_mlp(field: MLP, parts: _Parts, matrix: Tensor, shift: Tensor) -> None:  # noqa: ARG001
    _move_linear(parts, "Dense_0", matrix, shift)


def _move_shapenet(field: ShapeNet, parts: _Parts, matrix: Tensor, shift: Tensor) -> None:
    factor = field.omega_0 if field.activation == "sine" else 1.0
    _move_linear(parts, "input_linear", matrix, shift, factor)


def _move_fouriernet(
    field: FourierNet | GaborNet, parts: _Parts, matrix: Tensor, shift: Tensor
) -> None:
    for i in range(field.num_filters):
        _move_linear(parts, f"filters_{i}.linear", matrix, shift)


def _move_gabornet(field: GaborNet, parts: _Parts, matrix: Tensor, shift: Tensor) -> None:
    """With ``A A^T = s^2 I``: ``|x A + t - mu| = s |x - (mu - t) A^T / s^2|``."""
    _check_conformal(matrix)
    squared_scale = matrix.square().sum(dim=(1, 2)) / matrix.shape[1]
    _move_fouriernet(field, parts, matrix, shift)
    for i in range(field.num_filters):
        gamma, mu = f"filters_{i}.gamma", f"filters_{i}.mu"
        parts[gamma] = parts[gamma] * squared_scale[:, None]
        centred = parts[mu] - shift[:, :, None]
        parts[mu] = matrix @ centred / squared_scale[:, None, None]


def _check_conformal(matrix: Tensor) -> None:
    """Raise ``ValueError`` unless every matrix is orthogonal up to a number, up to rounding."""
    gram = matrix @ matrix.mT
    identity = torch.eye(matrix.shape[1]).to(matrix)
    squared_scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    error = (gram - squared_scale * identity).abs().amax(dim=(1, 2))
    tolerance = math.sqrt(torch.finfo(matrix.dtype).eps) * squared_scale.flatten()
    wrong = ~((error <= tolerance) & (tolerance > 0))
    if bool(wrong.any()):
        raise ValueError(
            f"the filters of a gabornet are round: expected matrices that are orthogonal up to a "
            f"number (got {matrix[wrong][0].tolist()})"
        )


def _move_rffnet(field: RFFNet, parts: _Parts, matrix: Tensor, shift: Tensor) -> None:
    """A shift turns every pair (sine, cosine); the next kernel takes the turn over."""
    coefficients = parts["encoding.coefficients.kernel"]
    factor = field.std if field.preset == "paper" else 2 * math.pi * field.std
    angle = factor * _times(shift, coefficients)[:, :, None]
    sine_rows, cosine_rows = parts["layers_0.linear.kernel"].chunk(2, dim=1)
    parts["encoding.coefficients.kernel"] = matrix @ coefficients
    parts["layers_0.linear.kernel"] = torch.cat(
        [
            torch.cos(angle) * sine_rows - torch.sin(angle) * cosine_rows,
            torch.sin(angle) * sine_rows + torch.cos(angle) * cosine_rows,
        ],
        dim=1,
    )


_LAWS: dict[str, Callable[[Any, _Parts, Tensor, Tensor], None]] = {
    "siren": _move_siren,
    "fouriernet": _move_fouriernet,
    "gabornet": _move_gabornet,
    "rffnet": _move_rffnet,
    "mlp": _move_mlp,
    "shapenet": _move_shapenet,
}
