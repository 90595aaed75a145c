from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.signals import GridSignals, signals_from_array
from nefbench.signals.views import (
    Placement,
    Views,
    check_views,
    draw_placement,
    place,
    view_of,
)

ALL = Views(count=4, flip=True, rotation=30.0, crop=0.6)


def images(count: int, height: int, width: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator)


def points(pictures: Tensor) -> Tensor:
    return pictures.flatten(2).transpose(1, 2).contiguous()


def placed(
    pictures: Tensor,
    *,
    degrees: float = 0.0,
    side: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    mirror: bool = False,
) -> Tensor:
    numbers = (math.radians(degrees), side, *shift, -1.0 if mirror else 1.0)
    columns = [torch.full((len(pictures),), number, dtype=torch.float64) for number in numbers]
    return place(pictures, Placement(*columns))


def test_view_0_is_the_signal_bit_for_bit() -> None:
    values = points(images(3, 5, 4, 2))

    assert torch.equal(view_of(values, (5, 4), ALL, seed=1, indices=[3, 4, 5], view=0), values)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (28, 28), (65, 2)])
def test_a_placement_that_changes_nothing_gives_the_image(shape: tuple[int, int]) -> None:
    pictures = images(2, *shape, 3)

    torch.testing.assert_close(placed(pictures), pictures, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (28, 28), (5, 64)])
def test_a_view_that_is_only_flipped_is_the_mirror_image(shape: tuple[int, int]) -> None:
    pictures = images(40, *shape, 2)
    changed = view_of(
        points(pictures), shape, Views(count=2, flip=True), seed=0, indices=range(40), view=1
    )

    torch.testing.assert_close(changed, points(pictures.flip(-1)), rtol=0, atol=1e-6)


def test_half_of_the_views_that_are_turned_too_are_mirrored() -> None:
    views = Views(count=3, flip=True, rotation=1e-4)
    pictures = images(40, 28, 28, 2)
    changed = view_of(points(pictures), (28, 28), views, seed=0, indices=range(40), view=2)

    same = (changed - points(pictures)).abs().amax((1, 2)) < 1e-3
    mirrored = (changed - points(pictures.flip(-1))).abs().amax((1, 2)) < 1e-3
    assert (same ^ mirrored).all()
    # Forty fair coins: fewer than 8 of a side once in ten thousand draws.
    assert 8 <= int(mirrored.sum()) <= 32


def test_channels_and_signals_keep_their_places() -> None:
    pictures = images(2, 3, 4, 3)

    changed = view_of(
        points(pictures), (3, 4), Views(count=2, flip=True), seed=0, indices=[0, 1], view=1
    )

    for row in range(2):
        restored = changed[row].T.reshape(3, 3, 4)
        torch.testing.assert_close(restored, pictures[row].flip(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
@pytest.mark.parametrize("size", [4, 5, 28])
def test_quarter_turns_of_square_images_are_those_of_torch(quarters: int, size: int) -> None:
    pictures = images(2, size, size, 2)

    turned = placed(pictures, degrees=90.0 * quarters)

    expected = torch.rot90(pictures, quarters, dims=(-2, -1))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-6)


def test_a_mirrored_turn_is_mirrored_after_it_is_turned() -> None:
    pictures = images(1, 6, 6)

    expected = torch.rot90(pictures, 1, dims=(-2, -1)).flip(-1)
    both = placed(pictures, degrees=90, mirror=True)
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-6)


def test_a_half_turn_of_an_oblong_image_reverses_both_axes() -> None:
    pictures = images(2, 4, 7)

    turned = placed(pictures, degrees=180)
    torch.testing.assert_close(turned, pictures.flip(-1, -2), rtol=0, atol=1e-6)


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2).sqrt()
    return (radius - distance).clamp(-1, 1).float()[None, None]


@pytest.mark.parametrize("degrees", [30.0, -90.0, 137.0])
@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40)])
def test_a_turned_disc_stays_round_and_goes_where_it_should(
    height: int, width: int, degrees: float
) -> None:
    middle = ((height - 1) / 2, (width - 1) / 2)
    down, right = 3.0, 9.0
    picture = disc(height, width, (middle[0] + down, middle[1] + right), 6)

    turned = placed(picture, degrees=degrees)

    # Counterclockwise as it is seen, with rows counted downwards.
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    there = (middle[0] + down * cos - right * sin, middle[1] + right * cos + down * sin)
    expected = disc(height, width, there, 6)
    # A slope of 1 per pixel, interpolated: under 0.3 off at its ends; an ellipse is 1 off.
    assert float((turned - expected).abs().max()) < 0.3


def test_a_crop_of_half_the_side_shows_the_pixels_of_that_quarter() -> None:
    # Linear pictures are interpolated exactly: the view shows positions, so it can be read off.
    width, height = 16, 12
    columns = torch.arange(width, dtype=torch.float32).expand(1, 1, height, width)
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(1, 1, height, width)

    across = placed(columns, side=0.5, shift=(0.25, -0.5))[0, 0]
    down = placed(rows, side=0.5, shift=(0.25, -0.5))[0, 0]

    # The window: columns from 6 to 14 and rows from 0 to 6, in sample steps of half a pixel.
    expected_across = 6 + (torch.arange(width) + 0.5) / 2 - 0.5
    expected_down = ((torch.arange(height) + 0.5) / 2 - 0.5).clamp_min(0)
    torch.testing.assert_close(across, expected_across.expand(height, width), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        down, expected_down[:, None].expand(height, width), rtol=0, atol=1e-5
    )


