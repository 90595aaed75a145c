"""Shapes from files of points, as fit-a-nef and Occupancy Networks store them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.seeding import random_words
from nefbench.signals.class_folders import list_class_files
from nefbench.signals.shapes.base import (
    BOX_SIDE,
    PointSamples,
    Role,
    ShapeSamples,
    ShapeSignals,
)
from nefbench.signals.splits import check_split_sizes

_SLACK = 1e-3
"""Points may lie this far outside the box: files hold half precision."""
_NEAR_SHARE = 4
"""Where a file has no points near the surface, one in so many of its points count as such."""
# Beside the points of a shape, Occupancy Networks keep its surface in a file of this name.
_NO_SHAPES = ("pointcloud.npz",)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointFilesConfig:
    """A folder of ``.npz`` files of points with their occupancy, one file per shape.

    Keys of a file: ``random_points`` and ``near_surf_points`` of shape ``[q, 3]``, and
    ``random_points_occupancy`` and ``near_surf_points_occupancy`` of shape ``[q]``; or ``points``
    and ``occupancies`` (packed bits allowed). The latter have no points near the surface: the
    quarter of the points that is closest to a point of the other side counts as such.

    Files lie in ``<path>/<class>/…``, or directly in ``path`` and have no class. All of it may lie
    in a folder ``train``, beside folders ``validation`` and ``test``; splits without one are drawn.
    """

    kind: Literal["point-files"] = "point-files"
    path: Path
    """The folder."""
    name: str | None = None
    """What a reader calls it; the folder's name if left out."""
    num_uniform: int | None = None
    """Uniform points taken of every file; as many as the first file has if left out."""
    num_near_surface: int | None = None
    """Points near the surface taken of every file; as many as the first has if left out."""
    held_out_share: float = 0.1
    """Share of these points that is never fitted to: quality is measured there."""
    validation_size: float = 0.1
    """Shapes in the validation split: a number, a share below 1 of the training files, or 0 for no
    such split. Not used where there is a folder ``validation``."""
    test_size: float = 0.2
    """Shapes in the test split, likewise."""
    split_seed: int = 0
    """Seed of the permutations that assign shapes to splits and points to roles."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out_share < 1:
            raise ValueError(
                f"expected held_out_share above 0 and below 1 (got {self.held_out_share})"
            )
        for name in ("num_uniform", "num_near_surface"):
            size = getattr(self, name)
            if size is not None and size < 2:
                raise ValueError(f"expected {name} >= 2 (got {size})")
        check_split_sizes(self.validation_size, self.test_size, self.split_seed)

    def open(self) -> ShapeSignals:
        """List the files and read the first; the others are read when they are needed."""
        folder = self.path.expanduser()
        files = list_class_files(
            folder,
            [".npz"],
            validation_size=self.validation_size,
            test_size=self.test_size,
            split_seed=self.split_seed,
            stream="shapes/splits",
            ignored_names=_NO_SHAPES,
        )
        first = read_points(files.paths[int(files.indices.argmin())])
        num_uniform = self.num_uniform or len(first.uniform[0])
        if first.near_surface is not None:
            num_near = len(first.near_surface[0])
        else:
            num_near = max(2, num_uniform // _NEAR_SHARE)
        shapes = PointFiles(
            paths=files.paths,
            indices=tuple(files.indices.tolist()),
            num_uniform=num_uniform,
            num_near_surface=self.num_near_surface or num_near,
            held_out_share=self.held_out_share,
            seed=self.split_seed,
        )
        return ShapeSignals(
            name=self.name or folder.resolve().name,
            source=f"point files in {folder.resolve().name}",
            indices=files.indices,
            splits=files.splits,
            labels=files.labels,
            class_names=files.class_names,
            config=config_to_mapping(self),
            shapes=shapes,
        )


@dataclass(frozen=True)
class PointFile:
    """Content of one file.

    Attributes:
        uniform: Points ``[q, 3]`` and their occupancy ``[q]``, 0 or 1.
        near_surface: The same near the surface; None where the file has none.
    """

    uniform: tuple[Array, Array]
    near_surface: tuple[Array, Array] | None


@dataclass(frozen=True)
class PointFiles:
    """Samples read from files.

    Attributes:
        paths: One file per shape.
        indices: Index of every shape, from which its points' order is drawn.
        num_uniform: Uniform points of a shape, held-out ones included.
        num_near_surface: The same near the surface.
        held_out_share: Share of the points that is held out.
        seed: Of the points' order.
    """

    paths: tuple[Path, ...]
    indices: tuple[int, ...]
    num_uniform: int
    num_near_surface: int
    held_out_share: float
    seed: int

    def __len__(self) -> int:
        """Number of shapes ``N``."""
        return len(self.paths)

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        """Read the files of shapes.

        Raises:
            SignalError: If a file cannot be read, or holds fewer points than are taken of each.
        """
        found = [self._shape(position, role) for position in positions]
        return ShapeSamples(
            *(
                PointSamples(
                    torch.stack([torch.from_numpy(shape[kind][0]) for shape in found]),
                    torch.stack([torch.from_numpy(shape[kind][1]) for shape in found]),
                )
                for kind in (0, 1)
            )
        )

    def _shape(self, position: int, role: Role) -> list[tuple[Array, Array]]:
        path, index = self.paths[position], self.indices[position]
        file = read_points(path)
        uniform = self._part(file.uniform, self.num_uniform, index, role, path, "uniform")
        if file.near_surface is not None:
            near = self._part(
                file.near_surface, self.num_near_surface, index, role, path, "near_surface"
            )
        else:
            size = len(self._role(np.arange(self.num_near_surface), role))
            near = _closest_to_other_side(uniform, size, path)
        return [uniform, near]

    def _part(
        self,
        part: tuple[Array, Array],
        size: int,
        index: int,
        role: Role,
        path: Path,
        kind: str,
    ) -> tuple[Array, Array]:
        points, values = part
        if len(points) < size:
            raise SignalError(
                f"{path} has {len(points)} {kind.replace('_', '-')} points, {size} are taken of "
                f"every file; set num_{kind} to {len(points)} or leave this file out"
            )
        words = random_words(self.seed, f"shapes/roles/{kind}", [index], len(points))[0]
        chosen = self._role(words.argsort(kind="stable")[:size], role)
        return points[chosen], values[chosen]

    def _role(self, order: npt.NDArray[Any], role: Role) -> npt.NDArray[Any]:
        held_out = min(max(1, round(self.held_out_share * len(order))), len(order) - 1)
        return order[:held_out] if role == "held-out" else order[held_out:]


def read_points(path: Path) -> PointFile:
    """Read and check one file; pickled content is never loaded.

    Raises:
        SignalError: If it is not such a file, or its points or values are unusable.
    """
    arrays = _load(path)
    if "random_points" in arrays or "near_surf_points" in arrays:
        names = [
            ("random_points", "random_points_occupancy"),
            ("near_surf_points", "near_surf_points_occupancy"),
        ]
    else:
        names = [("points", "occupancies")]
    missing = [key for pair in names for key in pair if key not in arrays]
    if missing:
        raise SignalError(
            f"{path} has no array {missing[0]!r} (it has {', '.join(arrays) or 'none'}); expected "
            f"random_points, near_surf_points and their _occupancy, or points and occupancies"
        )
    uniform, *near = [
        _checked(arrays[points], arrays[values], path, points) for points, values in names
    ]
    return PointFile(uniform, near[0] if near else None)


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise SignalError(f"{path} is not an .npz file, or cut short; write it with numpy.savez")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise SignalError(
                f"{path} holds Python objects, which are not loaded; save plain arrays"
            ) from error
        raise SignalError(f"{path} is damaged ({error}); write it again") from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise SignalError(f"{path} is damaged ({error}); write it again") from error


def _checked(
    points: npt.NDArray[Any], values: npt.NDArray[Any], path: Path, name: str
) -> tuple[Array, Array]:
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or points.dtype.kind != "f":
        raise SignalError(
            f"{path}: {name} must be floats of shape [q, 3] "
            f"(got {points.dtype} of shape {list(points.shape)})"
        )
    size = len(points)
    if values.dtype == np.uint8 and values.ndim == 1 and len(values) == -(-size // 8) != size:
        values = np.unpackbits(values)[:size]
    if values.shape == (size, 1):
        values = values[:, 0]
    if values.shape != (size,) or values.dtype.kind not in "biuf":
        raise SignalError(
            f"{path}: the occupancy of {name} must be numbers of shape [{size}] "
            f"(got {values.dtype} of shape {list(values.shape)})"
        )
    points, values = points.astype(np.float32), values.astype(np.float32)
    if not np.isfinite(points).all() or not np.isfinite(values).all():
        raise SignalError(f"{path}: {name} or its occupancy is NaN or infinite; sample it again")
    reach = float(np.abs(points).max())
    if reach > BOX_SIDE / 2 + _SLACK:
        raise SignalError(
            f"{path}: {name} reach to {reach:.4g}, expected coordinates from {-BOX_SIDE / 2:g} to "
            f"{BOX_SIDE / 2:g}; centre the shape and scale its longest side to 1"
        )
    if values.min() < 0 or values.max() > 1:
        raise SignalError(
            f"{path}: the occupancy of {name} goes from {values.min():.4g} to {values.max():.4g}, "
            f"expected 0 to 1"
        )
    return points, (values >= 0.5).astype(np.float32)


def _closest_to_other_side(part: tuple[Array, Array], size: int, path: Path) -> tuple[Array, Array]:
    """Return the points that are closest to a point of the other side, in their old order."""
    from scipy.spatial import cKDTree

    points, values = part
    inside = values >= 0.5
    if inside.all() or not inside.any():
        raise SignalError(f"{path}: all points lie on one side of the surface; leave it out")
    if size > len(points):
        raise SignalError(
            f"{path} has no near_surf_points, and {len(points)} others of which {size} are to be "
            f"taken instead; lower num_near_surface"
        )
    distance = np.empty(len(points))
    for side in (inside, ~inside):
        distance[side] = cKDTree(points[~side]).query(points[side])[0]
    chosen = np.sort(distance.argsort(kind="stable")[:size])
    return points[chosen], values[chosen]
