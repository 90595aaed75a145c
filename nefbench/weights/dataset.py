"""The neural dataset: weights of many fields with labels, splits and provenance, on disk."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nefbench.config import nearest
from nefbench.errors import DatasetFormatError
from nefbench.fields import FieldConfig, render
from nefbench.signals import grid_coords
from nefbench.signals.shapes import BOX_SIDE
from nefbench.spec import ParamSpec
from nefbench.weights.manifest import ConfigEntry, read_manifest
from nefbench.weights.parts import FieldRows, concatenate, read_part

SHAPE_SIDE = 64
"""Samples per side on which shapes are rendered unless asked otherwise."""


@dataclass(frozen=True)
class NeuralDataset:
    """One config of a neural dataset folder; rows are read when asked for.

    Attributes:
        folder: The repository folder.
        name: Name of the config.
        entry: Its record in ``nefbench.json``.
    """

    folder: Path
    name: str
    entry: ConfigEntry

    @property
    def field(self) -> FieldConfig:
        """Architecture of all fields."""
        return self.entry.field

    @property
    def spec(self) -> ParamSpec:
        """Names, shapes, order and exchangeable axes of a row."""
        return self.entry.spec

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(split.name for split in self.entry.splits)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, empty without labels."""
        return self.entry.signals.class_names

    def split(self, name: str) -> FieldRows:
        """Read all finished fields of a split, checked against their checksums.

        Raises:
            DatasetFormatError: If the split is unknown or has no fields, or a part is damaged.
        """
        if name not in self.split_names:
            raise DatasetFormatError(
                f"{self.folder} ({self.name}) has no split {name!r}; "
                f"it has {', '.join(self.split_names)}"
            )
        parts = sorted(
            (part for part in self.entry.parts if part.split == name), key=lambda p: p.start
        )
        if not parts:
            raise DatasetFormatError(
                f"{self.folder} ({self.name}): no field of split {name!r} is finished; "
                f"continue with: nefbench fit {shlex.quote(str(self.folder))} --config {self.name}"
            )
        return concatenate([read_part(self.folder, self.name, self.entry, part) for part in parts])

    @property
    def is_of_shapes(self) -> bool:
        """Whether the fields give occupancy or signed distance."""
        return self.entry.signals.output != "values"

    @property
    def default_grid(self) -> tuple[int, ...]:
        """Samples per axis of ``render``: the fitted grid, or that of shapes; empty if unknown."""
        return (SHAPE_SIDE,) * 3 if self.is_of_shapes else self.entry.signals.grid_shape

    def render(self, rows: Tensor, grid_shape: Sequence[int] | None = None) -> Tensor:
        """Evaluate fields on a grid over the fitted domain.

        The domain is [-1, 1] on every axis; that of shapes is the cube of side ``BOX_SIDE`` around
        the origin. The first and last sample of every axis lie on its ends. The last axis of the
        grid is component 0 of the coordinates, the one before it component 1, and so on: images
        are ``[height, width]``, volumes and shapes ``[z, y, x]``.

        Args:
            rows: Weights ``[N, P]``.
            grid_shape: Samples per axis; ``default_grid`` if left out.

        Returns:
            ``[N, *grid_shape, c]``, not clipped: raw values of signals on a grid; of shapes
            (``c`` 1) the probability of being inside or the signed distance, negative inside.

        Raises:
            ValueError: If the grid is unknown or has another number of dimensions.
        """
        values = self.outputs(rows, grid_shape)
        return values.sigmoid() if self.entry.signals.output == "occupancy" else values

    def outputs(self, rows: Tensor, grid_shape: Sequence[int] | None = None) -> Tensor:
        """Evaluate as ``render`` does, but return occupancy as its logit."""
        signals = self.entry.signals
        shape = tuple(grid_shape or self.default_grid)
        if len(shape) != self.entry.in_dim:
            raise ValueError(
                f"expected a grid of {self.entry.in_dim} dimensions (got {shape}); "
                f"where the fitted grid is unknown, give grid_shape"
            )
        coords = grid_coords(shape)
        if self.is_of_shapes:
            coords *= BOX_SIDE / 2
        values = render(self.field, self.spec, rows, coords)
        raw = values * torch.tensor(signals.std) + torch.tensor(signals.mean)
        return raw.reshape(len(rows), *shape, len(signals.mean))

    def require_complete(self) -> None:
        """Raise ``DatasetFormatError`` unless every planned field is finished."""
        if not self.entry.is_complete:
            raise DatasetFormatError(
                f"{self.folder} ({self.name}) is not finished: {self.entry.num_finished} of "
                f"{self.entry.num_fields} fields; continue with: "
                f"nefbench fit {shlex.quote(str(self.folder))} --config {self.name}"
            )


def load_neural_dataset(folder: Path | str, config: str | None = None) -> NeuralDataset:
    """Open one config of a neural dataset folder.

    Args:
        folder: Folder with ``nefbench.json``.
        config: Name of the config; may be left out if there is only one.

    Raises:
        DatasetFormatError: If the folder or the config does not exist or is damaged.
    """
    folder = Path(folder)
    configs = read_manifest(folder).configs
    if not configs:
        raise DatasetFormatError(f"{folder} holds no fields yet")
    if config is None:
        if len(configs) > 1:
            raise DatasetFormatError(
                f"{folder} holds several configs ({', '.join(configs)}); choose one with --config"
            )
        config = next(iter(configs))
    if config not in configs:
        raise DatasetFormatError(
            f"{folder} has no config {config!r}{nearest(config, configs)}; "
            f"it has {', '.join(configs)}"
        )
    return NeuralDataset(folder, config, configs[config])


def load_all(folder: Path | str) -> list[NeuralDataset]:
    """Open every config of a folder, in the order in which they were made."""
    folder = Path(folder)
    return [
        NeuralDataset(folder, name, entry) for name, entry in read_manifest(folder).configs.items()
    ]
