from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nefbench.plots.study import (
    PointPanel,
    PointSet,
    StartBars,
    points_figure,
    starts_figure,
)

LONG = "random start, fouriernet on a source with a long name"


def panels(count: int) -> list[PointPanel]:
    return [
        PointPanel(
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
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
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
    only = PointPanel("other", second.sets[1:])

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
