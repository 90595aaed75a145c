from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nefbench.plots import ScalingLine, ThroughputRow, throughput_figure
from nefbench.plots.throughput import (
    CONTENDER_STYLES,
    plot_rates,
    plot_scaling,
    plot_shares,
)

ROWS = [
    ThroughputRow("siren 3x32 8x8", {"jax": 20.0, "fused": 300.0}, {"jax": 0.05, "fused": 0.5}),
    ThroughputRow("mlp 3x32 8x8", {"fused": 100.0, "new": 10.0}, {"fused": 0.4, "new": 0.04}),
]
LINES = [
    ScalingLine("fused", "width", [8, 32], [900.0, 300.0]),
    ScalingLine("vmapped", "width", [8, 32], [90.0, 30.0]),
    ScalingLine("fused", "steps", [10, 100], [300.0, 310.0]),
]


@pytest.fixture
def ax() -> Axes:
    axes: Axes = Figure().subplots()
    return axes


def points(ax: Axes) -> dict[str, list[list[float]]]:
    return {str(item.get_label()): item.get_offsets().tolist() for item in ax.collections}  # type: ignore[union-attr]


def test_every_contender_has_a_marker_at_its_rate_in_the_row_of_the_case(ax: Axes) -> None:
    plot_rates(ax, ROWS)

    assert points(ax) == {
        "jax": [[20.0, 0.0]],
        "fused": [[300.0, 0.0], [100.0, 1.0]],
        "new": [[10.0, 1.0]],
    }
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "field-steps / s"
    assert [text.get_text() for text in ax.get_yticklabels()] == [row.name for row in ROWS]
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first case is uppermost


def test_a_line_joins_the_slowest_and_the_fastest_of_a_case(ax: Axes) -> None:
    plot_rates(ax, ROWS)

    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines] == [
        ([20.0, 300.0], [0, 0]), ([10.0, 100.0], [1, 1]),
    ]  # fmt: skip


def test_shares_are_drawn_in_percent_from_zero(ax: Axes) -> None:
    plot_shares(ax, ROWS)

    assert points(ax)["fused"] == [[50.0, 0.0], [40.0, 1.0]]
    assert ax.get_xlim()[0] == 0
    assert ax.get_xlim()[1] > 50
    assert ax.get_xlabel() == "GFLOP/s over peak [%]"


def test_a_scaling_panel_holds_a_line_per_engine_on_logarithmic_axes(ax: Axes) -> None:
    plot_scaling(ax, LINES[:2])

    assert {str(line.get_label()): list(line.get_ydata()) for line in ax.lines} == {
        "fused": [900.0, 300.0], "vmapped": [90.0, 30.0],
    }  # fmt: skip
    assert [list(line.get_xdata()) for line in ax.lines] == [[8, 32], [8, 32]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("hidden width", "field-steps / s")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["8", "32"]


def test_a_contender_looks_the_same_in_every_panel_and_like_no_other(ax: Axes) -> None:
    plot_rates(ax, ROWS)
    colours = {
        str(item.get_label()): to_hex(item.get_facecolor()[0]).upper()  # type: ignore[index]
        for item in ax.collections
    }

    assert colours["fused"] == CONTENDER_STYLES["fused"][0]
    assert len(set(colours.values())) == 3
    for position in (0, 1):  # colour alone or marker alone is enough
        assert len({style[position] for style in CONTENDER_STYLES.values()}) == 6


def test_the_figure_has_a_panel_per_varied_quantity_below_the_two_of_the_cases() -> None:
    figure = throughput_figure(ROWS, LINES, place="one core", scaled="siren 3x32 8x8")

    titles = [ax.get_title() or ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [
        "(a) throughput, one core",
        "(b) share of the measured fp32 peak",
        "(c) scaling, siren 3x32 8x8, one core",
        "",
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["jax", "fused", "new"]


def test_without_scaling_there_are_two_panels() -> None:
    figure = throughput_figure(ROWS, [], place="one core", scaled="siren")

    assert len(figure.axes) == 2
