"""Sources of signals: one file each, one line each in ``SignalsConfig``."""

from nefbench.signals.array import signals_from_array
from nefbench.signals.array_file import ArrayFileConfig
from nefbench.signals.audio import AudioConfig
from nefbench.signals.base import SPLIT_NAMES, GridSignals, Signals, Split, grid_coords
from nefbench.signals.digits import DigitsConfig
from nefbench.signals.images import ImagesConfig
from nefbench.signals.micro_imagenet import MicroImageNetConfig
from nefbench.signals.patches import PatchesConfig
from nefbench.signals.shapes import (
    MeshesConfig,
    PointFilesConfig,
    ProceduralShapesConfig,
    ShapeSignals,
)
from nefbench.signals.views import Views

SignalsConfig = (
    DigitsConfig
    | PatchesConfig
    | ProceduralShapesConfig
    | ImagesConfig
    | MicroImageNetConfig
    | MeshesConfig
    | PointFilesConfig
    | AudioConfig
    | ArrayFileConfig
)
"""Every source that can be named in a configuration."""

__all__ = [
    "SPLIT_NAMES",
    "ArrayFileConfig",
    "AudioConfig",
    "DigitsConfig",
    "GridSignals",
    "ImagesConfig",
    "MeshesConfig",
    "MicroImageNetConfig",
    "PatchesConfig",
    "PointFilesConfig",
    "ProceduralShapesConfig",
    "ShapeSignals",
    "Signals",
    "SignalsConfig",
    "Split",
    "Views",
    "grid_coords",
    "signals_from_array",
]
