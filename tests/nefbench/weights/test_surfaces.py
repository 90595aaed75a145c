from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nefbench.errors import MissingDependencyError
from nefbench.signals import grid_coords
from nefbench.signals.shapes import BOX_SIDE
from nefbench.weights.surfaces import MESH_ENDINGS, Mesh, surface, write_mesh

CENTRE, RADIUS = torch.tensor([0.1, -0.05, 0.02]), 0.35


def distances(sides: tuple[int, int, int]) -> Tensor:
    """Signed distances ``[nz, ny, nx]`` to a ball that is off the centre."""
    points = grid_coords(sides) * BOX_SIDE / 2
    return ((points - CENTRE).norm(dim=-1) - RADIUS).reshape(sides)


def volume(mesh: Mesh) -> float:
    """Volume inside a closed mesh, positive where corners go anticlockwise seen from outside."""
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def is_closed(mesh: Mesh) -> bool:
    """Whether every edge lies in two faces, once in each direction."""
    edges = Counter((int(face[i]), int(face[(i + 1) % 3])) for face in mesh.faces for i in range(3))
    return all(count == 1 and edges[b, a] == 1 for (a, b), count in list(edges.items()))


@pytest.mark.parametrize("sides", [(32, 32, 32), (40, 30, 25)])
def test_the_surface_of_a_balls_distances_is_the_sphere(sides: tuple[int, int, int]) -> None:
    mesh = surface(distances(sides), 0.0, inside="below")

    cell = BOX_SIDE / (min(sides) - 1)
    assert ((mesh.vertices - CENTRE).norm(dim=-1) - RADIUS).abs().max() < cell / 2
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    assert is_closed(mesh)


def test_faces_look_outwards() -> None:
    mesh = surface(distances((24, 24, 24)), 0.0, inside="below")

    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    outwards = (torch.linalg.cross(b - a, c - a) * ((a + b + c) / 3 - CENTRE)).sum(-1)
    assert (outwards > 0).all()


def test_occupancy_gives_the_same_sphere_with_the_same_orientation() -> None:
    probability = (-100 * distances((32, 32, 32))).sigmoid()

    mesh = surface(probability, 0.5)

    assert ((mesh.vertices - CENTRE).norm(dim=-1) - RADIUS).abs().max() < BOX_SIDE / 31 / 2
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    assert is_closed(mesh)


def test_a_surface_is_closed_where_it_leaves_the_box() -> None:
    full = surface(torch.ones(4, 5, 6), 0.5)
    half = surface(torch.arange(6.0).expand(6, 6, 6), 2.5)  # x above the middle

    assert is_closed(full)
    assert full.vertices.abs().max() > BOX_SIDE / 2
    assert is_closed(half)
    assert half.vertices[:, 0].min() == pytest.approx(0.0, abs=1e-6)
    assert half.vertices[:, 2].min() < -BOX_SIDE / 2


def test_samples_exactly_on_the_surface_do_not_tear_it() -> None:
    # the 7 x 7 x 7 grid points of the octahedron |x| + |y| + |z| = 2 have the value 0
    z, y, x = torch.meshgrid(*[torch.arange(-3.0, 4.0)] * 3, indexing="ij")

    assert is_closed(surface(x.abs() + y.abs() + z.abs() - 2, 0.0, inside="below"))


@pytest.mark.parametrize("value", [0.2, 0.5])
def test_where_nothing_is_inside_there_is_no_surface(value: float) -> None:
    mesh = surface(torch.full((4, 4, 4), value), 0.5)

    assert mesh.is_empty
    assert (mesh.vertices.shape, mesh.faces.shape) == ((0, 3), (0, 3))


@pytest.mark.parametrize("values", [torch.zeros(3, 3), torch.zeros(3, 1, 3)])
def test_too_small_a_grid_is_refused(values: Tensor) -> None:
    with pytest.raises(ValueError, match=r"at least 2x2x2 \(got"):
        surface(values, 0.5)


def test_values_that_are_not_finite_are_refused() -> None:
    values = torch.zeros(3, 3, 3)
    values[1, 1, 1] = math.nan

    with pytest.raises(ValueError, match="expected finite values"):
        surface(values, 0.5)


def test_without_scikit_image_the_line_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.measure", None)

    with pytest.raises(MissingDependencyError) as caught:
        surface(torch.zeros(3, 3, 3), 0.5)
    assert str(caught.value) == (
        "a mesh of a shape needs scikit-image: pip install 'nefbench[shapes]'"
    )


# Files

TRIANGLE = Mesh(
    torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 1 / 3, 0.0]]), torch.tensor([[0, 1, 2]])
)


def test_an_obj_file_is_what_its_format_says(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.obj", TRIANGLE)

    # 9 digits tell any two float32 apart: 0.1 is 0.100000001, 1/3 is 0.333333343
    assert (tmp_path / "a.obj").read_text() == (
        "v 0 0 0\nv 0.100000001 0 0\nv 0 0.333333343 0\nf 1 2 3\n"
    )


def test_an_off_file_is_what_its_format_says(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.off", TRIANGLE)

    assert (tmp_path / "a.off").read_text() == (
        "OFF\n3 1 0\n0 0 0\n0.100000001 0 0\n0 0.333333343 0\n3 0 1 2\n"
    )


def test_an_stl_file_has_unit_normals_and_50_bytes_per_face(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.stl", TRIANGLE)

    content = (tmp_path / "a.stl").read_bytes()
    assert len(content) == 80 + 4 + 50
    assert not content.startswith(b"solid")  # that would be the text format
    assert torch.frombuffer(bytearray(content[84:96]), dtype=torch.float32).tolist() == [0, 0, 1]


@pytest.mark.parametrize("ending", MESH_ENDINGS)
def test_files_hold_the_mesh(ending: str, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = surface(distances((16, 16, 16)), 0.0, inside="below")

    write_mesh(tmp_path / f"a{ending}", mesh)
    write_mesh(tmp_path / f"b{ending}", mesh)

    read = trimesh.load_mesh(tmp_path / f"a{ending}", process=False)
    corners = torch.from_numpy(read.vertices[read.faces]).float()
    assert torch.equal(corners, mesh.vertices[mesh.faces])
    if ending != ".stl":  # it repeats the corners of every face
        assert torch.equal(torch.from_numpy(read.vertices).float(), mesh.vertices)
    assert read.volume == pytest.approx(volume(mesh))
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", f"b{ending}"]


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ending of \.obj, \.ply, \.stl, \.off \(got 'a\.glb'\)"):
        write_mesh(tmp_path / "a.glb", TRIANGLE)
