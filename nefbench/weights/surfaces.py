"""Surfaces of shapes as triangle meshes, and the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nefbench import files
from nefbench.errors import MissingDependencyError
from nefbench.signals.shapes import BOX_SIDE
from nefbench.weights.dataset import NeuralDataset


@dataclass(frozen=True)
class Mesh:
    """Triangles; those of a closed surface have their corners anticlockwise seen from outside.

    Attributes:
        vertices: ``[V, 3]``, float32, in coordinates (x, y, z) of the shape.
        faces: Indices of corners, int64 ``[F, 3]``.
    """

    vertices: Tensor
    faces: Tensor

    @property
    def is_empty(self) -> bool:
        """Whether there is no surface."""
        return not len(self.faces)


_NOTHING = Mesh(torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64))


def surface(values: Tensor, level: float, *, inside: Literal["above", "below"] = "above") -> Mesh:
    """Extract the surface on which a grid's values have a level, by marching cubes.

    Source: Lewiner et al. 2003, whose surfaces have no cracks, as done by scikit-image. Around the
    grid lies one more layer that is outside, so every surface is closed.

    Args:
        values: ``[nz, ny, nx]`` over the cube of side ``BOX_SIDE`` around the origin, first and
            last sample of every axis on its faces.
        level: The value on the surface.
        inside: Which values are inside.

    Returns:
        The surface, without any triangle if all of the cube is outside.

    Raises:
        ValueError: If a side has fewer than two samples or a value is not finite.
        MissingDependencyError: If scikit-image is not installed.
    """
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(f"expected a grid of at least 2x2x2 (got {tuple(values.shape)})")
    if not bool(values.isfinite().all()):
        raise ValueError("expected finite values; a field that diverged has no surface")
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingDependencyError("a mesh of a shape", "scikit-image", "shapes") from error
    height = values.detach().cpu().double().permute(2, 1, 0).numpy() - level
    height = height if inside == "above" else -height
    if height.max() <= 0:
        return _NOTHING
    largest = np.abs(height).max()
    height[height == 0] = -1e-6 * largest  # a corner exactly on the surface would tear it
    padded = np.pad(height, 1, constant_values=-largest)
    spacing = [BOX_SIDE / (side - 1) for side in height.shape]
    corners, triangles, _, _ = marching_cubes(
        padded, 0.0, spacing=spacing, gradient_direction="ascent"
    )
    vertices = corners - np.asarray(spacing) - BOX_SIDE / 2
    return Mesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(triangles.astype(np.int64)),
    )


def field_surface(
    dataset: NeuralDataset, row: Tensor, grid_shape: Sequence[int] | None = None
) -> Mesh:
    """Extract the surface of one field of a shape, weights ``[P]``; see ``surface``.

    For occupancy it is where the probability is 0.5, found as the logit 0: a logit is nearly linear
    across the surface and a probability a step, which interpolation would round to half a cell. A
    field with values that are not finite has no surface.

    Raises:
        ValueError: If the fields are not of shapes, or the grid is not one of three dimensions.
        MissingDependencyError: If scikit-image is not installed.
    """
    if not dataset.is_of_shapes:
        raise ValueError("expected fields of shapes; fields of other signals have no surface")
    outputs = dataset.outputs(row[None], grid_shape)[0, ..., 0]
    if not bool(outputs.isfinite().all()):
        return _NOTHING
    is_occupancy = dataset.entry.signals.output == "occupancy"
    return surface(outputs, 0.0, inside="above" if is_occupancy else "below")


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Write a mesh as OBJ, PLY (binary), STL (binary) or OFF, by the ending of ``path``; atomic.

    The same mesh gives the same bytes. Numbers are float32 in PLY and STL and have as many digits
    as tell any two float32 apart in the others.

    Raises:
        ValueError: If the ending is another one.
    """
    if path.suffix not in _ENCODERS:
        raise ValueError(f"expected a file ending of {', '.join(_ENCODERS)} (got {path.name!r})")
    vertices = mesh.vertices.numpy().astype("<f4")
    files.write_bytes(path, _ENCODERS[path.suffix](vertices, mesh.faces.numpy().astype("<i4")))


def _obj(vertices: Any, faces: Any) -> bytes:
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]  # counted from 1
    return "".join(f"{line}\n" for line in lines).encode()


def _off(vertices: Any, faces: Any) -> bytes:
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0"]
    lines += [f"{x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
    lines += [f"3 {a} {b} {c}" for a, b, c in faces.tolist()]
    return "".join(f"{line}\n" for line in lines).encode()


def _ply(vertices: Any, faces: Any) -> bytes:
    lines = [
        "ply", "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(faces)}", "property list uchar int vertex_indices",
        "end_header",
    ]  # fmt: skip
    records = np.zeros(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    records["count"], records["corners"] = 3, faces
    head = "".join(f"{line}\n" for line in lines).encode()
    return b"".join((head, vertices.tobytes(), records.tobytes()))


def _stl(vertices: Any, faces: Any) -> bytes:
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    layout = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")]
    records = np.zeros(len(faces), dtype=layout)
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    records["corners"] = corners
    head = b"binary STL".ljust(80) + len(faces).to_bytes(4, "little")
    return head + records.tobytes()


_ENCODERS: dict[str, Callable[[Any, Any], bytes]] = {
    ".obj": _obj, ".ply": _ply, ".stl": _stl, ".off": _off,
}  # fmt: skip

MESH_ENDINGS = tuple(_ENCODERS)
"""Endings of the files that hold a mesh."""
