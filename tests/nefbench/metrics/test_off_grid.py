from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from nefbench.metrics import (
    legacy_midpoint_coords,
    legacy_midpoint_values,
    midpoint_coords,
    midpoint_values,
    psnr,
)
from nefbench.signals.base import grid_coords

GRIDS = [(5,), (2, 2), (4, 7), (7, 4), (3, 4, 5), (2, 3, 2, 4)]
IMAGES = [(2, 2), (4, 7), (7, 4), (28, 28)]

Axes = Callable[[int], np.ndarray]


def random_values(grid_shape: tuple[int, ...], num_fields: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (num_fields, math.prod(grid_shape), 3)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def interpolated(values: Tensor, grid_shape: tuple[int, ...], positions: Axes) -> np.ndarray:
    """SciPy's multilinear interpolation at the given sample positions, zeros outside."""
    mesh = np.meshgrid(*[positions(size) for size in grid_shape], indexing="ij")
    fields = values.reshape(len(values), *grid_shape, -1).movedim(-1, 1).numpy()
    return np.stack(
        [
            np.stack(
                [
                    map_coordinates(channel, mesh, order=1, mode="grid-constant").reshape(-1)
                    for channel in field
                ],
                axis=-1,
            )
            for field in fields
        ]
    )


def waves(coords: Tensor) -> Tensor:
    """An analytic image of at most one and a half periods per axis, in [0, 1]."""
    x, y = coords.double().unbind(-1)
    value = torch.sin(4.5 * x + 1) + torch.cos(3.1 * y - 2.7 * x) + torch.sin(4.0 * y)
    return (0.5 + value / 6)[None, :, None]


@pytest.mark.parametrize("grid_shape", GRIDS)
def test_midpoints_lie_halfway_between_the_corners_of_their_cell(
    grid_shape: tuple[int, ...],
) -> None:
    dim = len(grid_shape)
    corners = grid_coords(grid_shape).reshape(*grid_shape, dim)
    first = corners[(slice(0, -1),) * dim].reshape(-1, dim)
    last = corners[(slice(1, None),) * dim].reshape(-1, dim)

    coords = midpoint_coords(grid_shape)

    assert coords.shape == (math.prod(size - 1 for size in grid_shape), dim)
    torch.testing.assert_close(coords, (first + last) / 2, rtol=0, atol=1e-7)
    assert (coords.abs() < 1).all()


def test_midpoints_of_a_small_image_by_hand() -> None:
    # Two rows of three pixels: rows at -1 and 1, columns at -1, 0 and 1.
    coords = midpoint_coords((2, 3))
    values = midpoint_values(torch.tensor([[[0.0], [4.0], [8.0], [2.0], [6.0], [20.0]]]), (2, 3))

    assert coords.tolist() == [[-0.5, 0.0], [0.5, 0.0]]
    assert coords.dtype == torch.float32
    # Means of 0, 4, 2, 6 and of 4, 8, 6, 20.
    assert values.tolist() == [[[3.0], [9.5]]]


@pytest.mark.parametrize("grid_shape", GRIDS)
def test_midpoint_values_equal_the_interpolation_of_scipy(grid_shape: tuple[int, ...]) -> None:
    values = random_values(grid_shape)

    between = midpoint_values(values, grid_shape)

    expected = interpolated(values, grid_shape, lambda size: np.arange(size - 1) + 0.5)
    np.testing.assert_allclose(between.numpy(), expected, rtol=0, atol=1e-14)
    assert between.min() >= values.min()
    assert between.max() <= values.max()


@pytest.mark.parametrize("grid_shape", GRIDS)
def test_coordinates_and_values_agree_on_multilinear_signals(grid_shape: tuple[int, ...]) -> None:
    def signal(coords: Tensor) -> Tensor:
        scales = torch.arange(1.0, coords.shape[-1] + 1)
        return torch.stack([(coords * scales).sum(-1), (coords + scales).prod(-1)], dim=-1)[None]

    values = signal(grid_coords(grid_shape))

    expected = signal(midpoint_coords(grid_shape))
    # float32, values up to 120.
    torch.testing.assert_close(midpoint_values(values, grid_shape), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interpolate", [midpoint_values, legacy_midpoint_values])
def test_a_batch_equals_one_signal_after_another(
    interpolate: Callable[[Tensor, tuple[int, int]], Tensor],
) -> None:
    values = random_values((5, 4), num_fields=3)

    between = interpolate(values, (5, 4))

    single = torch.cat([interpolate(values[i : i + 1], (5, 4)) for i in range(3)])
    torch.testing.assert_close(between, single, rtol=0, atol=1e-15)
    assert interpolate(values.float(), (5, 4)).dtype == torch.float32


@pytest.mark.parametrize("grid_shape", IMAGES)
def test_legacy_values_equal_the_interpolation_of_scipy(grid_shape: tuple[int, int]) -> None:
    values = random_values(grid_shape)

    between = legacy_midpoint_values(values, grid_shape)

    expected = interpolated(values, grid_shape, lambda n: np.linspace(0.5, n - 0.5, n - 1))
    np.testing.assert_allclose(between.numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("grid_shape", IMAGES)
def test_legacy_coordinates_are_evenly_spaced_with_half_a_pixel_to_the_border(
    grid_shape: tuple[int, int],
) -> None:
    rows, columns = (np.linspace(-1 + 1 / n, 1 - 1 / n, n - 1) for n in grid_shape)

    coords = legacy_midpoint_coords(grid_shape)

    expected = [[column, row] for row in rows for column in columns]
    np.testing.assert_allclose(coords.numpy(), expected, rtol=0, atol=1e-7)


def test_legacy_values_by_hand_end_half_a_pixel_outside() -> None:
    # Every row is 1, 2, 3.
    image = torch.arange(1.0, 4).expand(3, 3).reshape(1, 9, 1)

    # Read at 0.5 and 2.5 on both axes: halfway from 1 to 2, then half of 3; the last row is halved.
    assert legacy_midpoint_values(image, (3, 3)).flatten().tolist() == [1.5, 1.5, 0.75, 0.75]


@pytest.mark.parametrize("size", [28, 32, 64])
def test_a_field_that_is_right_everywhere_is_punished_by_the_legacy_positions(size: int) -> None:
    grid_shape = (size, size)
    image = waves(grid_coords(grid_shape))

    correct = psnr(midpoint_values(image, grid_shape), waves(midpoint_coords(grid_shape)))
    legacy = psnr(
        legacy_midpoint_values(image, grid_shape), waves(legacy_midpoint_coords(grid_shape))
    )

    # What is left with the right positions is the error of bilinear interpolation.
    assert correct.item() > 50
    assert 15 < legacy.item() < 35
    assert correct.item() - legacy.item() > 20


@pytest.mark.parametrize(
    ("grid_shape", "message"),
    [
        ((1,), "axis 0 of grid (1,) (got 1)"),
        ((28, 1), "axis 1 of grid (28, 1) (got 1)"),
        ((3, 0, 4), "axis 1 of grid (3, 0, 4) (got 0)"),
        ((), "at least one axis"),
    ],
)
def test_an_axis_without_anything_between_its_samples_is_named(
    grid_shape: tuple[int, ...], message: str
) -> None:
    values = torch.zeros(1, math.prod(grid_shape), 1)

    with pytest.raises(ValueError, match="at least") as from_coords:
        midpoint_coords(grid_shape)
    with pytest.raises(ValueError, match="at least") as from_values:
        midpoint_values(values, grid_shape)

    assert message in str(from_coords.value)
    assert message in str(from_values.value)


def test_the_legacy_variant_takes_images_of_two_pixels_and_more_only() -> None:
    with pytest.raises(ValueError, match="expected an image"):
        legacy_midpoint_coords((3, 3, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axis 1 of grid"):
        legacy_midpoint_values(torch.zeros(1, 3, 1), (3, 1))


def test_values_of_another_grid_or_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected values \[N, 6, c\]"):
        midpoint_values(torch.zeros(1, 12, 1), (2, 3))
    with pytest.raises(ValueError, match=r"got shape \(6, 1\)"):
        legacy_midpoint_values(torch.zeros(6, 1), (2, 3))
    with pytest.raises(TypeError, match="floating point values"):
        midpoint_values(torch.zeros(1, 6, 1, dtype=torch.uint8), (2, 3))
