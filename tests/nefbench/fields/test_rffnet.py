from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nefbench.fields import RFFNet, evaluate
from nefbench.seeding import Draws

CheckLaws = Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]

GOLDEN = [
    [0.111278, 0.127443, -0.144119],
    [0.076278, 0.119819, -0.107154],
    [0.023778, -0.002720, -0.023077],
    [0.055788, 0.106622, -0.083264],
]


def plain_rffnet(row: np.ndarray, point: np.ndarray, field: RFFNet, out_dim: int) -> np.ndarray:
    """The equations for one point, reading the row from left to right."""
    numbers = iter(row)

    def take(*shape: int) -> np.ndarray:
        return np.array([next(numbers) for _ in range(math.prod(shape))]).reshape(shape)

    factor = 1.0 if field.preset == "paper" else 2 * math.pi
    frequencies = take(len(point), field.hidden_dim // 2)
    angles = [
        field.std * sum(factor * x * f for x, f in zip(point, column, strict=True))
        for column in frequencies.T
    ]
    hidden = np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    for _ in range(field.num_layers - 1):
        bias = take(field.hidden_dim)
        hidden = hidden @ take(field.hidden_dim, field.hidden_dim) + bias
        hidden = np.where(hidden > 0, hidden, 0)
    bias = take(out_dim)
    result = hidden @ take(field.hidden_dim, out_dim) + bias
    assert next(numbers, None) is None
    return result


def test_rffnet_gives_the_golden_vectors(
    golden_row: Callable[[int], Tensor], golden_coords: Tensor
) -> None:
    field = RFFNet(hidden_dim=4, num_layers=3, std=0.5)
    spec = field.spec(2, 3)
    assert spec.num_params == 59

    values = field.apply(spec.unflatten(golden_row(59)), golden_coords)

    torch.testing.assert_close(values, torch.tensor(GOLDEN, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "fit-a-nef", "original"])
@pytest.mark.parametrize(("in_dim", "out_dim", "num_layers"), [(2, 3, 3), (3, 1, 4), (1, 2, 2)])
def test_rffnet_equals_a_plain_implementation(
    preset: str, in_dim: int, out_dim: int, num_layers: int
) -> None:
    field = RFFNet(hidden_dim=6, num_layers=num_layers, std=0.7, preset=preset)
    spec = field.spec(in_dim, out_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(7, in_dim, generator=generator, dtype=torch.float64)

    values = evaluate(field, spec, rows, coords)

    for row, some in zip(rows.numpy(), values.numpy(), strict=True):
        expected = [plain_rffnet(row, point, field, out_dim) for point in coords.numpy()]
        np.testing.assert_allclose(some, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("preset", "angle"),
    # Frequency 1, std 0.5, input 0.25: the angle is 0.125, with the factor pi / 4.
    [("paper", 0.125), ("fit-a-nef", math.pi / 4), ("original", math.pi / 4)],
)
def test_only_the_preset_paper_has_no_factor_two_pi(preset: str, angle: float) -> None:
    field = RFFNet(hidden_dim=2, num_layers=2, std=0.5, preset=preset)
    spec = field.spec(1, 2)
    row = torch.zeros(spec.num_params, dtype=torch.float64)
    parts = spec.unflatten(row)
    parts["encoding.coefficients.kernel"].fill_(1.0)
    parts["layers_0.linear.kernel"].copy_(torch.eye(2))
    parts["linear_final.kernel"].copy_(torch.eye(2))

    value = field.apply(parts, torch.tensor([[0.25]]).double())

    expected = torch.tensor([[math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("hidden_dim", "in_dim", "out_dim", "expected"),
    [
        (16, 2, 1, 1121),
        (32, 2, 1, 4289),
        (64, 2, 1, 16769),
        (16, 2, 3, 1155),
        (32, 2, 3, 4355),
        (64, 2, 3, 16899),
        (16, 3, 1, 1129),
        (32, 3, 1, 4305),
        (64, 3, 1, 16801),
    ],
)
def test_rffnet_has_the_published_number_of_parameters(
    hidden_dim: int, in_dim: int, out_dim: int, expected: int
) -> None:
    spec = RFFNet(hidden_dim=hidden_dim, num_layers=5).spec(in_dim, out_dim)

    assert spec.num_params == expected


def test_rffnet_has_the_canonical_names_in_order() -> None:
    spec = RFFNet(hidden_dim=4, num_layers=3).spec(2, 3)

    assert spec.layout == (
        ("encoding.coefficients.kernel", (2, 2)),
        ("layers_0.linear.bias", (4,)),
        ("layers_0.linear.kernel", (4, 4)),
        ("layers_1.linear.bias", (4,)),
        ("layers_1.linear.kernel", (4, 4)),
        ("linear_final.bias", (3,)),
        ("linear_final.kernel", (4, 3)),
    )


def test_sine_and_cosine_of_a_frequency_move_together() -> None:
    spec = RFFNet(hidden_dim=4, num_layers=3).spec(2, 3)

    assert [(tensor.axes, tensor.symmetry_shape) for tensor in spec.tensors] == [
        ((None, "f"), (2, 2)),
        (("h0",), (4,)),
        ((None, "f", "h0"), (2, 2, 4)),
        (("h1",), (4,)),
        (("h0", "h1"), (4, 4)),
        ((None,), (3,)),
        (("h1", None), (4, 3)),
    ]


def test_frozen_frequencies_are_masked_and_nothing_else() -> None:
    mask = RFFNet(hidden_dim=4, num_layers=2, learnable_coefficients=False).spec(2, 1)

    frozen = mask.trainable_mask()

    # d h / 2 = 4 frequencies first, then (16 + 4) + (4 + 1) free weights.
    assert frozen is not None
    assert frozen.tolist() == [False] * 4 + [True] * 25
    assert RFFNet().spec(2, 1).trainable_mask() is None


def test_freezing_the_frequencies_does_not_change_the_start() -> None:
    free = RFFNet(hidden_dim=4).init(2, 1, Draws(0, (0, 1)))
    frozen = RFFNet(hidden_dim=4, learnable_coefficients=False).init(2, 1, Draws(0, (0, 1)))

    assert list(free) == list(frozen)
    assert all(torch.equal(free[name], frozen[name]) for name in free)


# h = 16, c = 3: sqrt(2 / 16), sqrt(6 / 16); Glorot-normal sqrt(2 / (16 + 16)), sqrt(2 / (16 + 3)).
@pytest.mark.parametrize(
    ("preset", "bias", "hidden", "output"),
    [
        ("fit-a-nef", ("normal", 1e-6), ("normal", 0.3535534), ("uniform", 0.6123724)),
        ("paper", ("zero", 0.0), ("uniform", 0.6123724), ("uniform", 0.6123724)),
        ("original", ("normal", 1e-2), ("normal", 0.25), ("normal", 0.3244428)),
    ],
)
def test_rffnet_starts_follow_the_laws_of_the_preset(
    preset: str,
    bias: tuple[str, float],
    hidden: tuple[str, float],
    output: tuple[str, float],
    check_laws: CheckLaws,
) -> None:
    field = RFFNet(hidden_dim=16, num_layers=3, std=0.1, preset=preset)

    params = field.init(2, 3, Draws(0, tuple(range(1000))))

    check_laws(
        params,
        {
            "encoding.coefficients.kernel": ("normal", 1.0),
            "layers_0.linear.bias": bias,
            "layers_0.linear.kernel": hidden,
            "layers_1.linear.bias": bias,
            "layers_1.linear.kernel": hidden,
            "linear_final.bias": bias,
            "linear_final.kernel": output,
        },
    )
