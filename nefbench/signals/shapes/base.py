"""Shapes as signals: points in space with what a field should say there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.seeding import random_words
from nefbench.signals.base import Signals

Quantity = Literal["occupancy", "signed-distance"]
"""What a field of a shape gives: the logit of being inside, or the distance to the surface,
negative inside."""

Role = Literal["fit", "held-out"]
"""Points to fit to, or other points of the same shape to measure quality at."""

BOX_SIDE = 1.1
"""Side of the cube around the origin in which fields of shapes are meant: shapes have their longest
side from -0.5 to 0.5, with some room around it."""

DISTANCE_SCALE = 0.25
"""Signed distances are divided by it before fitting: about their spread over the box."""


@dataclass(frozen=True)
class PointSamples:
    """Points of ``n`` shapes, equally many of each.

    Attributes:
        points: ``[n, q, 3]``, float32.
        values: ``[n, q]``, float32: 1 inside and 0 outside, or signed distances, negative inside.
    """

    points: Tensor
    values: Tensor


@dataclass(frozen=True)
class ShapeSamples:
    """Samples of ``n`` shapes.

    Attributes:
        uniform: Uniform in the box.
        near_surface: On the surface, moved by a little noise.
    """

    uniform: PointSamples
    near_surface: PointSamples

    @property
    def all(self) -> PointSamples:
        """Both kinds, uniform points first."""
        parts = (self.uniform, self.near_surface)
        return PointSamples(
            torch.cat([part.points for part in parts], dim=1),
            torch.cat([part.values for part in parts], dim=1),
        )


class Shapes(Protocol):
    """Random access to samples of shapes; reading may compute, so read in blocks."""

    def __len__(self) -> int:
        """Number of shapes ``N``."""

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        """Sample shapes; the same points whenever, and in whatever company, a shape is read."""


@dataclass(frozen=True, kw_only=True)
class ShapeSignals(Signals):
    """Shapes, each with points of its own.

    Attributes:
        shapes: Their samples.
        quantity: What the values of the samples are.
        truncation: Distances beyond it, either way, are cut to it; None leaves them as they are.
    """

    shapes: Shapes
    quantity: Quantity = "occupancy"
    truncation: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def in_dim(self) -> int:
        """Three."""
        return 3

    @property
    def shape_text(self) -> str:
        """The quantity: the number of points is a matter of the fit."""
        return f"{self.quantity} in 3 dimensions"

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        """Sample shapes, with distances cut as they are fitted; see ``Shapes.read``."""
        samples = self.shapes.read(positions, role)
        if self.truncation is None:
            return samples
        limit = self.truncation
        cut = [
            PointSamples(part.points, part.values.clamp(-limit, limit))
            for part in (samples.uniform, samples.near_surface)
        ]
        return ShapeSamples(*cut)

    def pool(self, positions: Sequence[int], seed: int, sizes: Sequence[int]) -> ShapePool:
        """Return the points of a fit in the order in which steps take them.

        For occupancy, points outside come first and points inside after them, each repeated in a
        new order as often as it takes; for signed distances all points in one random order.

        Args:
            positions: Which shapes.
            seed: Of the orders.
            sizes: Points outside and points inside, or points in all.

        Raises:
            SignalError: If a shape has no point inside or none outside, or a value is not finite.
        """
        samples = self.read(positions, "fit")
        points, values = samples.all.points, samples.all.values
        finite = points.isfinite().all(-1) & values.isfinite()
        coords, targets = [], []
        for row, position in enumerate(positions):
            if not bool(finite[row].all()):
                raise SignalError(
                    f"{self.name}: shape {position} has NaN or infinite values; repair it"
                )
            order = self._order(values[row], seed, position, sizes)
            coords.append(points[row, order])
            targets.append(self.normalise(values[row, order, None]))
        return ShapePool(torch.stack(coords), torch.stack(targets), samples)

    def _order(self, values: Tensor, seed: int, position: int, sizes: Sequence[int]) -> Tensor:
        index = int(self.indices[position])
        if self.quantity == "signed-distance":
            everything = torch.arange(len(values))
            return _reshuffled(everything, seed, "shapes/points", index, sizes[0])
        inside = values >= 0.5
        orders = []
        for side, mask, size in (("outside", ~inside, sizes[0]), ("inside", inside, sizes[1])):
            found = mask.nonzero().flatten()
            if not len(found):
                raise SignalError(
                    f"{self.name}: shape {position} has no sample {side} among {len(values)}; "
                    f"sample it more densely or leave it out"
                )
            orders.append(_reshuffled(found, seed, f"shapes/{side}", index, size))
        return torch.cat(orders)

    @property
    def _num_fingerprinted(self) -> int:
        return 4  # sampling a shape takes long

    def _fingerprint_of_layout(self) -> bytes:
        return repr((self.quantity, self.splits, self.class_names)).encode()

    def _fingerprint_of_values(self, positions: Sequence[int]) -> bytes:
        content = hashlib.sha256()
        samples = self.read(positions, "fit").all
        content.update(samples.points.contiguous().numpy().tobytes())
        content.update(samples.values.contiguous().numpy().tobytes())
        return content.digest()


@dataclass(frozen=True)
class ShapePool:
    """What fields of ``n`` shapes are fitted to.

    Attributes:
        coords: ``[n, Q, 3]``.
        targets: Normalised values ``[n, Q, 1]``.
        samples: The samples themselves, each once.
    """

    coords: Tensor
    targets: Tensor
    samples: ShapeSamples


def scale_of(quantity: Quantity, truncation: float | None) -> tuple[float]:
    """What values are divided by before fitting, per channel."""
    if quantity == "occupancy":
        return (1.0,)
    return (truncation or DISTANCE_SCALE,)


def check_sampling(
    quantity: Quantity,
    truncation: float | None,
    num_points: Mapping[str, int],
    noise: float,
    seed: int,
) -> None:
    """Raise ``ValueError`` unless points can be drawn and their values fitted to."""
    if truncation is not None and quantity == "occupancy":
        raise ValueError("truncation: occupancies are no distances; set quantity, or leave it out")
    if truncation is not None and not 0 < truncation <= BOX_SIDE:
        raise ValueError(f"expected 0 < truncation <= {BOX_SIDE} (got {truncation})")
    for name, count in num_points.items():
        if count < 1:
            raise ValueError(f"expected {name} >= 1 (got {count})")
    if not 0 < noise <= 0.1:
        raise ValueError(f"expected noise above 0 and up to 0.1 (got {noise})")
    if not 0 <= seed < 2**63:
        raise ValueError(f"expected seed from 0 to 2**63 - 1 (got {seed})")


def _reshuffled(items: Tensor, seed: int, stream: str, index: int, size: int) -> Tensor:
    """Return ``size`` items: all of them in random order, again in another order, and so on."""
    rounds = -(-size // len(items))
    words = random_words(seed, stream, [index], rounds * len(items))[0]
    order = torch.from_numpy(words.reshape(rounds, -1).argsort(1, kind="stable"))
    return items[order.flatten()[:size]]
