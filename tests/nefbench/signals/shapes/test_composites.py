from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from nefbench.signals.shapes.composites import Difference, Mirrored, Moved, Repeated, Union
from nefbench.signals.shapes.sdf import Box, Capsule, Cylinder, Solid, Sphere


def one(*values: float) -> torch.Tensor:
    return torch.tensor([list(values)] if len(values) > 1 else list(values))


def unit(size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, size, 3, generator=torch.Generator().manual_seed(seed))


def in_cube(size: int) -> torch.Tensor:
    return (unit(size, 7) - 0.5) * 3


def about_z(degrees: float) -> torch.Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]])


def seen(solid: Solid, size: int = 60_000) -> np.ndarray:
    """Surface points at distance zero: those that no other part hides."""
    points = solid.surface(unit(size))
    return points[solid.distance(points).abs() < 1e-4].numpy()


def test_a_moved_rod_is_turned_then_scaled_then_shifted() -> None:
    rod = Moved(Capsule(one(1.0), one(0.1)), one(5.0, 0.0, 0.0), about_z(90.0), one(2.0))

    # The rod along y from -1.1 to 1.1 lies along x from 5 - 2.2 to 5 + 2.2, 0.2 thick.
    points = torch.tensor([[[8.2, 0.0, 0.0], [5.0, 3.2, 0.0], [5.0, 0.0, 0.0], [2.0, 0.0, 0.0]]])
    torch.testing.assert_close(rod.distance(points), torch.tensor([[1.0, 3.0, -0.2, 0.8]]))
    assert float(rod.support(one(1.0, 0.0, 0.0))) == pytest.approx(7.2)
    assert float(rod.support(one(0.0, 1.0, 0.0))) == pytest.approx(0.2)
    assert float(rod.area) == pytest.approx(4 * 4 * math.pi * 0.1 * 1.1)
    assert rod.distance(rod.surface(unit(1_000))).abs().max() < 1e-5


def test_mirrored_legs_are_four_legs() -> None:
    leg = Box(one(0.1, 0.5, 0.1))
    legs = Mirrored(Moved(leg, one(0.6, 0.0, 0.4)), (0, 2))
    apart = Union([Moved(leg, one(x, 0.0, z)) for x in (0.6, -0.6) for z in (0.4, -0.4)])
    points = in_cube(5_000)

    torch.testing.assert_close(legs.distance(points), apart.distance(points))
    for direction in (one(1.0, 2.0, -3.0), one(-1.0, 0.5, 0.2)):
        torch.testing.assert_close(legs.support(direction), apart.support(direction))
    torch.testing.assert_close(legs.area, apart.area)
    corners = (legs.surface(unit(8_000))[0].sign() + 1) / 2
    counts = (2 * corners[:, 0] + corners[:, 2]).long().bincount(minlength=4)
    # 2,000 on each leg; the standard deviation is 39.
    assert (counts - 2_000).abs().max() < 200


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_repeated_boards_are_that_many_boards(count: int) -> None:
    board, step = Box(one(0.5, 0.05, 0.3)), 0.4
    row = Repeated(board, one(step), one(float(count)))
    heights = [(i - (count - 1) / 2) * step for i in range(count)]
    apart = Union([Moved(board, one(0.0, y, 0.0)) for y in heights])
    points = in_cube(5_000)

    torch.testing.assert_close(row.distance(points), apart.distance(points))
    torch.testing.assert_close(row.support(one(0.3, 1.0, 0.0)), apart.support(one(0.3, 1.0, 0.0)))
    torch.testing.assert_close(row.area, apart.area)
    assert row.distance(row.surface(unit(2_000))).abs().max() < 1e-5


def test_a_union_is_exact_outside_and_a_lower_bound_inside() -> None:
    both = Union([Box(one(0.8, 0.2, 0.3)), Moved(Sphere(one(0.5)), one(0.4, 0.2, 0.0))])
    points = in_cube(4_000)
    distance = both.distance(points)[0].numpy()
    nearest, _ = cKDTree(seen(both)).query(points[0].numpy())

    inside = distance < 0
    # The cloud's points are about 0.01 apart: that adds up to 0.02.
    assert np.abs(nearest - distance)[~inside].max() < 0.02
    assert (np.abs(distance) - nearest)[inside].max() < 1e-4
    assert (nearest - np.abs(distance))[inside].max() > 0.03
    x, y, z = points[0].double().numpy().T
    truth = (abs(x) < 0.8) & (abs(y) < 0.2) & (abs(z) < 0.3)
    truth |= (x - 0.4) ** 2 + (y - 0.2) ** 2 + z**2 < 0.25
    assert np.array_equal(inside, truth)


def test_a_difference_has_exact_signs_and_lower_bounds() -> None:
    cup = Difference(
        Cylinder(one(0.6), one(0.5)), Moved(Cylinder(one(0.5), one(0.5)), one(0.0, 0.1, 0.0))
    )
    points = in_cube(4_000)
    distance = cup.distance(points)[0].numpy()
    nearest, _ = cKDTree(seen(cup)).query(points[0].numpy())

    x, y, z = points[0].double().numpy().T
    radius = np.hypot(x, z)
    truth = (radius < 0.6) & (np.abs(y) < 0.5) & ~((radius < 0.5) & (y > -0.4))
    assert np.array_equal(distance < 0, truth)
    assert (np.abs(distance) - nearest).max() < 1e-4


def test_surface_points_of_a_union_lie_on_its_parts_by_area() -> None:
    parts: list[Solid] = [Sphere(one(0.5)), Moved(Sphere(one(0.25)), one(2.0, 0.0, 0.0))]
    points = Union(parts).surface(unit(20_000))[0]

    # Areas 4 : 1.
    assert float((points[:, 0] > 1).float().mean()) == pytest.approx(0.2, abs=0.01)
