from __future__ import annotations

import pytest

from nefbench.plots import training_rate_figure

CASES = {"R1": {"mlp": 4000.0, "gnn sparse": 10.0, "gnn": 35.0}, "R3": {"mlp": 3900.0, "gnn": 30.0}}


def test_every_rate_is_a_marker_in_the_row_of_its_model() -> None:
    (ax,) = training_rate_figure(CASES, {}, place="Test CPU").axes

    assert [text.get_text() for text in ax.get_yticklabels()] == ["mlp", "gnn sparse", "gnn"]
    first, second = ([list(point) for point in item.get_offsets()] for item in ax.collections)  # type: ignore[union-attr]
    assert [x for x, _ in first] == [4000.0, 10.0, 35.0]
    assert [x for x, _ in second] == [3900.0, 30.0]
    assert [round(float(y)) for _, y in first] == [0, 1, 2]
    assert [round(float(y)) for _, y in second] == [0, 2]
    assert first[0][1] != second[0][1]  # sizes lie beside each other
    assert ax.get_xscale() == "log"
    assert ax.get_title() == "training steps, Test CPU"
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first model is uppermost


def test_a_line_leads_from_the_baseline_and_says_how_many_times_faster() -> None:
    (ax,) = training_rate_figure(CASES, {"gnn": "gnn sparse"}, place="Test CPU").axes

    # R3 has no rate of the baseline
    assert [list(line.get_xdata()) for line in ax.lines] == [[10.0, 35.0]]
    assert [text.get_text() for text in ax.texts] == ["3.5 x gnn sparse"]


@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_sizes_can_be_drawn(count: int) -> None:
    cases = {f"R{number}": {"mlp": 1.0 + number} for number in range(count)}

    (ax,) = training_rate_figure(cases, {}, place="here").axes

    assert len(ax.collections) == count
