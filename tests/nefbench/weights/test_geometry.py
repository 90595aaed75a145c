from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nefbench.fields import (
    MLP,
    FieldConfig,
    FourierNet,
    GaborNet,
    RFFNet,
    ShapeNet,
    Siren,
    evaluate,
)
from nefbench.weights.geometry import transform_coordinates

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=6, omega_0=9.0),
    Siren(hidden_dim=5, num_layers=4, omega_0=9.0, preset="paper"),
    FourierNet(hidden_dim=6),
    GaborNet(hidden_dim=6, num_filters=3),
    RFFNet(hidden_dim=6, num_layers=3, std=0.7),
    RFFNet(hidden_dim=6, num_layers=2, std=0.7, preset="paper", learnable_coefficients=False),
    MLP(hidden_dim=6),
    ShapeNet(hidden_dim=6, omega_0=3.0),
    ShapeNet(hidden_dim=6, num_blocks=1, block="shortcut", activation="swish"),
]
over_fields = pytest.mark.parametrize(
    "field", FIELDS, ids=lambda field: f"{field.kind}-{getattr(field, 'preset', '')}"
)
over_dims = pytest.mark.parametrize(("in_dim", "out_dim"), [(2, 3), (3, 1), (1, 2)])


def conformal(num_rows: int, dim: int, generator: torch.Generator) -> Tensor:
    """Rotations and reflections times numbers from 0.5 to 2.5, ``[B, d, d]``."""
    square = torch.randn(num_rows, dim, dim, dtype=torch.float64, generator=generator)
    orthogonal, _ = torch.linalg.qr(square)
    scale = 0.5 + 2 * torch.rand(num_rows, 1, 1, dtype=torch.float64, generator=generator)
    return orthogonal * scale


@over_dims
@over_fields
def test_the_moved_field_has_the_values_of_the_moved_points(
    field: FieldConfig, in_dim: int, out_dim: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    spec = field.spec(in_dim, out_dim)
    rows = torch.randn(5, spec.num_params, dtype=torch.float64, generator=generator)
    coords = 2 * torch.rand(256, in_dim, dtype=torch.float64, generator=generator) - 1
    shift = torch.randn(5, in_dim, dtype=torch.float64, generator=generator) / 2
    matrices = [conformal(5, in_dim, generator)]
    if field.kind != "gabornet":  # the others take any matrix
        matrices.append(torch.randn(5, in_dim, in_dim, dtype=torch.float64, generator=generator))

    for matrix in matrices:
        moved = transform_coordinates(field, in_dim, out_dim, rows, matrix, shift)

        expected = evaluate(field, spec, rows, coords @ matrix + shift[:, None])
        values = evaluate(field, spec, moved, coords)
        assert float((values - expected).abs().max() / expected.abs().max()) <= 1e-10
        unmoved = evaluate(field, spec, rows, coords)
        assert float((unmoved - expected).abs().max() / expected.abs().max()) > 1e-2


@over_fields
def test_moving_there_and_back_gives_the_weights_again(field: FieldConfig) -> None:
    generator = torch.Generator().manual_seed(1)
    spec = field.spec(2, 1)
    rows = torch.randn(3, spec.num_params, dtype=torch.float64, generator=generator)
    matrix, shift = conformal(3, 2, generator), torch.rand(3, 2, generator=generator).double()
    inverse = matrix.inverse()

    moved = transform_coordinates(field, 2, 1, rows, matrix, shift)
    back = transform_coordinates(field, 2, 1, moved, inverse, -(shift[:, None] @ inverse)[:, 0])

    torch.testing.assert_close(back, rows, rtol=1e-10, atol=1e-10)


def test_a_quarter_turn_of_one_unit_by_hand() -> None:
    # x A with A = [[0, 1], [-1, 0]] is (-y, x): kernel (3, 5) becomes A (3, 5) = (5, -3), and the
    # shift (2, 1) adds 2*3 + 1*5 = 11 to the bias.
    field = Siren(hidden_dim=1, num_layers=2)
    row = torch.tensor([[0.5, 3.0, 5.0, 0.0, 1.0]])
    turn = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])

    moved = transform_coordinates(field, 2, 1, row, turn, torch.tensor([[2.0, 1.0]]))

    assert moved.tolist() == [[11.5, 5.0, -3.0, 0.0, 1.0]]


def test_a_float32_rotation_is_orthogonal_enough_for_round_filters() -> None:
    field = GaborNet(hidden_dim=3, num_filters=2)
    angle = torch.tensor(0.3)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(1, 2, 2)
    rows = torch.ones(1, field.spec(2, 1).num_params)

    moved = transform_coordinates(field, 2, 1, rows, turn, torch.zeros(1, 2))

    assert moved.dtype == torch.float32
    assert moved.isfinite().all()


@pytest.mark.parametrize(
    "matrix",
    [[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.5], [0.0, 1.0]], [[0.0] * 2] * 2, [[math.nan] * 2] * 2],
)
def test_round_filters_cannot_be_stretched(matrix: list[list[float]]) -> None:
    field = GaborNet(hidden_dim=3, num_filters=2)
    rows = torch.ones(1, field.spec(2, 1).num_params)

    with pytest.raises(
        ValueError, match=r"^the filters of a gabornet are round: expected"
    ) as caught:
        transform_coordinates(field, 2, 1, rows, torch.tensor([matrix]), torch.zeros(1, 2))
    assert "\n" not in str(caught.value)


def test_matrices_of_another_size_are_refused() -> None:
    field = MLP(hidden_dim=3)
    rows = torch.ones(4, field.spec(2, 1).num_params)

    with pytest.raises(ValueError, match=r"^expected a matrix \[4, 2, 2\] and a shift \[4, 2\]"):
        transform_coordinates(field, 2, 1, rows, torch.eye(2), torch.zeros(4, 2))
