"""Shapes from closed meshes: OFF, OBJ, PLY and STL files, read through trimesh."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nefbench import files
from nefbench.config import config_to_mapping
from nefbench.errors import MissingDependencyError, SignalError
from nefbench.seeding import derive_seed
from nefbench.signals.class_folders import list_class_files
from nefbench.signals.shapes.base import (
    BOX_SIDE,
    PointSamples,
    Quantity,
    Role,
    ShapeSamples,
    ShapeSignals,
    check_sampling,
    scale_of,
)
from nefbench.signals.shapes.winding import inside_mesh
from nefbench.signals.splits import check_split_sizes

_ENDINGS = (".off", ".obj", ".ply", ".stl")
_SAMPLING_VERSION = 1
_QUERIES_AT_ONCE = 4_096
_log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshesConfig:
    """A folder of meshes, one file per shape; needs ``pip install 'nefbench[shapes]'``.

    A mesh is centred and scaled so that its longest side goes from -0.5 to 0.5. Inside is where
    it winds around a point, so closed parts that overlap are joined. The points of a file are
    sampled once and kept in ``$XDG_CACHE_HOME/nefbench/shapes`` (``~/.cache/nefbench/shapes``),
    with these defaults about 1 MB per shape. Sampling occupancy takes about a second per 20,000
    faces, signed distances ten times as long.

    Files lie in ``<path>/<class>/…``, or directly in ``path`` and have no class. All of it may lie
    in a folder ``train``, beside folders ``validation`` and ``test``; splits without one are drawn.
    """

    kind: Literal["meshes"] = "meshes"
    path: Path
    """The folder."""
    name: str | None = None
    """What a reader calls it; the folder's name if left out."""
    quantity: Quantity = "occupancy"
    """What a field says: inside or not, or the signed distance."""
    truncation: float | None = None
    """Cut signed distances here, either way (DeepSDF, Park et al. 2019): thin parts get sharper."""
    not_watertight: Literal["refuse", "repair"] = "refuse"
    """Meshes with holes: an error, or fill the holes and turn faces outwards."""
    num_uniform: int = 20_000
    """Points per shape to fit to, uniform in the box."""
    num_near_surface: int = 20_000
    """Points per shape to fit to, near its surface."""
    num_held_out: int = 10_000
    """Other points of each of the two kinds, to measure quality at."""
    noise: float = 0.02
    """Standard deviation of points near the surface, per coordinate."""
    seed: int = 0
    """Seed of the points."""
    validation_size: float = 0.1
    """Shapes in the validation split: a number, a share below 1 of the training files, or 0 for no
    such split. Not used where there is a folder ``validation``."""
    test_size: float = 0.2
    """Shapes in the test split, likewise."""
    split_seed: int = 0
    """Seed of the permutation that assigns shapes to splits."""
    cache: bool = True
    """Whether to keep sampled points on disk."""

    def __post_init__(self) -> None:
        sizes = ("num_uniform", "num_near_surface", "num_held_out")
        num_points = {name: getattr(self, name) for name in sizes}
        check_sampling(self.quantity, self.truncation, num_points, self.noise, self.seed)
        check_split_sizes(self.validation_size, self.test_size, self.split_seed)

    def open(self) -> ShapeSignals:
        """List the files; a mesh is read and sampled when it is needed."""
        _require_trimesh()
        folder = self.path.expanduser()
        found = list_class_files(
            folder,
            _ENDINGS,
            validation_size=self.validation_size,
            test_size=self.test_size,
            split_seed=self.split_seed,
            stream="shapes/splits",
        )
        return ShapeSignals(
            name=self.name or folder.resolve().name,
            source=f"meshes in {folder.resolve().name}",
            indices=found.indices,
            splits=found.splits,
            std=scale_of(self.quantity, self.truncation),
            labels=found.labels,
            class_names=found.class_names,
            config=config_to_mapping(self),
            shapes=Meshes(found.paths, self),
            quantity=self.quantity,
            truncation=self.truncation,
        )


@dataclass(frozen=True)
class Meshes:
    """Samples of meshes in files.

    Attributes:
        paths: One file per shape.
        config: How they are sampled.
    """

    paths: tuple[Path, ...]
    config: MeshesConfig

    def __len__(self) -> int:
        """Number of shapes ``N``."""
        return len(self.paths)

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        """Sample meshes, or load what was sampled before: a function of (seed, file, role).

        Raises:
            SignalError: If a file is no usable mesh.
        """
        found = [sample_file(self.paths[position], self.config, role) for position in positions]
        return ShapeSamples(
            *(
                PointSamples(
                    torch.stack([torch.from_numpy(arrays[name]) for arrays in found]),
                    torch.stack([torch.from_numpy(arrays[f"{name}_values"]) for arrays in found]),
                )
                for name in ("random_points", "near_surf_points")
            )
        )


