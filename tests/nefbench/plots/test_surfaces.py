from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nefbench.plots import ShadedSurface, save_picture, surfaces_figure

# A tetrahedron: corners at the origin and one along each axis, faces anticlockwise from outside.
VERTICES = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.5, 0], [0, 0, 0.3]])
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
NOTHING = ShadedSurface(torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64), "empty")


def tetrahedron(caption: str = "") -> ShadedSurface:
    return ShadedSurface(VERTICES, FACES, caption)


def drawn(ax: Any) -> Any:
    """The corners of the triangles in axes of the figure, ``[F, 3, 3]``."""
    (collection,) = ax.collections
    return np.asarray(collection._faces)


def test_up_is_y_and_nothing_is_mirrored() -> None:
    figure = surfaces_figure([tetrahedron()], side=1.1)

    corners = torch.from_numpy(np.array(drawn(figure.axes[0])))
    expected = VERTICES.double()[FACES]
    assert torch.equal(corners[..., 2], expected[..., 1])  # upwards in the figure is y
    a, b, c = (corners[3] - corners[0, 0]).unbind(0)  # the face that is away from the origin
    assert torch.linalg.det(torch.stack([a, b, c])) > 0  # as in the shape itself


def test_tops_are_bright_and_undersides_dark() -> None:
    figure = surfaces_figure([tetrahedron()], side=1.1)

    (collection,) = figure.axes[0].collections
    back, under, left, slope = np.asarray(collection._facecolor3d)[:, :3].sum(1)
    assert under < back < left < slope


def test_every_panel_shows_the_same_cube_from_the_same_side() -> None:
    figure = surfaces_figure([tetrahedron(), NOTHING, tetrahedron()], side=1.1)

    assert len(figure.axes) == 3
    for ax in figure.axes:
        assert ax.get_xlim() == ax.get_ylim() == (-0.55, 0.55)
        assert ax.get_zlim() == (-0.55, 0.55)  # type: ignore[attr-defined]
        assert (ax.elev, ax.azim) == (22.0, 35.0)  # type: ignore[attr-defined]
        assert not ax.axison


def test_an_empty_surface_keeps_its_place_and_caption() -> None:
    figure = surfaces_figure([tetrahedron("a\n$5"), NOTHING], side=1.1)

    assert [len(ax.collections) for ax in figure.axes] == [1, 0]
    assert [text.get_text() for text in figure.texts] == ["a\n$5", "empty"]


@pytest.mark.parametrize(("count", "columns", "rows"), [(5, None, 2), (5, 5, 1), (2, 5, 1)])
def test_panels_stand_row_by_row(count: int, columns: int | None, rows: int) -> None:
    figure = surfaces_figure([tetrahedron()] * count, side=1.1, columns=columns)

    boxes = [ax.get_position() for ax in figure.axes]
    assert len({round(box.y0, 6) for box in boxes}) == rows
    assert boxes[1].x0 > boxes[0].x0
    for box in boxes:
        size = np.array([box.width, box.height]) * figure.get_size_inches()
        assert size[0] == pytest.approx(size[1])
        assert -1e-9 <= box.y0 < box.y1 <= 1 + 1e-9


def test_a_picture_is_one_file_that_does_not_depend_on_the_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_picture(surfaces_figure([tetrahedron("caption")], side=1.1), tmp_path / name)

    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.png", "b.png"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels != 255).any(axis=2).mean() > 0.02  # something is there
