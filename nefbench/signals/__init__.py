"""Sources of signals: one file each, one line each in ``SignalsConfig``."""

from nefbench.signals.array import signals_from_array
from nefbench.signals.base import SPLIT_NAMES, Signals, Split, grid_coords
from nefbench.signals.digits import DigitsConfig
from nefbench.signals.images import ImagesConfig

SignalsConfig = DigitsConfig | ImagesConfig
"""Every source that can be named in a configuration."""

__all__ = [
    "SPLIT_NAMES",
    "DigitsConfig",
    "ImagesConfig",
    "Signals",
    "SignalsConfig",
    "Split",
    "grid_coords",
    "signals_from_array",
]
