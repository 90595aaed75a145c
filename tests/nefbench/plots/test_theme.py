from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nefbench.plots import AccuracyBar, accuracy_figure, save_figure
from nefbench.plots.theme import CLASS_COLOURS, INIT_COLOURS, new_figure, themed


@themed
def draw() -> Figure:
    figure = new_figure(3.0, 2.0)
    ax = figure.subplots()
    ax.plot([0, 1], [1, 0], label="line")
    ax.set_title("title")
    ax.legend()
    return figure


def settings() -> dict[str, object]:
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams}


def test_a_themed_figure_has_no_box_and_the_common_sizes() -> None:
    figure = draw()

    (ax,) = figure.axes
    visible = {name: spine.get_visible() for name, spine in ax.spines.items()}
    assert visible == {"left": True, "bottom": True, "top": False, "right": False}
    assert ax.title.get_fontsize() == 8
    assert not ax.get_legend().get_frame_on()  # type: ignore[union-attr]
    assert figure.get_size_inches().tolist() == [3.0, 2.0]


def test_the_theme_does_not_leak(tmp_path: Path) -> None:
    before = settings()

    save_figure(draw(), tmp_path / "a", ["x"], [[1]])

    assert settings() == before
    assert new_figure(1, 1).subplots().spines["top"].get_visible()


def test_the_theme_does_not_leak_from_a_figure_that_fails() -> None:
    before = settings()

    @themed
    def fail() -> None:
        assert matplotlib.rcParams["font.size"] == 8
        raise RuntimeError("while drawing")

    with pytest.raises(RuntimeError, match="while drawing"):
        fail()

    assert settings() == before


def test_a_themed_function_keeps_its_name_and_passes_its_arguments() -> None:
    @themed
    def named(first: int, *, second: int) -> tuple[int, int]:
        return first, second

    assert named.__name__ == "named"
    assert named(1, second=2) == (1, 2)


def test_every_colour_is_used_once() -> None:
    assert len(set(CLASS_COLOURS)) == len(CLASS_COLOURS) == 10
    assert len(set(INIT_COLOURS.values())) == len(INIT_COLOURS)


def test_a_figure_is_saved_as_picture_document_and_numbers(tmp_path: Path) -> None:
    paths = save_figure(draw(), tmp_path / "new" / "a.b.png", ["x"], [[1]])

    assert [path.name for path in paths] == ["a.b.png", "a.b.pdf", "a.b.csv"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "a.b.csv", "a.b.pdf", "a.b.png",
    ]  # fmt: skip
    with Image.open(paths[0]) as image:
        assert image.size == (600, 400)  # 200 dots per inch
    assert paths[1].read_bytes().startswith(b"%PDF")


def test_the_table_holds_exactly_the_given_numbers(tmp_path: Path) -> None:
    rows = [("shared, 1", 0.1, 3), ('say "x"', 1 / 3, 4)]

    table = save_figure(draw(), tmp_path / "a", ("name", "value", "count"), rows)[2]

    content = table.read_bytes().decode()
    assert content.startswith("name,value,count\n")
    assert "\r" not in content
    _, *read = csv.reader(io.StringIO(content))
    assert [(name, float(value), int(number)) for name, value, number in read] == rows


def test_the_same_figure_gives_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    bars = [AccuracyBar("shared start", 0.9, 0.01), AccuracyBar("pixels", 0.95, 0.0)]

    def make() -> Figure:
        return accuracy_figure(bars, chance=0.1, num_seeds=3, inputs="weights")

    figure = make()
    contents = [
        [path.read_bytes() for path in save_figure(figure, tmp_path / "first", ["x"], [[1]])],
        [path.read_bytes() for path in save_figure(figure, tmp_path / "again", ["x"], [[1]])],
    ]
    time.sleep(1.1)  # dates in files count in seconds
    contents += [
        [path.read_bytes() for path in save_figure(make(), tmp_path / "later", ["x"], [[1]])]
    ]

    assert contents[0] == contents[1] == contents[2]
    assert b"CreationDate" not in contents[0][1]
