from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from nefbench.plots.study import (
    EpochCourse,
    Panel,
    PointSet,
    StartBars,
    StepPath,
    courses_figure,
    points_figure,
    starts_figure,
    steps_figure,
)

LONG = "random start, fouriernet on a source with a long name"


def panels(count: int) -> list[Panel]:
    return [
        Panel(
            f"panel {index}",
            [
                PointSet("shared start, width 8", [5, 50, 500], [0.2, 0.6, 0.5], joined=True),
                PointSet(LONG, [5, 500], [0.1, 0.2]),
            ],
            ("chance", 0.1),
        )
        for index in range(count)
    ]


def texts_outside(figure: Figure) -> list[str]:
    """Texts of legends and labels that stick out of the figure."""
    figure.draw_without_rendering()
    frame = figure.bbox.padded(1)
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    names = [text for ax in figure.axes for text in (ax.xaxis.label, ax.yaxis.label, ax.title)]
    shown = [t for t in (*legends, *names) if t.get_visible() and t.get_text().strip()]
    return [
        t.get_text()
        for t in shown
        if not (frame.x0 <= t.get_window_extent().x0 and t.get_window_extent().x1 <= frame.x1)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_panel_each_and_one_legend_that_fits(count: int) -> None:
    figure = points_figure(panels(count), x="steps", y="test accuracy", log_x=True)

    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == [f"panel {index}" for index in range(count)]
    assert all(ax.get_xlabel() == "steps" for ax in shown)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["shared start, width 8", LONG, "chance (0.1)"]
    assert texts_outside(figure) == []


def test_a_set_looks_the_same_in_every_panel() -> None:
    first, second = panels(2)
    only = Panel("other", second.lines[1:])

    figure = points_figure([first, only], x="x", y="y")

    markers = {
        line.get_label(): line.get_marker()
        for line in figure.axes[0].lines
        if len(line.get_xdata())
    }
    (line,) = figure.axes[1].lines
    assert line.get_marker() == markers[LONG]
    assert markers[LONG] != markers["shared start, width 8"]


def test_positions_of_a_logarithmic_axis_are_named_by_their_numbers() -> None:
    figure = points_figure(panels(1), x="steps", y="y", log_x=True)

    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["5", "50", "500"]
    assert ax.get_xscale() == "log"


def test_bars_stand_in_pairs_above_their_names_with_whiskers_and_chance() -> None:
    pairs = [
        StartBars("digits", {"random": 0.2, "shared": 0.8}, {"random": 0.01, "shared": 0.1}, 0.1),
        StartBars("other", {"shared": 0.5}, {"shared": 0.0}, 0.25),
    ]

    figure = starts_figure(pairs, spread="mean ± 1 s.d.")

    (ax,) = figure.axes
    heights = {round(bar.get_x() + bar.get_width() / 2, 2): bar.get_height() for bar in ax.patches}
    assert heights == {-0.2: 0.2, 0.2: 0.8, 1.2: 0.5}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["digits", "other"]
    assert texts_outside(figure) == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_paths_have_a_colour_per_number_of_steps_a_marker_per_width_and_hollow_random_starts(
    count: int,
) -> None:
    paths = [
        StepPath("shared", 8, [5, 50], [10.0, 20.0], [0.5, 0.6]),
        StepPath("shared", 64, [5, 50], [12.0, 30.0], [0.7, 0.6]),
        StepPath("random", 8, [5], [9.0], [0.2]),
    ]

    figure = steps_figure(
        [Panel(f"panel {index}", paths, ("chance", 0.1)) for index in range(count)],
        x="PSNR in dB", y="test accuracy",
    )  # fmt: skip

    ax = figure.axes[0]
    points = {
        (line.get_xdata()[0], line.get_ydata()[0]): line
        for line in ax.lines
        if line.get_marker() != "None"
    }
    assert points.keys() == {(10.0, 0.5), (20.0, 0.6), (12.0, 0.7), (30.0, 0.6), (9.0, 0.2)}
    five, fifty, wide, hollow = (
        points[place] for place in ((10.0, 0.5), (20.0, 0.6), (12.0, 0.7), (9.0, 0.2))
    )
    assert five.get_color() == wide.get_color() == hollow.get_color() != fifty.get_color()
    assert five.get_marker() == fifty.get_marker() == hollow.get_marker() != wide.get_marker()
    assert hollow.get_fillstyle() == "none" != five.get_fillstyle()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "5 steps", "50 steps", "width 8", "width 64", "shared start", "random start",
        "chance (0.1)",
    ]  # fmt: skip
    assert texts_outside(figure) == []


def test_courses_show_validation_and_training_in_one_colour_per_classifier() -> None:
    course = EpochCourse("mlp-363k, 363,082 parameters", [0.5, 0.9], [0.4, 0.6])
    other = EpochCourse("gnn-1500k, 1,491,498 parameters", [float("nan")] * 2, [0.2, 0.3])

    figure = courses_figure(
        [
            Panel("mlp", [course], ("chance", 0.1)),
            Panel("gnn", [other], ("chance", 0.1)),
        ]
    )

    validation, training, chance = figure.axes[0].lines
    assert list(validation.get_ydata()) == [0.4, 0.6]
    assert list(training.get_ydata()) == [0.5, 0.9]
    assert validation.get_color() == training.get_color()
    assert validation.get_linestyle() != training.get_linestyle() != chance.get_linestyle()
    assert figure.axes[1].lines[0].get_color() != validation.get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        course.label, other.label, "chance (0.1)", "validation", "training, as seen",
    ]  # fmt: skip
    assert texts_outside(figure) == []
