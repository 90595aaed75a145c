from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nefbench.fields import FourierNet, evaluate
from nefbench.seeding import Draws

CheckLaws = Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]

GOLDEN = [
    [-0.421818, -0.029818, 0.429502],
    [-0.581116, 0.031677, 0.572953],
    [-0.577615, 0.021231, 0.572144],
    [-0.714717, 0.132191, 0.680652],
]


def plain_fouriernet(
    row: np.ndarray, point: np.ndarray, width: int, num_filters: int, out_dim: int
) -> np.ndarray:
    """The equations for one point, unit by unit, reading the row from left to right."""
    numbers = iter(row)

    def take(rows: int, columns: int) -> tuple[list[float], list[list[float]]]:
        bias = [next(numbers) for _ in range(columns)]
        return bias, [[next(numbers) for _ in range(columns)] for _ in range(rows)]

    def affine(values: list[float], bias: list[float], kernel: list[list[float]]) -> list[float]:
        return [
            b + sum(v * line[j] for v, line in zip(values, kernel, strict=True))
            for j, b in enumerate(bias)
        ]

    filters = [take(len(point), width) for _ in range(num_filters)]
    linears = [take(width, width) for _ in range(num_filters - 1)]
    output = take(width, out_dim)
    assert next(numbers, None) is None
    responses = [[math.sin(a) for a in affine(list(point), *one)] for one in filters]
    hidden = responses[0]
    for response, one in zip(responses[1:], linears, strict=True):
        hidden = [g * z for g, z in zip(response, affine(hidden, *one), strict=True)]
    return np.array(affine(hidden, *output))


def test_fouriernet_gives_the_golden_vectors(
    golden_row: Callable[[int], Tensor], golden_coords: Tensor
) -> None:
    field = FourierNet(hidden_dim=4, num_filters=3)
    spec = field.spec(2, 3)
    assert spec.num_params == 91

    values = field.apply(spec.unflatten(golden_row(91)), golden_coords)

    torch.testing.assert_close(values, torch.tensor(GOLDEN, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "fit-a-nef", "original"])
