from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from nefbench.plots import AccuracyBar, accuracy_figure
from nefbench.plots.accuracy import plot_accuracies
from nefbench.plots.theme import INIT_COLOURS

BARS = [
    AccuracyBar("shared start", 0.9, 0.02),
    AccuracyBar("random start", 0.15, 0.05),
    AccuracyBar("anything else", 0.5, 0.0),
]


@pytest.fixture
def ax() -> Axes:
    ax: Axes = Figure().subplots()
    plot_accuracies(ax, BARS, chance=0.1, num_seeds=3, inputs="weights of digits")
    return ax


def drawn_bars(ax: Axes) -> BarContainer:
    (bars,) = (item for item in ax.containers if isinstance(item, BarContainer))
    return bars


def test_bars_are_as_high_as_the_accuracies_from_left_to_right(ax: Axes) -> None:
    bars = drawn_bars(ax)

    assert [bar.get_height() for bar in bars] == [0.9, 0.15, 0.5]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    assert centres == pytest.approx([0, 1, 2])
    assert [bar.get_y() for bar in bars] == [0, 0, 0]


def test_error_bars_reach_one_standard_deviation_up_and_down(ax: Axes) -> None:
    (lines,) = drawn_bars(ax).errorbar.lines[2]  # type: ignore[union-attr]

    ends = [(segment[0][1], segment[1][1]) for segment in lines.get_segments()]
    assert ends == [
        pytest.approx((0.88, 0.92)), pytest.approx((0.10, 0.20)), pytest.approx((0.5, 0.5)),
    ]  # fmt: skip


def test_every_bar_carries_its_name_and_its_number(ax: Axes) -> None:
    assert [label.get_text() for label in ax.get_xticklabels()] == [bar.name for bar in BARS]
    assert [text.get_text() for text in ax.texts] == ["0.900", "0.150", "0.500"]


def test_the_chance_level_is_a_dashed_line_at_its_height(ax: Axes) -> None:
    (line,) = (line for line in ax.lines if str(line.get_label()).startswith("chance"))

    assert list(line.get_ydata()) == [0.1, 0.1]
    assert line.get_linestyle() == "--"


def test_the_legend_says_what_the_bars_and_the_line_are(ax: Axes) -> None:
    texts = {text.get_text() for text in ax.get_legend().get_texts()}  # type: ignore[union-attr]

    assert texts == {"chance (0.10)", "mean ± 1 s.d. over 3 seeds"}


def test_the_axis_is_test_accuracy_from_zero_with_room_above_one(ax: Axes) -> None:
    assert ax.get_ylabel() == "test accuracy"
    assert ax.get_title() == "weights of digits"
    low, high = ax.get_ylim()
    assert low == 0
    assert high > 1
    assert max(ax.get_yticks()) == 1.0


def test_the_first_word_of_a_name_picks_the_colour(ax: Axes) -> None:
    colours = [to_hex(bar.get_facecolor()).upper() for bar in drawn_bars(ax)]

    assert colours == [INIT_COLOURS["shared"], INIT_COLOURS["random"], "#999999"]


def test_the_figure_holds_one_themed_panel() -> None:
    figure = accuracy_figure(BARS, chance=0.1, num_seeds=3, inputs="weights")

    (ax,) = figure.axes
    assert not ax.spines["top"].get_visible()
    assert [bar.get_height() for bar in drawn_bars(ax)] == [0.9, 0.15, 0.5]