def test_crops_lie_inside_the_image_and_reach_its_edges() -> None:
    drawn = draw_placement(Views(count=2, crop=0.4), 0, range(4000), 1)

    assert drawn.side.dtype == torch.float64
    assert 0.4 <= float(drawn.side.min()) < 0.41
    assert 0.99 < float(drawn.side.max()) <= 1
    for shift in (drawn.shift_x, drawn.shift_y):
        assert float((shift.abs() + drawn.side).max()) <= 1
        assert float((shift.abs() + drawn.side).max()) > 0.999
        assert abs(float(shift.mean())) < 0.02
    assert drawn.angle.abs().max() == 0
    assert bool((drawn.mirror == 1).all())


def test_turns_are_uniform_up_to_the_largest_angle() -> None:
    drawn = draw_placement(Views(count=2, rotation=45), 0, range(4000), 1)

    degrees = drawn.angle.rad2deg()
    assert float(degrees.abs().max()) <= 45
    # Standard deviation of a uniform draw: 90 / sqrt(12) = 25.98.
    assert float(degrees.std()) == pytest.approx(25.98, rel=0.03)
    assert abs(float(degrees.mean())) < 1.5
    assert (drawn.side == 1).all()
    assert (drawn.shift_x == 0).all()


def test_what_is_drawn_is_drawn_independently() -> None:
    drawn = draw_placement(ALL, 0, range(4000), 1)

    parts = [drawn.angle, drawn.side, drawn.mirror, drawn.shift_x / (1.001 - drawn.side),
             drawn.shift_y / (1.001 - drawn.side)]  # fmt: skip
    correlation = torch.corrcoef(torch.stack(parts))
    assert float((correlation - torch.eye(5, dtype=torch.float64)).abs().max()) < 0.06


@pytest.mark.parametrize("shape", [(9, 9), (6, 11)])
def test_values_stay_within_those_of_the_image(shape: tuple[int, int]) -> None:
    values = points(images(50, *shape, 2)) * 2 - 1

    for view in range(1, 4):
        changed = view_of(values, shape, ALL, seed=0, indices=range(50), view=view)
        assert bool((changed.amax(1) <= values.amax(1)).all())
        assert bool((changed.amin(1) >= values.amin(1)).all())


def test_a_view_does_not_depend_on_the_company() -> None:
    values = points(images(7, 8, 6, 2))
    indices = [4, 9, 2, 0, 77, 5, 123_456]
    whole = view_of(values, (8, 6), ALL, seed=3, indices=indices, view=2)

    for row, index in enumerate(indices):
        alone = view_of(values[row : row + 1], (8, 6), ALL, seed=3, indices=[index], view=2)
        assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize("change", [{"view": 3}, {"seed": 1}, {"indices": [8]}])
def test_another_view_seed_or_signal_is_changed_otherwise(change: dict[str, Any]) -> None:
    values = points(images(1, 8, 8))
    address: dict[str, Any] = {"seed": 0, "indices": [7], "view": 2}

    first = view_of(values, (8, 8), ALL, **address)

    assert torch.equal(view_of(values, (8, 8), ALL, **address), first)
    assert not torch.allclose(view_of(values, (8, 8), ALL, **{**address, **change}), first)


def test_a_view_has_the_shape_and_type_of_the_signal() -> None:
    changed = view_of(points(images(2, 5, 9, 3)), (5, 9), ALL, seed=0, indices=[0, 1], view=1)

    assert (changed.shape, changed.dtype) == ((2, 45, 3), torch.float32)
    assert changed.is_contiguous()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"count": 0}, "expected count >= 1 (got 0)"),
        ({"rotation": -1.0}, "expected a rotation from 0 to 180 degrees (got -1.0)"),
        ({"rotation": 181.0}, "expected a rotation from 0 to 180 degrees (got 181.0)"),
        ({"rotation": math.nan}, "expected a rotation from 0 to 180 degrees (got nan)"),
        ({"crop": 0.0}, "expected 0 < crop <= 1 (got 0.0)"),
        ({"crop": 1.5}, "expected 0 < crop <= 1 (got 1.5)"),
        ({"crop": math.nan}, "expected 0 < crop <= 1 (got nan)"),
        ({}, "these views are all the same: set flip, rotation or crop"),
        (
            {"count": 3, "flip": True},
            "a flip alone gives two views, the image and its mirror image (got count 3); "
            "set count to 2, or set rotation or crop",
        ),
    ],
)
def test_views_that_cannot_be_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        Views(**{"count": 2, **keys})
    assert str(caught.value) == expected


def grid_signals(*shape: int) -> GridSignals:
    return signals_from_array(np.random.default_rng(0).random((2, *shape)))


def test_views_are_made_of_images_only() -> None:
    check_views(grid_signals(3, 4, 1), ALL)
    check_views(grid_signals(5, 1), None)
    check_views(grid_signals(5, 1), Views(count=1))

    for signals in (grid_signals(5, 1), grid_signals(2, 3, 2, 1), object()):
        with pytest.raises(SignalError, match=r"^views are made of images; these"):
            check_views(signals, ALL)