def sample_file(path: Path, config: MeshesConfig, role: Role) -> Arrays:
    """Return ``random_points``, ``near_surf_points`` and their ``_values`` of one mesh.

    Raises:
        SignalError: If the file is no usable mesh.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    digest = _digest(content, path.suffix.lower(), config, role)
    sizes = (config.num_uniform, config.num_near_surface)
    if role == "held-out":
        sizes = (config.num_held_out, config.num_held_out)
    cached = _read_cached(digest, sizes) if config.cache else None
    if cached is not None:
        return cached
    mesh = load_mesh(content, path, config.not_watertight)
    # The file's content is the address of its draws: a file keeps its points in any folder.
    stream = f"shapes/meshes/{role}/{hashlib.sha256(content).hexdigest()}"
    arrays = _sample(mesh, sizes, config, derive_seed(config.seed, stream))
    if config.cache:
        _write_cached(digest, arrays)
    return arrays


def load_mesh(content: bytes, path: Path, not_watertight: Literal["refuse", "repair"]) -> Any:
    """Return a closed ``trimesh.Trimesh``, centred, its longest side 1.

    Materials, textures and other files that a mesh names are not looked at.

    Raises:
        SignalError: If the content is no mesh, has no extent or is not closed.
    """
    trimesh = _require_trimesh()
    try:
        mesh = trimesh.load_mesh(
            io.BytesIO(content),
            file_type=path.suffix.lower().removeprefix("."),
            process=True,
            skip_materials=True,
        )
    except Exception as error:  # the readers of damaged files raise what comes along
        text = str(error).partition("\n")[0] or type(error).__name__
        raise SignalError(f"{path} is no readable mesh ({text}); export it again") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise SignalError(f"{path} has no faces; leave it out, or export it again as a mesh")
    extents = mesh.extents
    if float(extents.min()) <= 1e-6 * float(extents.max()):
        sides = " x ".join(f"{side:.4g}" for side in extents)
        raise SignalError(f"{path} is flat ({sides}): it has no inside; leave it out")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces(height=None))
    if not _is_closed(mesh):
        mesh = _repaired(mesh, path, not_watertight)
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    mesh.apply_scale(1 / mesh.extents.max())
    if abs(mesh.volume) < 1e-9:
        raise SignalError(f"{path} encloses nothing; leave it out")
    return mesh


def cache_folder() -> Path:
    """Where sampled points are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nefbench" / "shapes"


def _require_trimesh() -> Any:
    try:
        import rtree  # noqa: F401 - trimesh asks for it when it searches the nearest face
        import trimesh
    except ImportError as error:
        raise MissingDependencyError("reading meshes", "trimesh and rtree", "shapes") from error
    return trimesh


def _is_closed(mesh: Any) -> bool:
    return bool(mesh.is_watertight and mesh.is_winding_consistent)


def _repaired(mesh: Any, path: Path, not_watertight: Literal["refuse", "repair"]) -> Any:
    import trimesh

    problem = "has holes" if not mesh.is_watertight else "has faces turned inside out"
    if not_watertight == "refuse":
        raise SignalError(
            f"{path} {problem}, so inside is not defined; close it, leave it out, "
            f"or set not_watertight='repair'"
        )
    before = len(mesh.faces)
    trimesh.repair.fix_normals(mesh, multibody=True)
    trimesh.repair.fill_holes(mesh)  # those of three and four sides
    mesh = _with_fans(mesh)
    trimesh.repair.fix_normals(mesh, multibody=True)
    if not _is_closed(mesh):
        raise SignalError(f"{path} {problem} and could not be repaired; close it or leave it out")
    _log.warning(
        "%s %s: repaired (%d faces added, faces turned outwards)",
        path,
        problem,
        len(mesh.faces) - before,
    )
    return mesh


