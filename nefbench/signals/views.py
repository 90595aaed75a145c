"""Views: changed copies of an image, as more signals of the same class.

A view is a function of (seed, signal index, view number). View 0 is the signal itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.seeding import random_words
from nefbench.signals.base import GridSignals


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """How training images are changed: cropped and scaled back to their size, turned, mirrored."""

    count: int
    """Fields per training signal, the unchanged one included."""
    flip: bool = False
    """Whether views are mirrored left to right: with probability one half, or always if they are
    neither turned nor cropped."""
    rotation: float = 0.0
    """Largest angle in degrees, either way, uniform."""
    crop: float = 1.0
    """Smallest side of the cropped part, as a share of the image's; uniform from it to 1."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"expected count >= 1 (got {self.count})")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"expected a rotation from 0 to 180 degrees (got {self.rotation})")
        if not 0 < self.crop <= 1:
            raise ValueError(f"expected 0 < crop <= 1 (got {self.crop})")
        if self.count > 1 and not self.flip and not self.rotation and self.crop == 1:
            raise ValueError("these views are all the same: set flip, rotation or crop")
        if self.count > 2 and self.only_flips:
            raise ValueError(
                f"a flip alone gives two views, the image and its mirror image (got count "
                f"{self.count}); set count to 2, or set rotation or crop"
            )

    @property
    def only_flips(self) -> bool:
        """Whether views differ in nothing else: then view 1 is the mirror image."""
        return self.flip and not self.rotation and self.crop == 1


@dataclass(frozen=True)
class Placement:
    """What part of each of ``n`` images a view shows, and how; float64 ``[n]`` each.

    Attributes:
        angle: By which the picture is turned, counterclockwise as it is seen, in radians.
        side: Side of the cropped part, as a share of the image's.
        shift_x: Centre of the cropped part, right of the image's centre, in half widths.
        shift_y: Likewise, below it, in half heights.
        mirror: -1 where the picture, cropped and turned, is mirrored left to right, else 1.
    """

    angle: Tensor
    side: Tensor
    shift_x: Tensor
    shift_y: Tensor
    mirror: Tensor


def check_views(signals: object, views: Views | None) -> None:
    """Raise ``SignalError`` if views are asked of something other than images."""
    if views is None or views.count == 1:
        return
    if not isinstance(signals, GridSignals) or len(signals.grid_shape) != 2:
        raise SignalError("views are made of images; these signals are not: leave views out")


def view_of(
    values: Tensor,
    grid_shape: Sequence[int],
    views: Views,
    *,
    seed: int,
    indices: Sequence[int],
    view: int,
) -> Tensor:
    """Return one view of each image, by bilinear interpolation; edges are repeated outside.

    Args:
        values: Raw values ``[n, H * W, c]``, points row by row.
        grid_shape: Height and width.
        views: How far images are changed.
        seed: Of the draws.
        indices: Index of every signal.
        view: Number of the view; 0 returns the values as they are.
    """
    if view == 0:
        return values
    height, width = grid_shape
    images = values.transpose(1, 2).unflatten(2, (height, width))
    changed = place(images, draw_placement(views, seed, indices, view))
    return changed.flatten(2).transpose(1, 2).contiguous()


def draw_placement(views: Views, seed: int, indices: Sequence[int], view: int) -> Placement:
    """Draw what a view shows of each signal; the cropped part lies inside the image."""
    words = random_words(seed, "fit/views", indices, 5, view)
    unit = torch.from_numpy((words >> np.uint64(8)).astype(np.float64)) * 2.0**-24
    mirrored = 1.0 if views.only_flips else 0.5 * views.flip  # the probability
    side = views.crop + (1 - views.crop) * unit[:, 2]
    return Placement(
        angle=(2 * unit[:, 1] - 1) * math.radians(views.rotation),
        side=side,
        shift_x=(1 - side) * (2 * unit[:, 3] - 1),
        shift_y=(1 - side) * (2 * unit[:, 4] - 1),
        mirror=torch.where(unit[:, 0] < mirrored, -1.0, 1.0).double(),
    )


def place(images: Tensor, placement: Placement) -> Tensor:
    """Show a part of each image ``[n, c, H, W]`` in an image of the same shape.

    A turned part may reach over the edge, where the outermost pixels are repeated. Positions are
    computed in float64: an image that is only mirrored keeps its values to twelve digits.
    """
    height, width = images.shape[-2:]
    positions = F.affine_grid(
        _affine(placement, height, width), list(images.shape), align_corners=False
    )
    changed = F.grid_sample(
        images.double(), positions, mode="bilinear", padding_mode="border", align_corners=False
    )
    return changed.to(images.dtype)


def _affine(placement: Placement, height: int, width: int) -> Tensor:
    """Map positions in the view to positions in the image, both from -1 to 1: ``[n, 2, 3]``.

    With ``u = mirror * x``: ``W x' = side * (W u cos - H y sin) + W shift_x`` and
    ``H y' = side * (W u sin + H y cos) + H shift_y``.
    """
    side, mirror = placement.side, placement.mirror
    cos, sin = torch.cos(placement.angle), torch.sin(placement.angle)
    ratio = height / width  # a turn is one of the pixels, not of the unit square
    rows = [
        torch.stack([side * cos * mirror, -side * sin * ratio, placement.shift_x], dim=1),
        torch.stack([side * sin * mirror / ratio, side * cos, placement.shift_y], dim=1),
    ]
    return torch.stack(rows, dim=1)
