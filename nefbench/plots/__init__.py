"""Figures: numbers in, artists out; nothing here reads files or computes statistics."""

from nefbench.plots.accuracy import AccuracyBar, accuracy_figure
from nefbench.plots.gallery import GalleryRow, gallery_figure
from nefbench.plots.lines import LinePanel, lines_figure
from nefbench.plots.projection import Projection, projection_figure
from nefbench.plots.surfaces import ShadedSurface, surfaces_figure
from nefbench.plots.theme import save_figure, save_picture
from nefbench.plots.throughput import ScalingLine, ThroughputRow, throughput_figure

__all__ = [
    "AccuracyBar",
    "GalleryRow",
    "LinePanel",
    "Projection",
    "ScalingLine",
    "ShadedSurface",
    "ThroughputRow",
    "accuracy_figure",
    "gallery_figure",
    "lines_figure",
    "projection_figure",
    "save_figure",
    "save_picture",
    "surfaces_figure",
    "throughput_figure",
]