@pytest.mark.parametrize(("in_dim", "out_dim", "num_filters"), [(2, 3, 3), (3, 1, 4), (1, 2, 1)])
def test_fouriernet_equals_a_plain_implementation(
    preset: str, in_dim: int, out_dim: int, num_filters: int
) -> None:
    field = FourierNet(hidden_dim=5, num_filters=num_filters, preset=preset)
    spec = field.spec(in_dim, out_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(7, in_dim, generator=generator, dtype=torch.float64)

    values = evaluate(field, spec, rows, coords)

    for row, some in zip(rows.numpy(), values.numpy(), strict=True):
        expected = [plain_fouriernet(row, p, 5, num_filters, out_dim) for p in coords.numpy()]
        np.testing.assert_allclose(some, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("hidden_dim", "in_dim", "out_dim", "expected"),
    [
        (16, 2, 1, 1025),
        (32, 2, 1, 3585),
        (64, 2, 1, 13313),
        (16, 2, 3, 1059),
        (32, 2, 3, 3651),
        (64, 2, 3, 13443),
        (16, 3, 1, 1089),
        (32, 3, 1, 3713),
        (64, 3, 1, 13569),
    ],
)
def test_fouriernet_has_the_published_number_of_parameters(
    hidden_dim: int, in_dim: int, out_dim: int, expected: int
) -> None:
    spec = FourierNet(hidden_dim=hidden_dim, num_filters=4).spec(in_dim, out_dim)

    assert spec.num_params == expected


def test_fouriernet_has_the_canonical_names_in_order() -> None:
    spec = FourierNet(hidden_dim=4, num_filters=3).spec(2, 1)

    assert spec.layout == (
        ("filters_0.linear.bias", (4,)),
        ("filters_0.linear.kernel", (2, 4)),
        ("filters_1.linear.bias", (4,)),
        ("filters_1.linear.kernel", (2, 4)),
        ("filters_2.linear.bias", (4,)),
        ("filters_2.linear.kernel", (2, 4)),
        ("linears_0.bias", (4,)),
        ("linears_0.kernel", (4, 4)),
        ("linears_1.bias", (4,)),
        ("linears_1.kernel", (4, 4)),
        ("output_linear.bias", (1,)),
        ("output_linear.kernel", (4, 1)),
    )


def test_filter_and_partner_map_share_a_group() -> None:
    spec = FourierNet(hidden_dim=4, num_filters=3).spec(2, 1)

    assert {tensor.name: tensor.axes for tensor in spec.tensors} == {
        "filters_0.linear.bias": ("g0",),
        "filters_0.linear.kernel": (None, "g0"),
        "filters_1.linear.bias": ("g1",),
        "filters_1.linear.kernel": (None, "g1"),
        "filters_2.linear.bias": ("g2",),
        "filters_2.linear.kernel": (None, "g2"),
        "linears_0.bias": ("g1",),
        "linears_0.kernel": ("g0", "g1"),
        "linears_1.bias": ("g2",),
        "linears_1.kernel": ("g1", "g2"),
        "output_linear.bias": (None,),
        "output_linear.kernel": ("g2", None),
    }


# s = 16, F = 4, d = 2: sqrt(3 * 16 / (2 * 2)) = 3.46, 16 / 2 / sqrt(2) = 5.66, sqrt(16 / 4) = 2.
# s = 16, F = 4, d = 3: sqrt(3 * 16 / (2 * 3)) = 2.83, 16 / 2 / sqrt(3) = 4.62, 2 again.
# h = 16: fit-a-nef and paper start both kinds of map at sqrt(6 / 16), original at 1 / 4.
@pytest.mark.parametrize(
    ("preset", "in_dim", "filter_bound"),
    [
        ("fit-a-nef", 2, 3.4641016),
        ("original", 2, 5.6568542),
        ("paper", 2, 2.0),
        ("fit-a-nef", 3, 2.8284271),
        ("original", 3, 4.6188022),
        ("paper", 3, 2.0),
    ],
)
def test_fouriernet_starts_follow_the_laws_of_the_preset(
    preset: str, in_dim: int, filter_bound: float, check_laws: CheckLaws
) -> None:
    original = preset == "original"
    field = FourierNet(hidden_dim=16, num_filters=4, input_scale=16.0, preset=preset)
    bias = ("uniform", 1 / 4) if original else ("zero", 0.0)
    kernel = ("uniform", 1 / 4 if original else math.sqrt(6 / 16))
    laws = {}
    for i in range(4):
        laws[f"filters_{i}.linear.bias"] = ("uniform", math.pi)
        laws[f"filters_{i}.linear.kernel"] = ("uniform", filter_bound)
    for name in ("linears_0", "linears_1", "linears_2", "output_linear"):
        laws[f"{name}.bias"] = bias
        laws[f"{name}.kernel"] = kernel

    check_laws(field.init(in_dim, 3, Draws(0, tuple(range(500)))), laws)


@pytest.mark.parametrize("preset", ["paper", "fit-a-nef", "original"])
def test_the_weight_scale_moves_the_linear_maps_and_not_the_output_map(
    preset: str, check_laws: CheckLaws
) -> None:
    field = FourierNet(hidden_dim=16, num_filters=2, weight_scale=2.0, preset=preset)

    params = field.init(2, 3, Draws(0, tuple(range(500))))

    output = 1 / 4 if preset == "original" else math.sqrt(6 / 16)
    names = ("linears_0.kernel", "output_linear.kernel")
    check_laws(
        {name: params[name] for name in names},
        {names[0]: ("uniform", math.sqrt(2 / 16)), names[1]: ("uniform", output)},
    )


def test_scaling_a_unit_after_the_first_leaves_the_function() -> None:
    field = FourierNet(hidden_dim=4, num_filters=3)
    spec = field.spec(2, 1)
    generator = torch.Generator().manual_seed(1)
    row = torch.randn(spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(9, 2, generator=generator, dtype=torch.float64)
    scaled = row.clone()
    parts = spec.unflatten(scaled)
    parts["linears_0.bias"][2].mul_(-3.0)
    parts["linears_0.kernel"][:, 2].mul_(-3.0)
    parts["linears_1.kernel"][2].div_(-3.0)

    before, after = evaluate(field, spec, torch.stack([row, scaled]), coords)

    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
