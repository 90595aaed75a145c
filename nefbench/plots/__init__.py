"""Figures: numbers in, artists out; nothing here reads files or computes statistics."""

from nefbench.plots.accuracy import AccuracyBar, accuracy_figure
from nefbench.plots.gallery import GalleryRow, gallery_figure
from nefbench.plots.projection import Projection, projection_figure
from nefbench.plots.theme import save_figure
from nefbench.plots.throughput import ScalingLine, ThroughputRow, throughput_figure

__all__ = [
    "AccuracyBar",
    "GalleryRow",
    "Projection",
    "ScalingLine",
    "ThroughputRow",
    "accuracy_figure",
    "gallery_figure",
    "projection_figure",
    "save_figure",
    "throughput_figure",
]
