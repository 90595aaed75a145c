"""Rows of images: originals, reconstructions, renders at other resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from nefbench.plots.theme import PAGE_WIDTH, new_figure, themed


@dataclass(frozen=True)
class GalleryRow:
    """One row of images.

    Attributes:
        title: Left of the row.
        images: ``[n, H, W, c]``, values in [0, 1], clipped if not; ``c`` is 1 or 3.
        captions: Below each image, or empty.
    """

    title: str
    images: Tensor
    captions: Sequence[str] = ()


@themed
def gallery_figure(rows: Sequence[GalleryRow], *, width: float = PAGE_WIDTH) -> Figure:
    """Draw rows of equally many images, every pixel a square without smoothing."""
    columns = len(rows[0].images)
    cell = (width - 1.0) / columns
    figure = new_figure(width, sum(cell + (0.17 if row.captions else 0.05) for row in rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for index, (image, ax) in enumerate(zip(row.images, line, strict=True)):
            pixels = np.clip(image.numpy(), 0, 1)
            grey = pixels.shape[-1] == 1
            ax.imshow(
                pixels[..., 0] if grey else pixels,
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set_visible(False)
            if row.captions:
                ax.set_xlabel(row.captions[index], fontsize=6, labelpad=1, parse_math=False)
        line[0].set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=8)
    return figure
