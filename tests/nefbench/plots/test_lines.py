from __future__ import annotations

import torch

from nefbench.plots import LinePanel, lines_figure


def test_values_are_drawn_from_one_end_of_the_domain_to_the_other() -> None:
    values = torch.tensor([[0.0], [2.0], [-1.0]])

    figure = lines_figure([LinePanel(values, caption="$a, 1.5 dB")])

    (ax,) = figure.axes
    (line,) = ax.lines
    assert list(line.get_xdata()) == [-1, 0, 1]
    assert list(line.get_ydata()) == [0, 2, -1]
    assert ax.get_title() == "$a, 1.5 dB"
    assert not figure.legends  # one line needs none


def test_samples_are_dots_in_the_colour_of_their_channel() -> None:
    values, samples = torch.rand(5, 2), torch.rand(3, 2)

    figure = lines_figure([LinePanel(values, samples)] * 3)

    first = figure.axes[0]
    assert [line.get_marker() for line in first.lines] == ["None", ".", "None", "."]
    assert list(first.lines[1].get_xdata()) == [-1, 0, 1]
    colours = [line.get_color() for line in first.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "channel 0", "on the fitted grid", "channel 1",
    ]  # fmt: skip


def test_all_panels_have_the_same_axes_and_empty_places_show_nothing() -> None:
    panels = [LinePanel(torch.full((2, 1), float(value))) for value in range(5)]

    figure = lines_figure(panels)

    assert len(figure.axes) == 6
    assert [ax.axison for ax in figure.axes] == [True] * 5 + [False]
    assert len({ax.get_ylim() for ax in figure.axes[:5]}) == 1
    assert figure.get_supxlabel() == "position (the domain is -1 to 1)"
    assert figure.get_supylabel() == "value"
    # a column ends with numbers below it, also where the last place is empty
    labelled = [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes[:5]]
    assert labelled == [False, False, True, True, True]


def test_no_more_columns_than_panels() -> None:
    figure = lines_figure([LinePanel(torch.zeros(2, 1))] * 2, columns=5)

    assert len(figure.axes) == 2
