from __future__ import annotations

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nefbench.plots import Projection, projection_figure
from nefbench.plots.projection import plot_projection
from nefbench.plots.theme import CLASS_COLOURS

POINTS = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], dtype=torch.float64)


def projection(title: str = "shared") -> Projection:
    return Projection(title, POINTS, torch.tensor([1, 0, 1, 2]), (0.25, 0.125))


@pytest.fixture
def ax() -> Axes:
    ax: Axes = Figure().subplots()
    plot_projection(ax, projection(), ["a", "b", "c"])
    return ax


def test_every_class_is_one_cloud_at_its_points(ax: Axes) -> None:
    clouds = {str(cloud.get_label()): cloud.get_offsets().tolist() for cloud in ax.collections}

    assert clouds == {"a": [[2, 3]], "b": [[0, 1], [4, 5]], "c": [[6, 7]]}


def test_every_class_has_its_own_colour(ax: Axes) -> None:
    colours = [to_hex(cloud.get_facecolor()[0]).upper() for cloud in ax.collections]

    assert colours == list(CLASS_COLOURS[:3])


def test_axes_carry_the_share_of_variance(ax: Axes) -> None:
    assert ax.get_xlabel() == "PC 1 (25.0% of variance)"
    assert ax.get_ylabel() == "PC 2 (12.5% of variance)"
    assert ax.get_title() == "shared"


def test_colours_repeat_when_there_are_more_classes_than_colours() -> None:
    ax = Figure().subplots()
    labels = torch.arange(12)

    plot_projection(
        ax, Projection("p", torch.zeros(12, 2), labels, (0.5, 0.5)), [f"c{i}" for i in range(12)]
    )

    colours = [to_hex(cloud.get_facecolor()[0]).upper() for cloud in ax.collections]
    assert colours == [*CLASS_COLOURS, *CLASS_COLOURS[:2]]


def test_projections_stand_side_by_side_with_one_legend() -> None:
    figure = projection_figure(
        [projection("shared"), projection("random")], ["a", "b", "c"], legend="digit"
    )

    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == ["shared", "random"]
    assert left.get_legend() is None
    legend = right.get_legend()
    assert legend is not None
    assert legend.get_title().get_text() == "digit"
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert not left.spines["top"].get_visible()


def test_a_single_projection_is_enough() -> None:
    figure = projection_figure([projection()], ["a", "b", "c"], legend="digit")

    assert len(figure.axes) == 1
