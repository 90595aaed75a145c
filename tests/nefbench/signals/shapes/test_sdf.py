"""Every solid against a rule for its inside and clouds of points on its surface."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from nefbench.seeding import random_words
from nefbench.signals.shapes.sdf import (
    Box,
    Capsule,
    Cone,
    Cylinder,
    Handle,
    HexagonalPrism,
    Link,
    Octahedron,
    Pyramid,
    RoundedBox,
    Solid,
    Sphere,
    Torus,
    Tube,
    choose,
)

Inside = Callable[[Any, Any, Any], Any]
SIDE = 2.4
"""Side of the cube that holds all solids below, with room around them."""


def one(*values: float) -> torch.Tensor:
    return torch.tensor([list(values)] if len(values) > 1 else list(values))


def rho(x: Any, z: Any) -> Any:
    return np.hypot(x, z)


def _in_handle(x: Any, y: Any, z: Any) -> Any:
    nearest = np.stack([x, np.maximum(np.abs(y) - 0.2, 0)])
    bow = (np.hypot(np.linalg.norm(nearest, axis=0) - 0.5, z) < 0.15) & (x >= 0)
    ends = x**2 + (np.abs(y) - 0.7) ** 2 + z**2 < 0.15**2
    return bow | ends


def _in_rounded_box(x: Any, y: Any, z: Any) -> Any:
    core = np.stack([np.abs(x) - 0.4, np.abs(y) - 0.1, np.abs(z) - 0.6])
    return (np.maximum(core, 0) ** 2).sum(0) < 0.2**2


# Written from what the solids are, in float64, not from their distances.
SOLIDS: dict[str, tuple[Solid, Inside]] = {
    "sphere": (Sphere(one(0.7)), lambda x, y, z: x**2 + y**2 + z**2 < 0.49),
    "box": (
        Box(one(0.5, 0.2, 0.8)),
        lambda x, y, z: (abs(x) < 0.5) & (abs(y) < 0.2) & (abs(z) < 0.8),
    ),
    "rounded box": (RoundedBox(one(0.6, 0.3, 0.8), one(0.2)), _in_rounded_box),
    "torus": (
        Torus(one(0.6), one(0.25)),
        lambda x, y, z: (rho(x, z) - 0.6) ** 2 + y**2 < 0.25**2,
    ),
    "capsule": (
        Capsule(one(0.4), one(0.3)),
        lambda x, y, z: x**2 + z**2 + np.maximum(abs(y) - 0.4, 0) ** 2 < 0.09,
    ),
    "cylinder": (
        Cylinder(one(0.6), one(0.3)),
        lambda x, y, z: (rho(x, z) < 0.6) & (abs(y) < 0.3),
    ),
    "tube": (
        Tube(one(0.3), one(0.7), one(0.4)),
        lambda x, y, z: (rho(x, z) > 0.3) & (rho(x, z) < 0.7) & (abs(y) < 0.4),
    ),
    "cut cone": (
        Cone(one(0.8), one(0.3), one(0.5)),
        lambda x, y, z: (rho(x, z) < 0.55 - 0.5 * y) & (abs(y) < 0.5),
    ),
    "pointed cone": (
        Cone(one(0.7), one(0.0), one(0.6)),
        lambda x, y, z: (rho(x, z) < 0.7 * (0.6 - y) / 1.2) & (abs(y) < 0.6),
    ),
    "upturned cone": (
        Cone(one(0.2), one(0.6), one(0.7)),
        lambda x, y, z: (rho(x, z) < 0.4 + 0.4 * y / 1.4) & (abs(y) < 0.7),
    ),
    "hexagonal prism": (
        HexagonalPrism(one(0.6), one(0.4)),
        lambda x, y, z: (
            (abs(y) < 0.4)
            & (abs(x) < 0.6)
            & (abs(x / 2 + z * math.sqrt(0.75)) < 0.6)
            & (abs(x / 2 - z * math.sqrt(0.75)) < 0.6)
        ),
    ),
    "octahedron": (Octahedron(one(0.9)), lambda x, y, z: abs(x) + abs(y) + abs(z) < 0.9),
    "flat pyramid": (
        Pyramid(one(0.8), one(0.5)),
        lambda x, y, z: (y > 0) & (np.maximum(abs(x), abs(z)) < 0.8 * (1 - y / 0.5)),
    ),
    "steep pyramid": (
        Pyramid(one(0.4), one(1.0)),
        lambda x, y, z: (y > 0) & (np.maximum(abs(x), abs(z)) < 0.4 * (1 - y)),
    ),
    "link": (
        Link(one(0.3), one(0.4), one(0.15)),
        lambda x, y, z: np.hypot(rho(x, np.maximum(abs(y) - 0.3, 0)) - 0.4, z) < 0.15,
    ),
    "handle": (Handle(one(0.2), one(0.5), one(0.15)), _in_handle),
}

each_solid = pytest.mark.parametrize(("solid", "inside"), SOLIDS.values(), ids=SOLIDS.keys())


def unit(stream: str, size: int) -> torch.Tensor:
    words = random_words(0, stream, [0], 3 * size).reshape(1, size, 3) >> np.uint64(8)
    return torch.from_numpy(words.astype(np.float32)) * 2.0**-24


def in_cube(size: int) -> torch.Tensor:
    return (unit("cube", size) - 0.5) * SIDE


@each_solid
def test_the_sign_says_inside_or_outside(solid: Solid, inside: Inside) -> None:
    points = in_cube(20_000)
    distance = solid.distance(points)[0].numpy()
    truth = inside(*points[0].double().numpy().T)

    # On the surface itself rounding decides (float32).
    clear = np.abs(distance) > 1e-5
    assert np.array_equal((distance < 0)[clear], truth[clear])
    assert truth.sum() > 50


@each_solid
def test_surface_points_have_inside_and_outside_around_them(solid: Solid, inside: Inside) -> None:
    points = solid.surface(unit("surface", 4_000))[0].double().numpy()
    steps = np.random.default_rng(0).normal(size=(40, 3))
    steps *= 1e-4 / np.linalg.norm(steps, axis=1, keepdims=True)
    around = points[:, None] + steps
    within = inside(*around.reshape(-1, 3).T).reshape(-1, 40)

    # At the tip of a steep cone or pyramid 40 directions may all lead outside.
    assert (within.any(1) & ~within.all(1)).mean() > 0.998


@each_solid
def test_the_distance_is_that_to_the_nearest_point_of_the_surface(
    solid: Solid, inside: Inside
) -> None:
    del inside
    cloud = cKDTree(solid.surface(unit("surface", 150_000))[0].numpy())
    points = in_cube(3_000)
    distance = solid.distance(points)[0].abs().numpy()
    nearest, _ = cloud.query(points[0].numpy())

    # No point of the surface is closer. Some point of the cloud lies within about 0.02 of the
    # nearest one: that adds 0.02**2 / (2 distance) from the side, up to 0.02 towards a corner.
    assert (distance - nearest).max() < 1e-5
    assert (nearest - distance).max() < 0.03
    assert np.quantile((nearest - distance)[distance > 0.1], 0.95) < 3e-3


@each_solid
def test_the_gradient_has_length_one(solid: Solid, inside: Inside) -> None:
    del inside
    points, step = in_cube(5_000).double(), 1e-5
    solid = as_double(solid)
    slopes = []
    for axis in range(3):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        rise = solid.distance(points + offset) - solid.distance(points - offset)
        slopes.append(rise / (2 * step))
    length = torch.stack(slopes).square().sum(0).sqrt()

    # All but the few points within a step of the medial axis.
    assert ((length - 1).abs() < 1e-4).double().mean() > 0.999


@each_solid
def test_surface_points_are_uniform_by_area(solid: Solid, inside: Inside) -> None:
    del inside
    points = in_cube(600_000)[0]
    thin = 0.01
    shell = points[(solid.distance(points[None])[0].abs() < thin)]
    found = solid.surface(unit("surface", 60_000))[0]

    # A shell around the surface holds points by area; about 5,000 to 30,000 are in it.
    for moment in (torch.Tensor.abs, torch.Tensor.square):
        spread = moment(shell).std(0) / len(shell) ** 0.5 + moment(found).std(0) / 60_000**0.5
        difference = (moment(shell).mean(0) - moment(found).mean(0)).abs()
        assert (difference < 4 * spread + 2e-3).all()
    area = len(shell) / 600_000 * SIDE**3 / (2 * thin)
    # Counting error about 1 %; edges take less than thin / radius more or less.
    assert float(solid.area) == pytest.approx(area, rel=0.05)


@each_solid
def test_the_support_is_the_furthest_surface_point(solid: Solid, inside: Inside) -> None:
    del inside
    cloud = solid.surface(unit("surface", 60_000))[0]
    directions = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 3))).float()
    for direction in directions:
        reach = float(solid.support(direction[None]))
        furthest = float((cloud * direction).sum(-1).max())
        assert furthest <= reach + 1e-5
        assert furthest > reach - 0.03 * float(direction.norm())


def test_distances_by_hand() -> None:
    points = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0], [4.0, 6.0, 1.0]]])

    # A box of 2 x 4 x 2: beside, above, at the centre, off an edge by (3, 4, 0).
    box = Box(one(1.0, 2.0, 1.0)).distance(points)
    assert box.tolist() == [[2.0, 3.0, -1.0, 5.0]]
    # A ring of radius 3 with a tube of radius 1: in its middle, sqrt(9 + 25) away, 2 away.
    ring = Torus(one(3.0), one(1.0)).distance(points[:, :3])
    torch.testing.assert_close(ring, torch.tensor([[-1.0, math.sqrt(34) - 1, 2.0]]))


def test_each_solid_of_a_batch_keeps_its_own_parameters() -> None:
    both = Cone(torch.tensor([0.8, 0.3]), torch.tensor([0.2, 0.6]), torch.tensor([0.5, 0.4]))
    second = Cone(one(0.3), one(0.6), one(0.4))
    points = in_cube(1_001)

    assert torch.equal(both.distance(points.expand(2, -1, -1))[1], second.distance(points)[0])
    numbers = unit("surface", 1_001)
    assert torch.equal(both.surface(numbers.expand(2, -1, -1))[1], second.surface(numbers)[0])


def test_choices_follow_their_shares_and_leave_uniform_numbers() -> None:
    pick = torch.linspace(0, 1, 10_001)[None, :-1]
    number, rest = choose(pick, [one(1.0), one(0.0), one(3.0)])

    assert number[0].int().bincount(minlength=3).tolist() == [2500, 0, 7500]
    assert rest.min() >= 0
    assert rest.max() < 1
    # Evenly spaced numbers stay evenly spaced: means 1/2 within half a step.
    assert rest[number == 0].mean() == pytest.approx(0.5, abs=1e-3)
    assert rest[number == 2].mean() == pytest.approx(0.5, abs=1e-3)


def as_double(solid: Solid) -> Solid:
    fields = {name: value.double() for name, value in vars(solid).items()}
    return type(solid)(**fields)
