from __future__ import annotations

import math

import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from nefbench.plots import (
    LearningCurve,
    ReliabilityBar,
    calibration_figure,
    confusion_figure,
    learning_curves_figure,
)
from nefbench.plots.training import plot_confusion, plot_course, plot_reliability

CURVES = [
    LearningCurve(0, [2.0, None, 0.5], [0.25, 0.5, 0.75], [0.1, 0.05, 0.0], best_epoch=3),
    LearningCurve(7, [1.0], [0.5], [0.1], best_epoch=1),
]
BARS = [
    ReliabilityBar(0.0, 0.5, 0.4, 0.25, 0.2),
    ReliabilityBar(0.5, 1.0, 0.9, 1.0, 0.8),
]


def test_a_course_runs_over_epochs_from_one_with_gaps_where_nothing_is_known() -> None:
    ax = Figure().subplots()
    plot_course(ax, CURVES, [curve.losses for curve in CURVES])

    first, second = ax.lines
    assert list(first.get_xdata()) == [1, 2, 3]
    heights = list(first.get_ydata())
    assert heights[0] == 2.0
    assert math.isnan(heights[1])
    assert [line.get_label() for line in ax.lines] == ["seed 0", "seed 7"]
    assert second.get_marker() == "."  # a single epoch is no line
    assert ax.get_xlabel() == "epoch"


def test_learning_curves_have_three_panels_with_quantities_and_the_level_of_chance() -> None:
    figure = learning_curves_figure(
        CURVES, loss="loss", score="validation accuracy", level=("chance", 0.1)
    )

    left, middle, right = figure.axes
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "loss", "validation accuracy", "learning rate",
    ]  # fmt: skip
    assert list(middle.lines[-1].get_ydata()) == [0.1, 0.1]
    assert list(right.lines[0].get_ydata()) == [0.1, 0.05, 0.0]
    dots = [c for c in middle.collections if isinstance(c, PathCollection)]
    assert [dot.get_offsets().tolist() for dot in dots] == [[[3.0, 0.75]], [[1.0, 0.5]]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["seed 0", "seed 7", "chance (0.1)"]
    assert len(left.lines) == 2


def test_a_confusion_matrix_shows_shares_with_the_class_down_and_what_it_was_taken_for_across(
) -> None:  # fmt: skip
    ax = Figure().subplots()
    plot_confusion(ax, [[0.75, 0.25], [0.004, 0.996]], ["cat", "dog"])

    (image,) = ax.images
    assert image.get_array().tolist() == [[0.75, 0.25], [0.004, 0.996]]
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "75", (1, 0): "25", (0, 1): "<1", (1, 1): "100",
    }  # fmt: skip
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("taken for", "class")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]


def test_many_classes_have_no_numbers_and_only_some_names() -> None:
    count = 100
    names = [f"c{index}" for index in range(count)]
    figure = confusion_figure(
        [[float(i == j) for j in range(count)] for i in range(count)], names, title="t"
    )

    ax = figure.axes[0]
    assert len(ax.texts) == 0
    # every third of 100
    assert [label.get_text() for label in ax.get_xticklabels()] == names[::3]
    assert figure.get_size_inches().tolist() == [7.0, 7.0]
    assert ax.get_title() == "t"


def test_reliability_bars_are_as_high_as_the_accuracy_of_their_bin() -> None:
    ax = Figure().subplots()
    plot_reliability(ax, [*BARS, ReliabilityBar(0.2, 0.3, None, None, 0.0)])

    boxes = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in ax.patches]
    assert boxes == [(0.0, 0.5, 0.25), (0.5, 0.5, 1.0)]
    (dots,) = ax.collections
    assert dots.get_offsets().tolist() == [[0.4, 0.25], [0.9, 1.0]]
    assert list(ax.lines[0].get_ydata()) == [0, 1]


def test_the_lower_panel_of_calibration_is_the_share_of_rows() -> None:
    figure = calibration_figure(BARS, title="t")

    upper, lower = figure.axes
    assert upper.get_title() == "t"
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([0.2, 0.8])
    assert (lower.get_xlabel(), lower.get_ylabel()) == ("confidence", "share of rows")
