"""What is fitted: ``N`` signals with labels and splits, on a grid or at points of their own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nefbench.errors import SignalError

SPLIT_NAMES = ("train", "validation", "test")
_STATISTICS_SIGNALS, _STATISTICS_NUMBERS = 1024, 2**24
"""Signals and numbers, at most, that are in memory at once while statistics are taken."""
_FINGERPRINT_SIGNALS = 64


class Values(Protocol):
    """Random access to the raw values of signals; reading may decode, so read in blocks."""

    def __len__(self) -> int:
        """Number of signals ``N``."""

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return raw values ``[n, Q, c]``, float32 within the signals' value range."""


@dataclass(frozen=True)
class ArrayValues:
    """Values held in memory, in the type they came in.

    Attributes:
        array: ``[N, Q, c]``; integers are divided by ``peak``.
        peak: What 1.0 is in ``array``.
    """

    array: Tensor
    peak: float = 1.0

    def __len__(self) -> int:
        """Number of signals ``N``."""
        return len(self.array)

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return values ``[n, Q, c]``, float32."""
        return self.array[list(positions)].to(torch.float32) / self.peak


@dataclass(frozen=True)
class Split:
    """A named half-open range of fields.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        start: First field.
        stop: One past the last field.
    """

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        """Number of fields in the range."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Signals:
    """A set of signals, each of which one field is fitted to; see the subclasses for their values.

    Attributes:
        name: What a reader calls it, for example ``digits``.
        source: Where it came from, in words that a person can repeat.
        indices: Position of every signal in its source; seeds of draws, so it must not depend on
            which other signals are selected. A source of several splits is counted through.
        splits: Ranges that cover all ``N`` signals in order.
        mean: Per channel, subtracted from the values before fitting.
        std: Per channel, the values are divided by it.
        labels: Class of every signal, int64 ``[N]``, or None.
        class_names: Name of every class, empty without labels.
        properties: Numbers that belong to a signal, such as a parameter of the equation it solves:
            name to float64 ``[N]``, finite.
        licence: Licence of the source as far as known.
        config: Configuration that opens these signals again, as plain data; None for arrays.
    """

    name: str
    source: str
    indices: Tensor
    splits: tuple[Split, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    properties: Mapping[str, Tensor] = field(default_factory=dict)
    licence: str = "unknown"
    config: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        """Number of signals ``N``."""
        return len(self.indices)

    @property
    def num_channels(self) -> int:
        """Channels ``c``."""
        return len(self.mean)

    @property
    def in_dim(self) -> int:
        """Coordinates ``d`` of a point."""
        raise NotImplementedError

    @property
    def num_points(self) -> int:
        """Points ``Q`` that a field may be fitted to."""
        raise NotImplementedError

    @property
    def shape_text(self) -> str:
        """One signal's size in words, for tables: ``28x28x1``."""
        raise NotImplementedError

    def denormalise(self, values: Tensor) -> Tensor:
        """Map field outputs ``[..., c]`` back to raw values (not clipped)."""
        return values * values.new_tensor(self.std) + values.new_tensor(self.mean)

    def normalise(self, values: Tensor) -> Tensor:
        """Map raw values ``[..., c]`` to what a field is fitted to."""
        return (values - values.new_tensor(self.mean)) / values.new_tensor(self.std)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the selection, its labels, properties and some signals spread evenly."""
        content = hashlib.sha256()
        content.update(self._fingerprint_of_layout())
        content.update(self.indices.numpy().tobytes())
        if self.labels is not None:
            content.update(self.labels.numpy().tobytes())
        for name, numbers in self.properties.items():
            content.update(repr(name).encode() + numbers.contiguous().numpy().tobytes())
        count = min(self._num_fingerprinted, len(self))
        positions = np.linspace(0, len(self) - 1, count).astype(int).tolist()
        content.update(self._fingerprint_of_values(positions))
        return content.hexdigest()

    @property
    def _num_fingerprinted(self) -> int:
        return _FINGERPRINT_SIGNALS

    def _fingerprint_of_layout(self) -> bytes:
        raise NotImplementedError

    def _fingerprint_of_values(self, positions: Sequence[int]) -> bytes:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GridSignals(Signals):
    """Signals sampled on one regular grid: waves, images, volumes, of any channel count.

    Attributes:
        grid_shape: Samples per axis, slowest first (height, width); its product is ``Q``.
        values: The raw values, ``[N, Q, c]``.
        value_range: Lowest and highest raw value there can be; quality is measured with this
            range mapped to [0, 1].
    """

    grid_shape: tuple[int, ...]
    values: Values
    value_range: tuple[float, float] = (0.0, 1.0)

    @property
    def in_dim(self) -> int:
        """Axes ``d`` of the grid."""
        return len(self.grid_shape)

    @property
    def num_points(self) -> int:
        """Samples per signal, ``Q``."""
        return math.prod(self.grid_shape)

    @property
    def shape_text(self) -> str:
        """Samples per axis and channels: ``28x28x1``."""
        return "x".join(map(str, (*self.grid_shape, self.num_channels)))

    @cached_property
    def coords(self) -> Tensor:
        """Coordinates of the samples, ``[Q, d]``."""
        return grid_coords(self.grid_shape)

    def targets(self, positions: Sequence[int]) -> Tensor:
        """Return normalised values ``[n, Q, c]``: what a field is fitted to.

        Raises:
            SignalError: If a value is NaN or infinite.
        """
        return self.normalise(self.raw_values(positions))

    def raw_values(self, positions: Sequence[int]) -> Tensor:
        """Return checked raw values ``[n, Q, c]``.

        Raises:
            SignalError: If a value is NaN or infinite.
        """
        values = self.values.read(positions)
        check_finite(values, positions, self.name)
        return values

    def unit_values(self, raw: Tensor) -> Tensor:
        """Map raw values to [0, 1], the scale on which quality is measured (not clipped)."""
        low, high = self.value_range
        return raw if (low, high) == (0.0, 1.0) else (raw - low) / (high - low)

    def _fingerprint_of_layout(self) -> bytes:
        return repr((self.grid_shape, self.splits, self.class_names)).encode()

    def _fingerprint_of_values(self, positions: Sequence[int]) -> bytes:
        return self.values.read(positions).contiguous().numpy().tobytes()


def grid_coords(grid_shape: Sequence[int]) -> Tensor:
    """Return sample positions of a regular grid, float32 ``[Q, d]`` in [-1, 1].

    The first and the last sample of every axis lie at -1 and 1. Points go row by row, the last
    axis fastest, and component 0 is the fastest axis: for an image, (column, row).
    """
    axes = [torch.linspace(-1, 1, size) for size in grid_shape]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in reversed(mesh)], dim=-1)


def channel_statistics(
    values: Values, split: Split, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over one split, summed in float64.

    The sums are those of the differences to the first point, so a constant channel has a spread
    of exactly zero however many points there are.

    Raises:
        SignalError: If a value is not finite or a channel is constant.
    """
    first = values.read([split.start])[0]
    origin = first[0].to(torch.float64)
    size = min(_STATISTICS_SIGNALS, max(1, _STATISTICS_NUMBERS // first.numel()))
    total, squares = torch.zeros_like(origin), torch.zeros_like(origin)
    count = 0
    for start in range(split.start, split.stop, size):
        positions = range(start, min(start + size, split.stop))
        block = values.read(positions)
        check_finite(block, positions, name)
        points = block.to(torch.float64).flatten(0, 1) - origin
        total, squares = total + points.sum(0), squares + points.square().sum(0)
        count += len(points)
    offset = total / count
    mean = origin + offset
    std = (squares / count - offset**2).clamp_min(0).sqrt()
    for channel, spread in enumerate(std.tolist()):
        if not spread > 0:
            raise SignalError(
                f"{name}: channel {channel} is constant over split {split.name!r}; "
                f"there is nothing to fit"
            )
    return tuple(mean.tolist()), tuple(std.tolist())


def check_finite(values: Tensor, positions: Sequence[int], name: str) -> None:
    """Raise ``SignalError`` naming the first signals that hold NaN or infinity."""
    finite = values.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        bad = [position for position, ok in zip(positions, finite.tolist(), strict=True) if not ok]
        listed = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        raise SignalError(
            f"{name}: {len(bad)} signal(s) hold NaN or infinite values (positions {listed}); "
            f"remove or repair them"
        )


def make_splits(sizes: Sequence[tuple[str, int]]) -> tuple[Split, ...]:
    """Lay splits of the given sizes one after another.

    Raises:
        SignalError: If a split is empty.
    """
    splits = []
    start = 0
    for name, size in sizes:
        if size < 1:
            raise SignalError(f"split {name!r} is empty; give it at least one signal")
        splits.append(Split(name, start, start + size))
        start += size
    return tuple(splits)
