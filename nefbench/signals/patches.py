"""Embedded colour signals: patches of the two photographs that ship with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.array import signals_from_array
from nefbench.signals.base import SPLIT_NAMES, GridSignals

_CLASS_NAMES = ("china", "flower")
_BAND = 64
# Split of every column band; test and validation lie on both halves of the pictures.
_BANDS = (0, 0, 0, 2, 0, 0, 1, 0, 0, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchesConfig:
    """Square patches of two photographs of 427 x 640 pixels; the class is the photograph.

    Both are cut into ten bands of 64 columns: seven to train on, one to validate, two to test. A
    patch lies within bands of one split, so no pixel is in two splits. Patches of one split overlap
    if ``stride`` is less than ``size``: by half with the defaults, which give 850 of each
    photograph (625 to train on, 75 to validate, 150 to test).
    """

    kind: Literal["patches"] = "patches"
    size: int = 32
    """Side of a patch in pixels, up to the 64 of a band."""
    stride: int = 16
    """Pixels from one patch to the next, in both directions."""
    seed: int = 0
    """Seed of the order of the patches within their splits."""
    max_signals: int | None = None
    """Keep only the first signals of the seeded order, over all splits; for trials."""

    def __post_init__(self) -> None:
        if not 2 <= self.size <= _BAND:
            raise ValueError(f"expected a size from 2 to {_BAND} (got {self.size})")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"expected a seed from 0 to 2**63 - 1 (got {self.seed})")
        for name in ("stride", "max_signals"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected {name} >= 1 (got {value})")

    def open(self) -> GridSignals:
        """Cut the patches out of scikit-learn's own files."""
        from sklearn.datasets import load_sample_images

        photographs = load_sample_images().images
        patches, labels, splits = self._cut(photographs)
        order = permutation(self.seed, "patches/order", len(patches)).numpy()[: self.max_signals]
        order = order[np.argsort(splits[order], kind="stable")]
        sizes = np.bincount(splits[order], minlength=len(SPLIT_NAMES)).tolist()
        if min(sizes) == 0:
            raise SignalError(
                f"patches: {len(order)} signals leave split {SPLIT_NAMES[sizes.index(0)]!r} empty; "
                f"raise signals.max_signals"
            )
        signals = signals_from_array(
            patches[order],
            labels[order],
            splits=list(zip(SPLIT_NAMES, sizes, strict=True)),
            class_names=_CLASS_NAMES,
            name="patches",
            indices=torch.from_numpy(order),
            source="patches of scikit-learn load_sample_images (china.jpg, flower.jpg)",
            licence="CC BY 2.0",
        )
        return replace(signals, config=config_to_mapping(self))

    def _cut(self, photographs: list[Any]) -> tuple[Any, ...]:
        """Return all patches, photograph by photograph and row by row, with labels and splits."""
        patches, labels, splits = [], [], []
        for label, photograph in enumerate(photographs):
            pixels: npt.NDArray[np.uint8] = np.asarray(photograph)
            for top in range(0, pixels.shape[0] - self.size + 1, self.stride):
                for left, split in self._columns():
                    patches.append(pixels[top : top + self.size, left : left + self.size])
                    labels.append(label)
                    splits.append(split)
        return np.stack(patches), np.array(labels), np.array(splits)

    def _columns(self) -> list[tuple[int, int]]:
        """Left edge and split of every patch in a row: as many as fit each run of bands."""
        found = []
        start = 0
        for band in range(1, len(_BANDS) + 1):
            if band == len(_BANDS) or _BANDS[band] != _BANDS[start]:
                lefts = range(start * _BAND, band * _BAND - self.size + 1, self.stride)
                found += [(left, _BANDS[start]) for left in lefts]
                start = band
        return found
