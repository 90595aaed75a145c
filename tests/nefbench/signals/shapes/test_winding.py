from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trimesh

from nefbench.signals.shapes.winding import inside_mesh, winding_along


def triangles(mesh: Any) -> np.ndarray:
    return np.asarray(mesh.triangles, dtype=np.float64)


def in_cube(size: int) -> np.ndarray:
    return np.random.default_rng(0).random((size, 3)) * 2.2 - 1.1


def test_a_box_holds_what_lies_within_its_sides() -> None:
    points = in_cube(20_000)
    inside = inside_mesh(triangles(trimesh.creation.box(extents=(1.0, 0.6, 2.0))), points)

    assert np.array_equal(inside, (np.abs(points) < [0.5, 0.3, 1.0]).all(1))


def test_rays_through_edges_and_corners_count_once() -> None:
    # Every ray along an axis from the lattice hits edges, corners or diagonals of the box.
    axis = np.array([-0.75, -0.25, 0.0, 0.25, 0.75])
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.7)
    inside = inside_mesh(triangles(ball), points)

    box = inside_mesh(triangles(trimesh.creation.box(extents=(1.0, 1.0, 1.0))), points)
    assert np.array_equal(box, (np.abs(points) < 0.5).all(1))
    # 0.43 and 0.75: well inside and well outside of the ball of 0.7.
    assert np.array_equal(inside, np.linalg.norm(points, axis=1) < 0.6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rays_through_corners_count_once_along_each_axis(axis: int) -> None:
    # Corners at 1 and -1 on the axes: rays from points with zeros hit corners and edges exactly.
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    octahedron = trimesh.convex.convex_hull(corners)
    values = np.array([-0.75, -0.125, 0.0, 0.125, 0.75])
    points = np.stack(np.meshgrid(values, values, values), axis=-1).reshape(-1, 3)
    points = points[np.abs(points).sum(1) != 1]

    winding = winding_along(triangles(octahedron), points, axis)
    assert np.array_equal(np.abs(winding), np.abs(points).sum(1) < 1)


def test_a_ball_agrees_with_its_formula_away_from_its_facets() -> None:
    points = in_cube(20_000)
    inside = inside_mesh(triangles(trimesh.creation.icosphere(4, radius=0.8)), points)

    radius = np.linalg.norm(points, axis=1)
    # Facets of the 4th subdivision lie up to 0.2 % inside the ball.
    assert inside[radius < 0.797].all()
    assert not inside[radius > 0.8].any()


def test_a_torus_agrees_with_its_formula_and_with_trimesh() -> None:
    mesh = trimesh.creation.torus(0.7, 0.25, major_sections=96, minor_sections=48)
    points = in_cube(4_000)
    inside = inside_mesh(triangles(mesh), points)

    distance = np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.7, points[:, 2]) - 0.25
    clear = np.abs(distance) > 2e-3
    assert np.array_equal(inside[clear], distance[clear] < 0)
    assert np.array_equal(inside, mesh.contains(points))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_overlapping_parts_wind_twice_and_are_joined(axis: int) -> None:
    ball = trimesh.creation.icosphere(2, radius=0.5)
    other = ball.copy()
    other.apply_translation([0.4, 0.0, 0.0])
    both = triangles(trimesh.util.concatenate([ball, other]))
    points = np.array([[0.2, 0.01, 0.02], [-0.3, 0.01, 0.02], [0.7, 0.03, 0.0], [0.2, 0.9, 0.1]])

    assert np.abs(winding_along(both, points, axis)).tolist() == [2, 1, 1, 0]
    assert inside_mesh(both, points).tolist() == [True, True, True, False]


def test_a_hollow_is_outside_and_a_mesh_may_be_inside_out() -> None:
    shell, hollow = trimesh.creation.icosphere(2, radius=0.9), trimesh.creation.icosphere(2, 0.4)
    hollow.invert()
    points = np.array([[0.01, 0.02, 0.03], [0.6, 0.01, 0.02], [0.95, 0.02, 0.03]])

    both = trimesh.util.concatenate([shell, hollow])
    assert inside_mesh(triangles(both), points).tolist() == [False, True, False]
    shell.invert()
    assert inside_mesh(triangles(shell), points).tolist() == [True, True, False]


def test_many_pairs_are_counted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, points = triangles(trimesh.creation.icosphere(3, radius=0.8)), in_cube(500)
    at_once = inside_mesh(mesh, points)
    monkeypatch.setattr("nefbench.signals.shapes.winding._PAIRS_AT_ONCE", 100)

    assert np.array_equal(inside_mesh(mesh, points), at_once)
