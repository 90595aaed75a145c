from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nefbench.fields import ShapeNet, Siren, evaluate
from nefbench.seeding import Draws

CheckLaws = Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]

SHORTCUT = [
    ShapeNet(hidden_dim=4, num_blocks=3, block="shortcut", omega_0=1.5),
    ShapeNet(hidden_dim=4, num_blocks=2, block="shortcut", activation="tanh"),
    ShapeNet(hidden_dim=4, num_blocks=1, block="shortcut", activation="swish"),
]
RESIDUAL = [
    ShapeNet(hidden_dim=4, num_blocks=2, omega_0=1.5),
    ShapeNet(hidden_dim=3, num_blocks=1, omega_0=3.0),
]


def plain_shapenet(row: np.ndarray, point: np.ndarray, field: ShapeNet, out_dim: int) -> np.ndarray:
    """The equations for one point, reading all kernels and then all biases from left to right."""
    activations = {
        "sine": np.sin,
        "tanh": np.tanh,
        "swish": lambda z: z / (1 + np.exp(-z)),
    }
    act = activations[field.activation]
    factor = field.omega_0 if field.activation == "sine" else 1.0
    width, inner = field.hidden_dim, field.num_blocks * (1 if field.block == "shortcut" else 2)
    shapes = [(len(point), width), *[(width, width)] * inner, (width, out_dim)]
    kernels, biases, start = [], [], 0
    for rows, columns in shapes:
        kernels.append(row[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    for _, columns in shapes:
        biases.append(row[start : start + columns])
        start += columns
    assert start == len(row)

    stream = act(factor * (point @ kernels[0]) + biases[0])
    steps = iter(zip(kernels[1:-1], biases[1:-1], strict=True))
    for kernel, bias in steps:
        first = act(factor * (stream @ kernel) + bias)
        if field.block == "shortcut":
            stream = first + stream
        else:
            kernel, bias = next(steps)
            stream = 0.5 * (stream + act(factor * (first @ kernel) + bias))
    return stream @ kernels[-1] + biases[-1]


@pytest.mark.parametrize("field", [*SHORTCUT, *RESIDUAL], ids=str)
@pytest.mark.parametrize(("in_dim", "out_dim"), [(2, 3), (3, 1), (1, 2)])
def test_shapenet_equals_a_plain_implementation(field: ShapeNet, in_dim: int, out_dim: int) -> None:
    spec = field.spec(in_dim, out_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(7, in_dim, generator=generator, dtype=torch.float64)

    values = evaluate(field, spec, rows, coords)

    for row, some in zip(rows, values, strict=True):
        expected = [plain_shapenet(row.numpy(), point, field, out_dim) for point in coords.numpy()]
        np.testing.assert_allclose(some.numpy(), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("hidden_dim", "block", "expected"),
    [
        # Counts of the authors' code at one coordinate, one channel and two blocks.
        (30, "shortcut", 1951),
        (32, "shortcut", 2209),
        # 2 L n^2 + (d + c + 1 + 2 L) n + c with n = 30, L = 2
        (30, "residual", 2 * 2 * 900 + 7 * 30 + 1),
    ],
)
def test_shapenet_has_the_published_number_of_parameters(
    hidden_dim: int, block: str, expected: int
) -> None:
    assert ShapeNet(hidden_dim=hidden_dim, block=block).spec(1, 1).num_params == expected


def test_all_kernels_come_before_all_biases() -> None:
    residual = ShapeNet(hidden_dim=4, num_blocks=1).spec(2, 3)
    shortcut = ShapeNet(hidden_dim=4, num_blocks=2, block="shortcut").spec(2, 3)

    assert residual.layout == (
        ("input_linear.kernel", (2, 4)),
        ("blocks_0.linear_0.kernel", (4, 4)),
        ("blocks_0.linear_1.kernel", (4, 4)),
        ("output_linear.kernel", (4, 3)),
        ("input_linear.bias", (4,)),
        ("blocks_0.linear_0.bias", (4,)),
        ("blocks_0.linear_1.bias", (4,)),
        ("output_linear.bias", (3,)),
    )
    assert [name for name, _ in shortcut.layout[1:3]] == [
        "blocks_0.linear.kernel", "blocks_1.linear.kernel",
    ]  # fmt: skip


def test_the_stream_is_one_group_and_the_inside_of_every_block_another() -> None:
    residual = ShapeNet(hidden_dim=4, num_blocks=2).spec(2, 3)
    shortcut = ShapeNet(hidden_dim=4, num_blocks=2, block="shortcut").spec(2, 3)

    assert [tensor.axes for tensor in residual.tensors[:6]] == [
        (None, "s"), ("s", "t0"), ("t0", "s"), ("s", "t1"), ("t1", "s"), ("s", None),
    ]  # fmt: skip
    assert [tensor.axes for tensor in shortcut.tensors] == [
        (None, "s"), ("s", "s"), ("s", "s"), ("s", None), ("s",), ("s",), ("s",), (None,),
    ]  # fmt: skip


def test_sines_start_as_in_multiscale_flow(check_laws: CheckLaws) -> None:
    field = ShapeNet(hidden_dim=96, num_blocks=1, omega_0=30.0)

    params = field.init(2, 24, Draws(0, tuple(range(64))))

    block = math.sqrt(6 / 96) / 30
    check_laws(
        params,
        {
            "input_linear.kernel": ("uniform", 1 / 2),
            "blocks_0.linear_0.kernel": ("uniform", block),
            "blocks_0.linear_1.kernel": ("uniform", block),
            "output_linear.kernel": ("uniform", math.sqrt(6 / (2 * 96))),
            "input_linear.bias": ("uniform", 1 / 96),
            "blocks_0.linear_0.bias": ("uniform", 1 / 96),
            "blocks_0.linear_1.bias": ("uniform", 1 / 96),
            "output_linear.bias": ("uniform", 1 / 96),
        },
    )


@pytest.mark.parametrize("activation", ["tanh", "swish"])
def test_other_activations_start_from_a_normal_cut_at_two_deviations(activation: str) -> None:
    field = ShapeNet(hidden_dim=64, block="shortcut", activation=activation)

    params = field.init(2, 1, Draws(0, tuple(range(16))))

    # A standard normal cut at ±2 has variance 1 - 2 * 2 pdf(2) / (cdf(2) - cdf(-2)) = 0.7737.
    values = params["blocks_0.linear.kernel"]
    assert float(values.abs().max()) == pytest.approx(0.2, rel=1e-3)
    assert float(values.abs().max()) <= 0.2 * (1 + 1e-6)
    assert float(values.std()) == pytest.approx(0.1 * math.sqrt(0.7737), rel=0.01)
    assert float(values.mean()) == pytest.approx(0, abs=2e-3)
    assert float(params["output_linear.bias"].abs().max()) <= 0.2 * (1 + 1e-6)


def test_a_unit_of_the_stream_takes_a_value_before_and_after_every_block() -> None:
    field = ShapeNet(hidden_dim=4, num_blocks=2, omega_0=1.0)
    spec = field.spec(2, 3)
    generator = torch.Generator().manual_seed(0)
    params = spec.unflatten(torch.randn(spec.num_params, generator=generator))
    coords = torch.rand(7, 2, generator=generator)

    traced = field.trace(params, coords)

    assert {name: tuple(values.shape) for name, values in traced.items()} == {
        "s": (7, 4, 3), "t0": (7, 4), "t1": (7, 4), "outputs": (7, 3),
    }  # fmt: skip
    first = torch.sin(coords @ params["input_linear.kernel"] + params["input_linear.bias"])
    torch.testing.assert_close(traced["s"][..., 0], first)


def test_a_block_that_adds_nothing_leaves_a_siren() -> None:
    # A shortcut block with zero kernel and zero bias adds sin(0) = 0 to the stream.
    field = ShapeNet(hidden_dim=5, num_blocks=1, block="shortcut", omega_0=7.0)
    siren = Siren(hidden_dim=5, num_layers=2, omega_0=7.0, preset="paper")
    generator = torch.Generator().manual_seed(0)
    params = field.spec(2, 1).unflatten(
        torch.randn(field.spec(2, 1).num_params, generator=generator)
    )
    params["blocks_0.linear.kernel"].zero_()
    params["blocks_0.linear.bias"].zero_()
    coords = torch.rand(9, 2, generator=generator)

    same = {
        "kernel_net_0.linear.kernel": params["input_linear.kernel"],
        "kernel_net_0.linear.bias": params["input_linear.bias"],
        "output_linear.kernel": params["output_linear.kernel"],
        "output_linear.bias": params["output_linear.bias"],
    }
    torch.testing.assert_close(field.apply(params, coords), siren.apply(same, coords))


def test_the_symmetries_are_those_of_the_activation() -> None:
    def names(field: ShapeNet) -> list[tuple[str, str]]:
        return [symmetry.key for symmetry in field.spec(2, 1).symmetries]

    assert names(ShapeNet(block="shortcut", activation="swish")) == []
    assert names(ShapeNet(block="shortcut", activation="tanh")) == [("s", "sign")]
    assert names(ShapeNet(block="shortcut", num_blocks=2)) == [
        ("s", "sign"), ("s", "phase"),
        ("s", "phase of blocks_0.linear"), ("s", "phase of blocks_1.linear"),
    ]  # fmt: skip
    assert names(ShapeNet(num_blocks=1)) == [
        ("s", "sign"), ("s", "phase"), ("s", "phase of blocks_0.linear_1"),
        ("t0", "sign"), ("t0", "phase"),
    ]  # fmt: skip
