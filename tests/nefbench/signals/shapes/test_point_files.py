from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals.shapes import PointFilesConfig
from nefbench.signals.shapes.point_files import read_points

Content = dict[str, Any]


def ball(radius: float, size: int = 400, seed: int = 0) -> Content:
    generator = np.random.default_rng(seed)
    uniform = (generator.random((size, 3)) - 0.5) * 1.1
    near = generator.normal(size=(size // 2, 3))
    near *= (radius + 0.01 * generator.normal(size=(size // 2, 1))) / np.linalg.norm(
        near, axis=1, keepdims=True
    )
    return {
        "random_points": uniform.astype(np.float32),
        "random_points_occupancy": np.linalg.norm(uniform, axis=1) < radius,
        "near_surf_points": near.astype(np.float32),
        "near_surf_points_occupancy": np.linalg.norm(near, axis=1) < radius,
    }


def occnet(radius: float, size: int = 1_001) -> Content:
    points = ((np.random.default_rng(1).random((size, 3)) - 0.5) * 1.1).astype(np.float16)
    inside = np.linalg.norm(points.astype(np.float32), axis=1) < radius
    return {"points": points, "occupancies": np.packbits(inside)}


def write(path: Path, content: Content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, radius in (("large", 0.45), ("small", 0.3)):
        for i in range(4):
            write(tmp_path / name / f"{i}.npz", ball(radius, seed=i))
    return tmp_path


def rows(points: torch.Tensor) -> set[tuple[float, ...]]:
    return set(map(tuple, points.tolist()))


def test_every_point_has_one_role_and_keeps_its_occupancy(folder: Path) -> None:
    signals = PointFilesConfig(path=folder).open()
    assert signals.labels is not None
    assert signals.class_names == ("large", "small")

    for position in range(len(signals)):
        radius = (0.45, 0.3)[int(signals.labels[position])]
        fit, held = (signals.shapes.read([position], role) for role in ("fit", "held-out"))
        for one, two, size in (
            (fit.uniform, held.uniform, 400),
            (fit.near_surface, held.near_surface, 200),
        ):
            assert (one.points.shape[1], two.points.shape[1]) == (0.9 * size, 0.1 * size)
            assert rows(one.points[0]).isdisjoint(rows(two.points[0]))
            for part in (one, two):
                assert part.points.dtype == part.values.dtype == torch.float32
                assert torch.equal(part.values, (part.points.norm(dim=-1) < radius).float())


def test_a_shape_is_its_file_in_any_company(folder: Path) -> None:
    signals = PointFilesConfig(path=folder).open()
    together = signals.shapes.read([3, 0, 5], "fit")

    for row, position in enumerate([3, 0, 5]):
        alone = signals.shapes.read([position], "fit")
        assert torch.equal(alone.uniform.points[0], together.uniform.points[row])
        assert torch.equal(alone.near_surface.values[0], together.near_surface.values[row])
        place = sorted(folder.rglob("*.npz"))[int(signals.indices[position])]
        stored = np.load(place)["random_points"]
        assert rows(alone.uniform.points[0]) < rows(torch.from_numpy(stored))


def test_files_are_cut_to_the_configured_numbers(folder: Path) -> None:
    config = PointFilesConfig(path=folder, num_uniform=100, num_near_surface=50, held_out_share=0.2)
    shapes = config.open().shapes

    fit, held = shapes.read([0, 1], "fit"), shapes.read([0, 1], "held-out")
    assert (fit.uniform.points.shape, fit.near_surface.values.shape) == ((2, 80, 3), (2, 40))
    assert (held.uniform.points.shape, held.near_surface.values.shape) == ((2, 20, 3), (2, 10))


def test_a_file_with_fewer_points_is_named(folder: Path) -> None:
    write(folder / "small" / "9.npz", ball(0.3, size=300))
    signals = PointFilesConfig(path=folder).open()

    expected = r"9\.npz has 300 uniform points, 400 are taken .* set num_uniform to 300"
    with pytest.raises(SignalError, match=expected):
        signals.shapes.read(range(len(signals)), "fit")


def test_packed_files_of_occupancy_networks_are_read(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "chair" / str(i) / "points.npz", occnet(0.4))
        write(tmp_path / "chair" / str(i) / "pointcloud.npz", {"points": np.zeros((5, 3))})
    signals = PointFilesConfig(path=tmp_path).open()
    assert len(signals) == 3

    fit, held = signals.shapes.read([0], "fit"), signals.shapes.read([0], "held-out")
    assert fit.uniform.points.shape == (1, 901, 3)
    assert torch.equal(fit.uniform.values, (fit.uniform.points.norm(dim=-1) < 0.4).float())
    # A quarter of the points stands in for those near the surface: here |r - 0.4| is below 0.15,
    # of up to 0.55 in the corners.
    assert fit.near_surface.points.shape == (1, 225, 3)
    assert (fit.near_surface.points.norm(dim=-1) - 0.4).abs().max() < 0.15
    assert fit.near_surface.values.unique().tolist() == [0.0, 1.0]
    assert rows(fit.near_surface.points[0]) <= rows(fit.uniform.points[0])
    assert rows(held.near_surface.points[0]).isdisjoint(rows(fit.uniform.points[0]))


def test_occupancy_may_be_a_share(tmp_path: Path) -> None:
    content = ball(0.4)
    content["random_points_occupancy"] = np.where(content["random_points_occupancy"], 0.7, 0.2)

    found = read_points(write(tmp_path / "a.npz", content))
    assert np.array_equal(found.uniform[1], (content["random_points_occupancy"] > 0.5))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"random_points_occupancy": None}, "has no array 'random_points_occupancy'"),
        ({"near_surf_points": None}, "has no array 'near_surf_points'"),
        ({"random_points": np.zeros((5, 2))}, r"random_points must be floats of shape \[q, 3\]"),
        ({"random_points": np.zeros((5, 3), dtype=int)}, r"must be floats of shape \[q, 3\]"),
        ({"random_points_occupancy": np.zeros(399)}, r"must be numbers of shape \[400\]"),
        ({"random_points_occupancy": np.full(400, 2.0)}, "goes from 2 to 2, expected 0 to 1"),
        ({"random_points": np.full((400, 3), np.nan)}, "is NaN or infinite"),
        ({"near_surf_points": np.full((200, 3), 0.6)}, "near_surf_points reach to 0.6, expected"),
        ({"random_points": np.array([{}] * 4)}, "holds Python objects, which are not loaded"),
    ],
)
def test_unusable_files_are_refused_in_one_line(
    tmp_path: Path, change: Content, expected: str
) -> None:
    content = {k: v for k, v in (ball(0.4) | change).items() if v is not None}
    path = write(tmp_path / "bad.npz", content)

    with pytest.raises(SignalError, match=expected) as caught:
        read_points(path)
    assert "bad.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_npz_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(pickle.dumps({"random_points": 1}))
    with pytest.raises(SignalError, match=r"is not an \.npz file, or cut short"):
        read_points(path)
    whole = write(tmp_path / "good.npz", ball(0.4)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SignalError, match=r"is not an \.npz file, or cut short"):
        read_points(path)
    middle = len(whole) // 4
    path.write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    with pytest.raises(SignalError, match="is damaged"):
        read_points(path)


def test_a_shape_on_one_side_cannot_have_a_surface(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", occnet(0.0))
    signals = PointFilesConfig(path=tmp_path, validation_size=0, test_size=0).open()

    with pytest.raises(SignalError, match="all points lie on one side"):
        signals.shapes.read([0], "fit")


def test_the_recorded_configuration_opens_the_same_shapes(folder: Path) -> None:
    signals = PointFilesConfig(path=folder, split_seed=3).open()
    assert signals.config is not None

    again = config_from_mapping(PointFilesConfig, signals.config).open()
    assert again.fingerprint == signals.fingerprint
    assert pickle.loads(pickle.dumps(signals)).fingerprint == signals.fingerprint
    assert PointFilesConfig(path=folder).open().fingerprint != signals.fingerprint


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "missing key 'path'"),
        ({"path": "x", "held_out_share": 1.0}, "expected held_out_share above 0"),
        ({"path": "x", "num_uniform": 1}, "expected num_uniform >= 2"),
        ({"path": "x", "split_seed": -1}, "expected split_seed from 0"),
        ({"path": "x", "test_size": 1.5}, "expected test_size to be a number"),
    ],
)
def test_numbers_out_of_range_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        config_from_mapping(PointFilesConfig, {"kind": "point-files", **keys})
