"""Shapes: occupancy and signed distances of solids, from formulas, meshes or point files."""

from nefbench.signals.shapes.base import (
    BOX_SIDE,
    DISTANCE_SCALE,
    PointSamples,
    Quantity,
    Role,
    ShapePool,
    Shapes,
    ShapeSamples,
    ShapeSignals,
)
from nefbench.signals.shapes.meshes import MeshesConfig
from nefbench.signals.shapes.point_files import PointFilesConfig
from nefbench.signals.shapes.procedural import ProceduralShapesConfig

__all__ = [
    "BOX_SIDE",
    "DISTANCE_SCALE",
    "MeshesConfig",
    "PointFilesConfig",
    "PointSamples",
    "ProceduralShapesConfig",
    "Quantity",
    "Role",
    "ShapePool",
    "ShapeSamples",
    "ShapeSignals",
    "Shapes",
]
