from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nefbench.fields import Siren, evaluate
from nefbench.seeding import Draws

CheckLaws = Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]

GOLDEN = [
    [-0.526678, 1.044063, 0.257635],
    [-1.317637, 0.195339, 1.267301],
    [-1.247185, 0.067006, 1.229918],
    [0.329929, 0.514885, -0.462609],
]


def plain_siren(row: np.ndarray, coords: np.ndarray, field: Siren, out_dim: int) -> np.ndarray:
    """The equations, point by point and unit by unit, reading the row from left to right."""
    result = []
    for point in coords:
        values, start = list(point), 0
        for layer in range(field.num_layers):
            last = layer == field.num_layers - 1
            width = out_dim if last else field.hidden_dim
            bias = row[start : start + width]
            start += width
            kernel = row[start : start + len(values) * width].reshape(len(values), width)
            start += len(values) * width
            sums = [sum(v * kernel[i, j] for i, v in enumerate(values)) for j in range(width)]
            if last:
                values = [s + b for s, b in zip(sums, bias, strict=True)]
            elif field.preset == "paper":
                values = [math.sin(field.omega_0 * s + b) for s, b in zip(sums, bias, strict=True)]
            else:
                values = [
                    math.sin(field.omega_0 * (s + b)) for s, b in zip(sums, bias, strict=True)
                ]
        assert start == len(row)
        result.append(values)
    return np.array(result)


def test_siren_gives_the_golden_vectors(
    golden_row: Callable[[int], Tensor], golden_coords: Tensor
) -> None:
    field = Siren(hidden_dim=4, num_layers=3, omega_0=3.0)
    spec = field.spec(2, 3)
    assert spec.num_params == 47

    values = field.apply(spec.unflatten(golden_row(47)), golden_coords)

    torch.testing.assert_close(values, torch.tensor(GOLDEN, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "fit-a-nef", "original"])
@pytest.mark.parametrize(("in_dim", "out_dim", "num_layers"), [(2, 3, 3), (3, 1, 5), (1, 2, 2)])
def test_siren_equals_a_plain_implementation(
    preset: str, in_dim: int, out_dim: int, num_layers: int
) -> None:
    field = Siren(hidden_dim=5, num_layers=num_layers, omega_0=2.5, preset=preset)
    spec = field.spec(in_dim, out_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(7, in_dim, generator=generator, dtype=torch.float64)

    values = evaluate(field, spec, rows, coords)

    for row, some in zip(rows, values, strict=True):
        expected = plain_siren(row.numpy(), coords.numpy(), field, out_dim)
        np.testing.assert_allclose(some.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("preset", "argument"),
    [
        # Kernel 2, bias 0.5, omega_0 3, input 0.25: 3 (0.5 + 0.5) inside, 3 * 0.5 + 0.5 outside.
        ("fit-a-nef", 3.0),
        ("original", 3.0),
        ("paper", 2.0),
    ],
)
def test_only_the_preset_paper_leaves_the_bias_outside_the_factor(
    preset: str, argument: float
) -> None:
    field = Siren(hidden_dim=1, num_layers=2, omega_0=3.0, preset=preset)
    # Row: bias 0.5, kernel 2, output bias 0, output kernel 1.
    row = torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)

    value = field.apply(field.spec(1, 1).unflatten(row), torch.tensor([[0.25]]).double())

    assert value.item() == pytest.approx(math.sin(argument), abs=1e-15)


@pytest.mark.parametrize(
    ("hidden_dim", "in_dim", "out_dim", "expected"),
    [
        (8, 2, 1, 105),
        (32, 2, 1, 1185),
        (64, 2, 1, 4417),
        (8, 2, 3, 123),
        (32, 2, 3, 1251),
        (64, 2, 3, 4547),
        (8, 3, 1, 113),
        (32, 3, 1, 1217),
        (64, 3, 1, 4481),
    ],
)
def test_siren_has_the_published_number_of_parameters(
    hidden_dim: int, in_dim: int, out_dim: int, expected: int
) -> None:
    spec = Siren(hidden_dim=hidden_dim, num_layers=3).spec(in_dim, out_dim)

    assert spec.num_params == expected


def test_siren_has_the_canonical_names_in_order() -> None:
    spec = Siren(hidden_dim=4, num_layers=3).spec(2, 3)

    assert spec.layout == (
        ("kernel_net_0.linear.bias", (4,)),
        ("kernel_net_0.linear.kernel", (2, 4)),
        ("kernel_net_1.linear.bias", (4,)),
        ("kernel_net_1.linear.kernel", (4, 4)),
        ("output_linear.bias", (3,)),
        ("output_linear.kernel", (4, 3)),
    )


def test_siren_hidden_units_are_exchangeable_and_nothing_else() -> None:
    spec = Siren(hidden_dim=4, num_layers=3).spec(2, 3)

    assert [tensor.axes for tensor in spec.tensors] == [
        ("h0",),
        (None, "h0"),
        ("h1",),
        ("h0", "h1"),
        (None,),
        ("h1", None),
    ]
    assert spec.trainable_mask() is None


# d = 3, h = 16, omega_0 = 9. Hidden: sqrt(6 / 16) / 9.
HIDDEN = math.sqrt(6 / 16) / 9


@pytest.mark.parametrize(
    ("preset", "biases", "first", "output"),
    [
        ("fit-a-nef", [("zero", 0.0)] * 3, ("uniform", 1 / 3), ("normal", 1 / 4)),
        ("paper", [("zero", 0.0)] * 3, ("uniform", 1 / math.sqrt(3)), ("uniform", HIDDEN)),
        (
            "original",
            [("uniform", 1 / math.sqrt(3)), ("uniform", 1 / 4), ("uniform", 1 / 4)],
            ("uniform", 1 / 3),
            ("uniform", HIDDEN),
        ),
    ],
)
def test_siren_starts_follow_the_laws_of_the_preset(
    preset: str,
    biases: list[tuple[str, float]],
    first: tuple[str, float],
    output: tuple[str, float],
    check_laws: CheckLaws,
) -> None:
    field = Siren(hidden_dim=16, num_layers=3, omega_0=9.0, preset=preset)

    params = field.init(3, 3, Draws(0, tuple(range(1000))))

    check_laws(
        params,
        {
            "kernel_net_0.linear.bias": biases[0],
            "kernel_net_0.linear.kernel": first,
            "kernel_net_1.linear.bias": biases[1],
            "kernel_net_1.linear.kernel": ("uniform", HIDDEN),
            "output_linear.bias": biases[2],
            "output_linear.kernel": output,
        },
    )


def test_flipping_the_sign_of_a_unit_leaves_the_function() -> None:
    field = Siren(hidden_dim=4, num_layers=3, omega_0=3.0)
    spec = field.spec(2, 1)
    generator = torch.Generator().manual_seed(1)
    row = torch.randn(spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(9, 2, generator=generator, dtype=torch.float64)
    flipped = row.clone()
    parts = spec.unflatten(flipped)
    parts["kernel_net_0.linear.bias"][1].neg_()
    parts["kernel_net_0.linear.kernel"][:, 1].neg_()
    parts["kernel_net_1.linear.kernel"][1].neg_()

    before, after = evaluate(field, spec, torch.stack([row, flipped]), coords)

    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