def _with_fans(mesh: Any) -> Any:
    """Close every hole by triangles from its rim to the middle of the rim's corners."""
    import trimesh
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    vertices, faces, edges = (np.asarray(x) for x in (mesh.vertices, mesh.faces, mesh.edges))
    count = len(vertices)
    there, back = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    rim = edges[~np.isin(there, back)]
    links = coo_matrix((np.ones(len(rim)), (rim[:, 0], rim[:, 1])), shape=(count, count))
    pieces = connected_components(links, directed=False)[1][rim[:, 0]]
    _, hole = np.unique(pieces, return_inverse=True)
    num_holes = int(hole.max(initial=-1)) + 1
    sides = np.bincount(hole, minlength=num_holes)[:, None]
    middles = np.zeros((num_holes, 3))
    np.add.at(middles, hole, vertices[rim[:, 0]])
    fans = np.stack([rim[:, 1], rim[:, 0], count + hole], axis=1)
    return trimesh.Trimesh(
        np.concatenate([vertices, middles / sides]), np.concatenate([faces, fans]), process=False
    )


def _sample(mesh: Any, sizes: tuple[int, int], config: MeshesConfig, seed: int) -> Arrays:
    generator = np.random.Generator(np.random.PCG64(seed))
    uniform = (generator.random((sizes[0], 3)) - 0.5) * BOX_SIDE
    surface = _on_surface(mesh, generator.random((sizes[1], 3)))
    near = surface + config.noise * generator.standard_normal((sizes[1], 3))
    # The few outside the box are mirrored in, as for the embedded shapes.
    near = np.sign(near) * np.minimum(np.abs(near), BOX_SIDE - np.abs(near))
    arrays: Arrays = {}
    for name, points in (("random_points", uniform), ("near_surf_points", near)):
        stored = points.astype(np.float32)
        arrays[name] = stored
        arrays[f"{name}_values"] = _values(mesh, stored.astype(np.float64), config.quantity)
    return arrays


def _on_surface(mesh: Any, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points uniform over the faces from numbers ``[q, 3]`` uniform in [0, 1)."""
    area = np.cumsum(mesh.area_faces)
    faces = np.searchsorted(area, unit[:, 0] * area[-1], side="right")
    corners = np.asarray(mesh.triangles, dtype=np.float64)[faces]
    root, share = np.sqrt(unit[:, 1, None]), unit[:, 2, None]
    return np.asarray(
        (1 - root) * corners[:, 0]
        + root * (1 - share) * corners[:, 1]
        + root * share * corners[:, 2]
    )


def _values(
    mesh: Any, points: npt.NDArray[np.float64], quantity: Quantity
) -> npt.NDArray[np.float32]:
    inside = inside_mesh(np.asarray(mesh.triangles, dtype=np.float64), points)
    if quantity == "occupancy":
        return inside.astype(np.float32)
    import trimesh

    blocks = range(0, len(points), _QUERIES_AT_ONCE)
    distance = np.concatenate(
        [
            trimesh.proximity.closest_point(mesh, points[start : start + _QUERIES_AT_ONCE])[1]
            for start in blocks
        ]
    )
    # trimesh's own signed distance is positive inside; ours is negative there.
    return np.where(inside, -distance, distance).astype(np.float32)


def _digest(content: bytes, ending: str, config: MeshesConfig, role: Role) -> str:
    settings = {
        "version": _SAMPLING_VERSION,
        "ending": ending,
        "role": role,
        "quantity": config.quantity,
        "not_watertight": config.not_watertight,
        "num_uniform": config.num_uniform,
        "num_near_surface": config.num_near_surface,
        "num_held_out": config.num_held_out,
        "noise": config.noise,
        "seed": config.seed,
    }
    head = json.dumps(settings, sort_keys=True).encode() + b"\n"
    return hashlib.sha256(head + content).hexdigest()


def _read_cached(digest: str, sizes: tuple[int, int]) -> Arrays | None:
    """Return what was sampled before; None where it is missing or damaged."""
    expected = {
        "random_points": (sizes[0], 3),
        "random_points_values": (sizes[0],),
        "near_surf_points": (sizes[1], 3),
        "near_surf_points_values": (sizes[1],),
    }
    try:
        path = cache_folder() / f"{digest}.npz"
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in expected}
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # RuntimeError: a user without a home
    fits = all(
        arrays[name].shape == shape and arrays[name].dtype == np.float32
        for name, shape in expected.items()
    )
    return arrays if fits else None


def _write_cached(digest: str, arrays: Mapping[str, Any]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    try:
        files.write_bytes(cache_folder() / f"{digest}.npz", content.getvalue())
    except (OSError, RuntimeError) as error:
        _log.debug("no cache for sampled shapes: %s", error)
