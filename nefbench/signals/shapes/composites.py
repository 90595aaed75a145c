"""Solids made of solids: moved, mirrored, repeated, joined and cut.

The distance of a union is exact outside; inside, where parts overlap, it is a lower bound of the
depth. That of a difference is a lower bound on both sides. Signs are exact throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.signals.shapes.sdf import Solid, choose, columns


@dataclass(frozen=True)
class Moved:
    """A solid turned, scaled and shifted, in this order; distances stay exact.

    Attributes:
        solid: What is moved.
        shift: Where its origin goes, ``[n, 3]``.
        rotation: Rotation matrices ``[n, 3, 3]``; none if left out.
        scale: Factors ``[n]``; 1 if left out.
    """

    solid: Solid
    shift: Tensor
    rotation: Tensor | None = None
    scale: Tensor | None = None

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return self.solid.area if self.scale is None else self.solid.area * self.scale**2

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = (
            column - offset[:, None]
            for column, offset in zip(points.unbind(-1), self.shift.unbind(-1), strict=True)
        )
        if self.scale is not None:
            x, y, z = (column / self.scale[:, None] for column in (x, y, z))
        distance = self.solid.distance(self._turned(x, y, z, back=True))
        return distance if self.scale is None else distance * self.scale[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        turned = self._turned(*direction[:, None].unbind(-1), back=True)[:, 0]
        reach = self.solid.support(turned)
        if self.scale is not None:
            reach = reach * self.scale
        parts = (direction * self.shift).unbind(-1)
        return reach + (parts[0] + parts[1] + parts[2])

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        turned = self._turned(*self.solid.surface(unit).unbind(-1), back=False)
        scale = 1.0 if self.scale is None else self.scale[:, None]
        moved = (
            column * scale + offset[:, None]
            for column, offset in zip(turned.unbind(-1), self.shift.unbind(-1), strict=True)
        )
        return columns(*moved)

    def _turned(self, x: Tensor, y: Tensor, z: Tensor, *, back: bool) -> Tensor:
        if self.rotation is None:
            return columns(x, y, z)
        matrix = self.rotation.mT if back else self.rotation
        rows = [
            matrix[:, row, 0, None] * x + matrix[:, row, 1, None] * y + matrix[:, row, 2, None] * z
            for row in range(3)
        ]
        return columns(*rows)


@dataclass(frozen=True)
class Mirrored:
    """A solid and its mirror images; distances stay exact.

    Attributes:
        solid: What is mirrored; lies where the mirrored coordinates are positive.
        axes: Numbers of the coordinates that change sign: ``(0,)`` gives two copies, ``(0, 2)``
            four.
    """

    solid: Solid
    axes: tuple[int, ...]

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return self.solid.area * (1 << len(self.axes))

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        parts = list(points.unbind(-1))
        for axis in self.axes:
            parts[axis] = parts[axis].abs()
        return self.solid.distance(columns(*parts))

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        # The copy that reaches furthest lies on the side to which the direction points.
        folded = direction.clone()
        folded[:, list(self.axes)] = direction[:, list(self.axes)].abs()
        return self.solid.support(folded)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        signs = []
        for _ in self.axes:
            signs.append(torch.where(pick < 0.5, -1.0, 1.0))
            pick = 2 * pick % 1
        parts = list(self.solid.surface(torch.stack([pick, u, v], dim=-1)).unbind(-1))
        for axis, sign in zip(self.axes, signs, strict=True):
            parts[axis] = parts[axis] * sign
        return columns(*parts)


@dataclass(frozen=True)
class Repeated:
    """Equal copies of a solid in a row along y, centred at 0; distances stay exact.

    Attributes:
        solid: What is repeated; symmetric to y = 0 and lower than ``step``.
        step: From one copy to the next, ``[n]``.
        count: How many, ``[n]``.
    """

    solid: Solid
    step: Tensor
    count: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return self.solid.area * self.count

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        last = (self.count[:, None] - 1).to(y.dtype)
        nearest = (y / self.step[:, None] + last / 2).round().clamp_min(0)
        place = (torch.minimum(nearest, last) - last / 2) * self.step[:, None]
        return self.solid.distance(columns(x, y - place, z))

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        reach = (self.count - 1) * self.step / 2
        return self.solid.support(direction) + reach * direction[:, 1].abs()

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        count = self.count[:, None].to(pick.dtype)
        number = (pick * count).floor()
        inner = torch.stack([pick * count - number, u, v], dim=-1)
        x, y, z = self.solid.surface(inner).unbind(-1)
        return columns(x, y + (number - (count - 1) / 2) * self.step[:, None], z)


@dataclass(frozen=True)
class Union:
    """Everything inside any part.

    The surface is that of all parts, hidden points included: keep those at distance zero.

    Attributes:
        parts: At least one.
    """

    parts: Sequence[Solid]

    @property
    def area(self) -> Tensor:
        """Area of all parts, hidden surfaces included, ``[n]``."""
        total = self.parts[0].area
        for part in self.parts[1:]:
            total = total + part.area
        return total

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``; inside a lower bound of the depth."""
        distance = self.parts[0].distance(points)
        for part in self.parts[1:]:
            distance = torch.minimum(distance, part.distance(points))
        return distance

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        reach = self.parts[0].support(direction)
        for part in self.parts[1:]:
            reach = torch.maximum(reach, part.support(direction))
        return reach

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``; hidden points included."""
        return _surface_of_any(self.parts, unit)


@dataclass(frozen=True)
class Difference:
    """Everything inside ``solid`` and outside ``hole``.

    Attributes:
        solid: What is cut.
        hole: What is taken away.
    """

    solid: Solid
    hole: Solid

    @property
    def area(self) -> Tensor:
        """Area of both, cut surfaces included, ``[n]``."""
        return self.solid.area + self.hole.area

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``; a lower bound of the distance on both sides."""
        return torch.maximum(self.solid.distance(points), -self.hole.distance(points))

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``; an upper bound: that of the uncut solid."""
        return self.solid.support(direction)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``; cut points included, keep those at distance zero."""
        return _surface_of_any([self.solid, self.hole], unit)


def _surface_of_any(parts: Sequence[Solid], unit: Tensor) -> Tensor:
    pick, u, v = unit.unbind(-1)
    number, rest = choose(pick, [part.area for part in parts])
    inner = torch.stack([rest, u, v], dim=-1)
    points = parts[0].surface(inner)
    for position, part in enumerate(parts[1:], start=1):
        points = torch.where((number == position)[..., None], part.surface(inner), points)
    return points
