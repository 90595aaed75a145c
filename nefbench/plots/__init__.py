"""Figures: numbers in, artists out; nothing here reads files or computes statistics."""

from nefbench.plots.accuracy import AccuracyBar, accuracy_figure
from nefbench.plots.gallery import GalleryRow, gallery_figure
from nefbench.plots.lines import LinePanel, lines_figure
from nefbench.plots.projection import Projection, projection_figure
from nefbench.plots.surfaces import ShadedSurface, surfaces_figure
from nefbench.plots.theme import save_figure, save_picture
from nefbench.plots.throughput import ScalingLine, ThroughputRow, throughput_figure
from nefbench.plots.training import (
    LearningCurve,
    ReliabilityBar,
    calibration_figure,
    confusion_figure,
    learning_curves_figure,
)
from nefbench.plots.training_rate import training_rate_figure

__all__ = [
    "AccuracyBar",
    "GalleryRow",
    "LearningCurve",
    "LinePanel",
    "Projection",
    "ReliabilityBar",
    "ScalingLine",
    "ShadedSurface",
    "ThroughputRow",
    "accuracy_figure",
    "calibration_figure",
    "confusion_figure",
    "gallery_figure",
    "learning_curves_figure",
    "lines_figure",
    "projection_figure",
    "save_figure",
    "save_picture",
    "surfaces_figure",
    "throughput_figure",
    "training_rate_figure",
]
