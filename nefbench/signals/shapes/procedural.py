"""The embedded shapes: twelve classes of things built from parts, with drawn proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nefbench.config import config_to_mapping
from nefbench.seeding import random_words
from nefbench.signals.base import make_splits
from nefbench.signals.shapes.base import (
    BOX_SIDE,
    PointSamples,
    Quantity,
    Role,
    ShapeSamples,
    ShapeSignals,
    check_sampling,
    scale_of,
)
from nefbench.signals.shapes.composites import Moved
from nefbench.signals.shapes.recipes import (
    RECIPES,
    draw_proportions,
    turn_about,
    unit_from_words,
)
from nefbench.signals.shapes.sdf import Solid, columns

CLASS_NAMES = tuple(RECIPES)
"""Class of label 0, 1, …"""

_SPARE = 1.5
_ON_SURFACE = 1e-4
_POINTS_AT_ONCE = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class ProceduralShapesConfig:
    """Shapes that are made here: nothing to download, and every value exact.

    Shape ``i`` is of class ``i % 12`` and depends on (seed, i) alone; splits are consecutive, so
    sizes that are multiples of 12 are balanced. By default 2,400 shapes, 200 per class: the
    smallest set on which a classifier of weights still has 160 examples of a class to learn from.

    A shape is centred, its longest side from -0.5 to 0.5 after it was turned. The numbers of
    points make one fit's samples 40,000, of which thin things have several thousand inside;
    published sets of shapes do not state theirs, nor their noise.
    """

    kind: Literal["shapes"] = "shapes"
    quantity: Quantity = "occupancy"
    """What a field says: inside or not, or the signed distance."""
    truncation: float | None = None
    """Cut signed distances here, either way (DeepSDF, Park et al. 2019): thin parts get sharper."""
    train_size: int = 1_920
    """Shapes in the training split."""
    validation_size: int = 240
    """Shapes in the validation split."""
    test_size: int = 240
    """Shapes in the test split."""
    turn: float = 20.0
    """Largest angle in degrees, either way, by which a shape is turned about the vertical."""
    num_uniform: int = 20_000
    """Points per shape to fit to, uniform in the box."""
    num_near_surface: int = 20_000
    """Points per shape to fit to, near its surface."""
    num_held_out: int = 10_000
    """Other points of each of the two kinds, to measure quality at."""
    noise: float = 0.02
    """Standard deviation of points near the surface, per coordinate."""
    seed: int = 0
    """Seed of proportions, angles and points."""

    def __post_init__(self) -> None:
        sizes = ("num_uniform", "num_near_surface", "num_held_out")
        num_points = {name: getattr(self, name) for name in sizes}
        check_sampling(self.quantity, self.truncation, num_points, self.noise, self.seed)
        for name in ("train_size", "validation_size", "test_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1 (got {getattr(self, name)})")
        if not 0 <= self.turn <= 180:
            raise ValueError(f"expected turn from 0 to 180 degrees (got {self.turn})")

    def open(self) -> ShapeSignals:
        """List the shapes; their points are made when they are read."""
        sizes = [
            ("train", self.train_size),
            ("validation", self.validation_size),
            ("test", self.test_size),
        ]
        indices = torch.arange(sum(size for _, size in sizes))
        return ShapeSignals(
            name="shapes",
            source=f"nefbench's own shapes, made from seed {self.seed}",
            indices=indices,
            splits=make_splits(sizes),
            std=scale_of(self.quantity, self.truncation),
            labels=indices % len(CLASS_NAMES),
            class_names=CLASS_NAMES,
            licence="MIT",
            config=config_to_mapping(self),
            shapes=ProceduralShapes(self),
            quantity=self.quantity,
            truncation=self.truncation,
        )


@dataclass(frozen=True)
class ProceduralShapes:
    """Samples of the embedded shapes; shape ``i`` is at position ``i``.

    Attributes:
        config: How many and how they are drawn.
    """

    config: ProceduralShapesConfig

    def __len__(self) -> int:
        """Number of shapes ``N``."""
        return self.config.train_size + self.config.validation_size + self.config.test_size

    def solids(self, positions: Sequence[int]) -> Solid:
        """Return shapes of one class as one solid, normalised to the box."""
        name = CLASS_NAMES[positions[0] % len(CLASS_NAMES)]
        seed = self.config.seed
        solid = RECIPES[name](draw_proportions(seed, name, positions))
        angle = (2 * _unit(seed, "shapes/turn", positions, 1)[:, 0] - 1) * self.config.turn
        return _normalised(solid, turn_about(1, angle))

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        """Sample shapes: a function of (seed, shape, role), whatever is read with it.

        Distances are exact outside a shape; inside, where its parts overlap, they are a lower
        bound of the depth.
        """
        config = self.config
        num_uniform, num_near = config.num_uniform, config.num_near_surface
        if role == "held-out":
            num_uniform = num_near = config.num_held_out
        uniform, near = (
            PointSamples(torch.empty(len(positions), size, 3), torch.empty(len(positions), size))
            for size in (num_uniform, num_near)
        )
        for rows in _blocks(positions, max(num_uniform, num_near)):
            chosen = [positions[row] for row in rows]
            solid = self.solids(chosen)
            inner = self._uniform(chosen, role, num_uniform)
            uniform.points[rows], uniform.values[rows] = inner, self._values(solid, inner)
            close = self._near_surface(solid, chosen, role, num_near)
            near.points[rows], near.values[rows] = close, self._values(solid, close)
        return ShapeSamples(uniform, near)

    def _values(self, solid: Solid, points: Tensor) -> Tensor:
        distance = solid.distance(points)
        return distance if self.config.quantity == "signed-distance" else (distance < 0).float()

    def _uniform(self, positions: Sequence[int], role: Role, size: int) -> Tensor:
        unit = _unit_points(self.config.seed, f"shapes/{role}/uniform", positions, size)
        return (unit - 0.5) * BOX_SIDE

    def _near_surface(
        self, solid: Solid, positions: Sequence[int], role: Role, size: int
    ) -> Tensor:
        """Points uniform over the surface plus noise; the few outside the box are mirrored in."""
        seed = self.config.seed
        spare = int(_SPARE * size) + 8
        unit = _unit_points(seed, f"shapes/{role}/surface", positions, spare)
        candidates = solid.surface(unit)
        # Candidates lie on the surface of some part; those inside other parts are left out.
        visible = solid.distance(candidates).abs() < _ON_SURFACE
        rows = []
        for points, seen in zip(candidates, visible, strict=True):
            found = seen.nonzero().flatten()
            assert len(found), "a shape has no surface"
            rows.append(points[found[torch.arange(size) % len(found)]])
        noise = _normal_points(seed, f"shapes/{role}/noise", positions, size)
        moved = torch.stack(rows) + self.config.noise * noise
        reach = moved.abs()
        inwards = torch.minimum(reach, (BOX_SIDE - reach).clamp_min(0))
        return torch.where(moved < 0, -inwards, inwards)


def _normalised(solid: Solid, rotation: Tensor) -> Solid:
    """Turn, then centre the bounding box and scale its longest side to 1."""
    origin = rotation.new_zeros(len(rotation), 3)
    turned = Moved(solid, origin, rotation)
    upper, lower = [], []
    for axis in range(3):
        direction = origin.clone()
        direction[:, axis] = 1.0
        upper.append(turned.support(direction))
        lower.append(-turned.support(-direction))
    high, low = torch.stack(upper, dim=-1), torch.stack(lower, dim=-1)
    scale = 1 / (high - low).amax(dim=-1)
    return Moved(solid, -(high + low) / 2 * scale[:, None], rotation, scale)


def _blocks(positions: Sequence[int], size: int) -> list[list[int]]:
    """Group rows by class, few enough at once to stay in a processor's cache."""
    by_class: dict[int, list[int]] = {}
    for row, position in enumerate(positions):
        by_class.setdefault(position % len(CLASS_NAMES), []).append(row)
    at_once = max(1, _POINTS_AT_ONCE // size)
    return [
        rows[start : start + at_once]
        for rows in by_class.values()
        for start in range(0, len(rows), at_once)
    ]


def _unit(seed: int, stream: str, positions: Sequence[int], size: int) -> Tensor:
    words = random_words(seed, stream, positions, size)
    return unit_from_words(torch.from_numpy(words.view(np.int64)))


def _unit_points(seed: int, stream: str, positions: Sequence[int], size: int) -> Tensor:
    """Numbers uniform in [0, 1), ``[n, size, 3]``; fewer points are the first of more."""
    unit = _unit(seed, stream, positions, 3 * size).unflatten(1, (size, 3))
    return columns(*unit.unbind(-1))


def _normal_points(seed: int, stream: str, positions: Sequence[int], size: int) -> Tensor:
    """Standard normal numbers, ``[n, size, 3]``, by inverting their distribution function."""
    from scipy.special import ndtri

    unit = _unit_points(seed, stream, positions, size)
    normal = ndtri(unit.to(torch.float64).numpy() + 2.0**-25)
    return torch.from_numpy(normal).to(torch.float32)
