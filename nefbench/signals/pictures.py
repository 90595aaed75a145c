"""Encoded pictures to pixels: opened, converted to one colour mode, cropped and resized."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nefbench.errors import SignalError

ColourMode = Literal["L", "RGB"]
_Item = Mapping[str, Any]

_CHANNELS: dict[str, int] = {"1": 1, "L": 1, "RGB": 3}
# More than 8 bits per channel: conversion would clip them without a word.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_TOO_DEEP = "has mode {!r}, more than 8 bits per channel; scale it to 8 bits first"
# What the library says of a file cut short, a broken chunk, a nonsensical header.
_DAMAGE = (OSError, SyntaxError, EOFError, ValueError)


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureRule:
    """How every picture is brought to one size and one colour mode; left out: not at all.

    A crop is a square of the original's pixels at its centre. A picture whose shorter side is less
    than that is first scaled up to it (bilinear, sides in proportion), so a crop is never thinner
    than asked for, and an offset that would leave the picture ends at its edge. Scaling to
    ``size`` is bilinear with antialiasing and never distorts: the picture, or its crop, is scaled
    until it covers ``size``, and its centre is kept. Transparency is dropped.
    """

    crop: int | None = None
    crop_offset: tuple[int, int] = (0, 0)
    size: tuple[int, int] | None = None
    mode: ColourMode | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"expected crop >= 1 (got {self.crop})")
        if self.crop is None and self.crop_offset != (0, 0):
            raise ValueError("crop_offset moves the crop: set crop as well")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"expected a size >= 1 (got {list(self.size)})")

    @property
    def out_size(self) -> tuple[int, int] | None:
        """Height and width of every picture, or None: as it comes."""
        if self.size is not None or self.crop is None:
            return self.size
        return self.crop, self.crop

    @property
    def text(self) -> str:
        """The rule in words, empty for none."""
        parts = []
        if self.crop is not None:
            moved = f" moved by {list(self.crop_offset)}" if any(self.crop_offset) else ""
            parts.append(f"centre crop {self.crop}{moved}")
        if self.size is not None:
            parts.append(f"scaled to {self.size[0]}x{self.size[1]}")
        if self.mode is not None:
            parts.append(self.mode)
        return ", ".join(parts)

    def apply(self, image: Any) -> Any:
        """Return the picture, already in its colour mode, after crop and scaling."""
        if self.crop is not None:
            image = _cropped(image, self.crop, self.crop_offset)
        return image if self.size is None else _scaled(image, self.size)


@dataclass(frozen=True)
class ImageValues:
    """Encoded images in an Arrow table, decoded when they are read.

    Attributes:
        table: A ``datasets.Dataset`` whose image column is not decoded.
        column: Name of the image column.
        size: Height and width of every image, after the rule.
        num_channels: 1 or 3.
        name: For messages.
        rule: What is done to every image.
        remedy: What to do about a damaged image, for messages.
    """

    table: Any
    column: str
    size: tuple[int, int]
    num_channels: int
    name: str
    rule: PictureRule = PictureRule()
    remedy: str = "replace it"

    def __len__(self) -> int:
        """Number of images ``N``."""
        return len(self.table)

    def read(self, positions: Sequence[int]) -> Tensor:
        """Decode images to ``[n, H * W, c]``, float32 in [0, 1]."""
        encoded = self.table[list(positions)][self.column]
        mode: ColourMode = "RGB" if self.num_channels == 3 else "L"
        pixels = np.stack(
            [
                self._decode(item, mode, position)
                for item, position in zip(encoded, positions, strict=True)
            ]
        )
        flat = torch.from_numpy(pixels).reshape(len(pixels), -1, self.num_channels)
        return flat.to(torch.float32) / 255

    def _decode(self, item: _Item | None, mode: ColourMode, position: int) -> Any:
        from PIL import Image

        if item is None or _is_missing(item):
            raise SignalError(
                f"{self.name}: there is no image at position {position}; {self.remedy}"
            )
        where = f"{self.name}: the image at {_place(item, position)}"
        try:
            with Image.open(_stream(item)) as image:
                if image.mode not in _DEEP_MODES:
                    return np.asarray(self.rule.apply(_converted(image, mode)))
                deep = image.mode
        except _DAMAGE as error:
            raise SignalError(f"{where} is damaged; {self.remedy}") from error
        raise SignalError(f"{where} {_TOO_DEEP.format(deep)}")


def image_values(
    table: Any, column: str, name: str, rule: PictureRule, remedy: str = "replace it"
) -> ImageValues:
    """Check the images of a table for one size and one colour mode, and wrap them.

    Headers are read only as far as the rule leaves size or mode open; if it sets both, the first
    one alone.

    Raises:
        SignalError: If an image does not open, or images differ in what the rule leaves open.
    """
    first = _header(table[0][column], name, 0, remedy)
    if rule.out_size is None or rule.mode is None:
        for position, row in enumerate(table):
            other = _header(row[column], name, position, remedy)
            if other != first:
                _require_same(first, other, rule, name, position)
    size, mode = rule.out_size or first[0], rule.mode or first[1]
    if mode in _DEEP_MODES:
        raise SignalError(f"{name}: the image at position 0 {_TOO_DEEP.format(mode)}")
    if mode not in _CHANNELS:
        raise SignalError(
            f"{name}: images of mode {mode!r}; expected grey (L) or RGB, "
            f"convert them with --set signals.mode=RGB"
        )
    return ImageValues(table, column, size, _CHANNELS[mode], name, rule, remedy)


def is_whole(item: _Item | None) -> bool:
    """Whether an image opens and its data reach to the end; every byte of it is read."""
    from PIL import Image

    if item is None or _is_missing(item):
        return False
    try:
        with Image.open(_stream(item)) as image:
            # A JPEG file is decoded to an eighth of its size: all of its data, little arithmetic.
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except _DAMAGE:
        return False
    return True


def _require_same(
    first: tuple[tuple[int, int], str],
    other: tuple[tuple[int, int], str],
    rule: PictureRule,
    name: str,
    position: int,
) -> None:
    remedies = []
    if rule.out_size is None and other[0] != first[0]:
        remedies.append(f"--set 'signals.size=[{first[0][0]}, {first[0][1]}]'")
    if rule.mode is None and other[1] != first[1]:
        remedies.append("--set signals.mode=RGB")
    if remedies:
        raise SignalError(
            f"{name}: images differ: {_describe(*first)} at position 0, {_describe(*other)} at "
            f"position {position}; a neural dataset needs one size and one colour mode, give them "
            f"with {' '.join(remedies)}"
        )


def _header(
    item: _Item | None, name: str, position: int, remedy: str
) -> tuple[tuple[int, int], str]:
    from PIL import Image

    if item is None or _is_missing(item):
        raise SignalError(f"{name}: there is no image at position {position}; {remedy}")
    try:
        with Image.open(_stream(item)) as image:
            return (image.height, image.width), image.mode
    except _DAMAGE as error:
        raise SignalError(
            f"{name}: the image at {_place(item, position)} does not open; {remedy}"
        ) from error


def _converted(image: Any, mode: ColourMode) -> Any:
    if image.mode == mode:
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _cropped(image: Any, side: int, offset: tuple[int, int]) -> Any:
    from PIL import Image

    shorter = min(image.width, image.height)
    if shorter < side:
        width = max(side, round(image.width * side / shorter))
        height = max(side, round(image.height * side / shorter))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    top = _start(image.height, side, offset[0])
    left = _start(image.width, side, offset[1])
    return image.crop((left, top, left + side, top + side))


def _start(length: int, side: int, offset: int) -> int:
    return min(max(round((length - side) / 2) + offset, 0), length - side)


def _scaled(image: Any, size: tuple[int, int]) -> Any:
    """Scale the largest centred box with the proportions of ``size`` to it."""
    from PIL import Image

    scale = min(image.height / size[0], image.width / size[1])
    left = max(0.0, (image.width - size[1] * scale) / 2)
    top = max(0.0, (image.height - size[0] * scale) / 2)
    box = (left, top, image.width - left, image.height - top)
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)


def _is_missing(item: _Item) -> bool:
    return item["bytes"] is None and item["path"] is None


def _stream(item: _Item) -> Any:
    return item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"])


def _place(item: _Item | None, position: int) -> str:
    file = Path(item["path"]).name if item is not None and item["path"] else ""
    return f"position {position} ({file})" if file else f"position {position}"


def _describe(size: tuple[int, int], mode: str) -> str:
    return f"{size[0]}x{size[1]} {mode}"
