from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nefbench.fields import MLP, evaluate
from nefbench.seeding import Draws

CheckLaws = Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]

GOLDEN = [
    [-0.223871, 0.553519, 0.081235],
    [-0.397118, 0.517016, 0.263889],
    [-0.386315, 0.524977, 0.251034],
    [-0.192789, 0.681114, 0.017274],
]


def plain_mlp(row: np.ndarray, point: np.ndarray, field: MLP, out_dim: int) -> np.ndarray:
    """The equations for one point, reading the row from left to right."""
    values, start = point, 0
    for layer in range(field.num_layers + 1):
        last = layer == field.num_layers
        width = out_dim if last else field.hidden_dim
        bias, start = row[start : start + width], start + width
        kernel = row[start : start + len(values) * width].reshape(len(values), width)
        start += kernel.size
        sums = np.array([np.dot(values, kernel[:, j]) + bias[j] for j in range(width)])
        values = sums if last else np.where(sums > 0, sums, 0)
    assert start == len(row)
    return values


def test_mlp_gives_the_golden_vectors(
    golden_row: Callable[[int], Tensor], golden_coords: Tensor
) -> None:
    field = MLP(hidden_dim=4, num_layers=2)
    spec = field.spec(2, 3)
    assert spec.num_params == 47

    values = field.apply(spec.unflatten(golden_row(47)), golden_coords)

    torch.testing.assert_close(values, torch.tensor(GOLDEN, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("in_dim", "out_dim", "num_layers"), [(2, 3, 3), (3, 1, 4), (1, 2, 1)])
def test_mlp_equals_a_plain_implementation(in_dim: int, out_dim: int, num_layers: int) -> None:
    field = MLP(hidden_dim=5, num_layers=num_layers)
    spec = field.spec(in_dim, out_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(7, in_dim, generator=generator, dtype=torch.float64)

    values = evaluate(field, spec, rows, coords)

    for row, some in zip(rows.numpy(), values.numpy(), strict=True):
        expected = [plain_mlp(row, point, field, out_dim) for point in coords.numpy()]
        np.testing.assert_allclose(some, expected, rtol=0, atol=1e-12)


def test_mlp_counts_hidden_layers_without_the_output_map() -> None:
    spec = MLP(hidden_dim=4, num_layers=2).spec(2, 3)

    assert spec.layout == (
        ("Dense_0.bias", (4,)),
        ("Dense_0.kernel", (2, 4)),
        ("Dense_1.bias", (4,)),
        ("Dense_1.kernel", (4, 4)),
        ("Dense_2.bias", (3,)),
        ("Dense_2.kernel", (4, 3)),
    )
    assert [tensor.axes for tensor in spec.tensors] == [
        ("h0",),
        (None, "h0"),
        ("h1",),
        ("h0", "h1"),
        (None,),
        ("h1", None),
    ]


def test_mlp_starts_glorot_normal_with_zero_biases(check_laws: CheckLaws) -> None:
    params = MLP(hidden_dim=16, num_layers=2).init(2, 3, Draws(0, tuple(range(1000))))

    check_laws(
        params,
        {
            "Dense_0.bias": ("zero", 0.0),
            "Dense_0.kernel": ("normal", math.sqrt(2 / 18)),
            "Dense_1.bias": ("zero", 0.0),
            "Dense_1.kernel": ("normal", math.sqrt(2 / 32)),
            "Dense_2.bias": ("zero", 0.0),
            "Dense_2.kernel": ("normal", math.sqrt(2 / 19)),
        },
    )
