from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, MissingDependencyError, SignalError
from nefbench.signals.shapes import DISTANCE_SCALE, MeshesConfig, Quantity
from nefbench.signals.shapes.meshes import cache_folder, load_mesh
from nefbench.signals.shapes.sdf import Box, Torus


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def torus() -> Any:
    mesh = trimesh.creation.torus(3.0, 1.0, major_sections=64, minor_sections=32)
    mesh.apply_translation([5.0, -2.0, 1.0])
    return mesh


def box() -> Any:
    return trimesh.creation.box(extents=(4.0, 2.0, 1.0))


def open_box() -> Any:
    mesh = box()
    mesh.update_faces(np.arange(len(mesh.faces)) > 0)
    return mesh


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, mesh, ending in (
        ("ring/a", torus(), "off"),
        ("ring/b", torus(), "stl"),
        ("block/a", box(), "obj"),
        ("block/b", box(), "ply"),
    ):
        path = tmp_path / f"{name}.{ending}"
        path.parent.mkdir(exist_ok=True)
        mesh.export(path)
    return tmp_path


def config(folder: Path, quantity: Quantity = "occupancy", **keys: Any) -> MeshesConfig:
    sizes = {"num_uniform": 600, "num_near_surface": 400, "num_held_out": 300} | keys
    return MeshesConfig(path=folder, quantity=quantity, **sizes)


def truth(label: int, points: torch.Tensor) -> torch.Tensor:
    """Closed form of the normalised meshes: the longest sides, 8 and 4, become 1."""
    if label == 0:
        return Box(torch.tensor([[0.5, 0.25, 0.125]])).distance(points)
    ring = Torus(torch.tensor([3 / 8]), torch.tensor([1 / 8]))
    return ring.distance(points[..., [0, 2, 1]])  # the mesh's axis is z


@pytest.mark.parametrize("quantity", ["occupancy", "signed-distance"])
def test_samples_agree_with_the_closed_form(folder: Path, quantity: Quantity) -> None:
    signals = config(folder, quantity).open()
    assert signals.class_names == ("block", "ring")
    assert signals.std == (DISTANCE_SCALE if quantity == "signed-distance" else 1.0,)
    assert signals.labels is not None

    for role, sizes in (("fit", (600, 400)), ("held-out", (300, 300))):
        for position, label in enumerate(signals.labels.tolist()):
            samples = signals.shapes.read([position], role)  # type: ignore[arg-type]
            for part, size in zip((samples.uniform, samples.near_surface), sizes, strict=True):
                assert part.points.shape == (1, size, 3)
                exact = truth(label, part.points)
                # Facets of 64 x 32 lie up to 0.0012 inside the torus.
                if quantity == "signed-distance":
                    torch.testing.assert_close(part.values, exact, rtol=0, atol=1.5e-3)
                clear = exact.abs() > 1.5e-3
                inside = part.values[clear] < 0 if quantity != "occupancy" else part.values[clear]
                assert torch.equal(inside.bool(), exact[clear] < 0)
            # Noise of 0.02 on a flat surface: half of the points within 0.0135.
            assert float(exact.abs().median()) == pytest.approx(0.0135, abs=0.004)


def test_points_follow_the_file_s_content_not_its_place(folder: Path) -> None:
    (folder / "ring" / "c.off").write_bytes((folder / "ring" / "a.off").read_bytes())
    shapes = config(folder, cache=False, validation_size=0, test_size=0).open().shapes
    paths = [path.name for path in shapes.paths]  # type: ignore[attr-defined]
    every = shapes.read(range(len(paths)), "fit")

    copies = [i for i, path in enumerate(shapes.paths) if path.suffix == ".off"]  # type: ignore[attr-defined]
    assert torch.equal(every.uniform.points[copies[0]], every.uniform.points[copies[1]])
    alone = shapes.read([2], "fit")
    assert torch.equal(alone.near_surface.points[0], every.near_surface.points[2])
    held_out = shapes.read([2], "held-out")
    assert not np.isin(held_out.uniform.points.numpy(), alone.uniform.points.numpy()).any()
    reseeded = config(folder, cache=False, seed=1, validation_size=0, test_size=0).open()
    assert not torch.equal(reseeded.shapes.read([2], "fit").uniform.points, alone.uniform.points)


def test_sampled_points_are_kept_and_found_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = config(folder).open().shapes
    first = shapes.read([0], "fit")
    files = list(cache_folder().glob("*.npz"))
    assert len(files) == 1

    with monkeypatch.context() as patch:
        patch.setattr("nefbench.signals.shapes.meshes.load_mesh", None)
        again = shapes.read([0], "fit")
    assert torch.equal(again.uniform.points, first.uniform.points)
    assert torch.equal(again.near_surface.values, first.near_surface.values)
    # Other settings and a damaged file are no hit.
    config(folder, noise=0.03).open().shapes.read([0], "fit")
    assert len(list(cache_folder().glob("*.npz"))) == 2
    files[0].write_bytes(files[0].read_bytes()[:500])
    repaired = shapes.read([0], "fit")
    assert torch.equal(repaired.uniform.points, first.uniform.points)


def test_without_a_writable_cache_points_are_sampled_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))

    assert config(folder).open().shapes.read([0], "fit").uniform.points.shape == (1, 600, 3)


