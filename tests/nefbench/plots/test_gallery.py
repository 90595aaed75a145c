from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
import torch
from torch import Tensor

from nefbench.plots import GalleryRow, gallery_figure, save_figure


def images(count: int, channels: int = 1) -> Tensor:
    """Values in [-0.5, 1.5]: some have to be clipped."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 2, channels, generator=generator) * 2 - 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_drawn_clipped_without_smoothing(channels: int) -> None:
    first, second = images(4, channels), images(4, channels).flip(0)

    figure = gallery_figure([GalleryRow("a", first), GalleryRow("b", second)])

    assert len(figure.axes) == 8
    for ax, image in zip(figure.axes, [*first, *second], strict=True):
        (drawn,) = ax.images
        expected = image.clamp(0, 1)[..., 0] if channels == 1 else image.clamp(0, 1)
        assert torch.equal(torch.as_tensor(drawn.get_array()), expected)
        assert drawn.get_interpolation() == "nearest"
        assert ax.get_aspect() == 1.0


def test_grey_is_the_same_grey_in_every_image() -> None:
    dark = torch.tensor([0.2, 0.3]).reshape(1, 1, 2, 1)

    figure = gallery_figure([GalleryRow("dark", dark)])

    (drawn,) = figure.axes[0].images
    assert drawn.get_clim() == (0, 1)
    assert drawn.get_cmap() == matplotlib.colormaps["gray"]


def test_titles_stand_left_of_the_rows_and_captions_below_the_images() -> None:
    figure = gallery_figure(
        [GalleryRow("original", images(2)), GalleryRow("field", images(2), ["1.5 dB", "2.5 dB"])]
    )

    assert [ax.get_ylabel() for ax in figure.axes] == ["original", "", "field", ""]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "1.5 dB", "2.5 dB"]


def test_images_have_neither_ticks_nor_frames() -> None:
    figure = gallery_figure([GalleryRow("a", images(2))])

    for ax in figure.axes:
        assert list(ax.get_xticks()) == list(ax.get_yticks()) == []
        assert not any(spine.get_visible() for spine in ax.spines.values())


def test_rows_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        gallery_figure([GalleryRow("a", images(2)), GalleryRow("b", images(3))])


def test_class_names_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    figure = gallery_figure([GalleryRow("a", images(1), ["$5 or $_"])])

    save_figure(figure, tmp_path / "a", ["x"], [])

    assert figure.axes[0].get_xlabel() == "$5 or $_"


def test_the_figure_is_as_wide_as_asked_and_higher_with_more_rows() -> None:
    one = gallery_figure([GalleryRow("a", images(4))], width=5.0)
    two = gallery_figure([GalleryRow("a", images(4))] * 2, width=5.0)

    assert one.get_size_inches()[0] == two.get_size_inches()[0] == 5.0
    assert two.get_size_inches()[1] == pytest.approx(2 * one.get_size_inches()[1])