def test_a_switched_off_cache_is_not_touched(folder: Path) -> None:
    config(folder, cache=False).open().shapes.read([0], "fit")

    assert not cache_folder().exists()


def exported(mesh: Any, ending: str = "ply") -> tuple[bytes, Path]:
    content = mesh.export(file_type=ending)
    return content.encode() if isinstance(content, str) else content, Path(f"thing.{ending}")


def test_a_mesh_is_centred_and_its_longest_side_is_one() -> None:
    mesh = load_mesh(*exported(torus()), "refuse")

    np.testing.assert_allclose(mesh.bounds, [[-0.5, -0.5, -0.125], [0.5, 0.5, 0.125]], atol=1e-6)


def test_holes_are_refused_or_repaired_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SignalError, match=r"thing\.ply has holes.* or set not_watertight='repair'"):
        load_mesh(*exported(open_box()), "refuse")

    with caplog.at_level(logging.WARNING):
        mesh = load_mesh(*exported(open_box()), "repair")
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(0.5 * 0.25)
    assert "thing.ply has holes: repaired (1 faces added" in caplog.text


def test_turned_faces_are_refused_or_repaired(caplog: pytest.LogCaptureFixture) -> None:
    mesh = box()
    mesh.faces[0] = mesh.faces[0][::-1]
    with pytest.raises(SignalError, match="has faces turned inside out"):
        load_mesh(*exported(mesh), "refuse")

    assert load_mesh(*exported(mesh), "repair").volume == pytest.approx(0.5 * 0.25)
    assert "turned inside out: repaired" in caplog.text


def test_a_hole_of_many_sides_is_closed_by_a_flat_lid() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=4)
    mesh.update_faces(mesh.triangles_center[:, 2] < 0.6)
    mesh.update_faces(mesh.triangles_center[:, 2] > -0.7)  # and a second one below

    closed = load_mesh(*exported(mesh), "repair")

    # A ball between two planes, in units of its width: pi (z - z^3 / 3) between them.
    expected = np.pi * ((0.6 - 0.6**3 / 3) + (0.7 - 0.7**3 / 3)) / 8
    assert closed.is_watertight
    assert closed.volume == pytest.approx(expected, rel=0.03)


def test_what_repair_cannot_close_is_refused() -> None:
    # Three sheets that meet in one edge have no inside however they are turned.
    corners = [[0, 0, 0], [0, 0, 1], [1, 0, 0.5], [-1, 1, 0.5], [-1, -1, 0.5]]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False)

    with pytest.raises(SignalError, match="could not be repaired"):
        load_mesh(*exported(mesh), "repair")


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"", "thing.off", "is no readable mesh"),
        (b"hello", "thing.ply", "is no readable mesh"),
        (b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "thing.off", r"no readable mesh|has no faces"),
        (
            b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n",
            "thing.off",
            r"is flat \(1 x 1 x 0\)",
        ),
        (
            b"OFF\n4 4 0\n0 0 0\n1 0 0\n1 1 0\n0 1 1e-9\n3 0 2 1\n3 0 1 3\n3 1 2 3\n3 0 3 2\n",
            "thing.off",
            r"is flat|encloses nothing",
        ),
    ],
)
def test_unusable_meshes_are_refused_in_one_line(content: bytes, name: str, expected: str) -> None:
    with pytest.raises(SignalError, match=expected) as caught:
        load_mesh(content, Path(name), "refuse")
    assert "thing." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vertex_that_is_not_a_number_leaves_a_hole() -> None:
    lines = exported(box(), "off")[0].decode().splitlines()
    lines[2] = "nan 1.0 0.5"  # the first vertex

    with pytest.raises(SignalError, match="has holes"):
        load_mesh("\n".join(lines).encode(), Path("thing.off"), "refuse")


def test_materials_that_a_mesh_names_are_not_looked_for() -> None:
    content, path = exported(box(), "obj")

    mesh = load_mesh(b"mtllib http://example.invalid/a.mtl\nusemtl a\n" + content, path, "refuse")
    assert mesh.is_watertight


def test_other_kinds_of_files_are_refused(folder: Path) -> None:
    (folder / "ring" / "c.zip").touch()

    with pytest.raises(SignalError, match=r"c\.zip is an archive"):
        config(folder).open()


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)

    with pytest.raises(MissingDependencyError, match=r"pip install 'nefbench\[shapes\]'"):
        config(folder).open()


def test_the_recorded_configuration_opens_the_same_shapes(folder: Path) -> None:
    signals = config(folder).open()
    assert signals.config is not None

    again = config_from_mapping(MeshesConfig, signals.config).open()
    assert again.fingerprint == signals.fingerprint
    assert pickle.loads(pickle.dumps(signals)).fingerprint == signals.fingerprint


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "missing key 'path'"),
        ({"path": "x", "noise": 0.0}, "expected noise above 0"),
        ({"path": "x", "num_held_out": 0}, "expected num_held_out >= 1"),
        ({"path": "x", "seed": -1}, "expected seed from 0"),
        ({"path": "x", "not_watertight": "fix"}, "not_watertight"),
        ({"path": "x", "test_size": 1.5}, "expected test_size to be a number"),
    ],
)
def test_numbers_out_of_range_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        config_from_mapping(MeshesConfig, {"kind": "meshes", **keys})
