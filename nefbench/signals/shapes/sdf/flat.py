"""Solids with flat faces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.signals.shapes.sdf.base import (
    choose,
    columns,
    in_triangle,
    norm,
    random_sign,
    rectangle_distance,
)

_HEXAGON = math.sqrt(3.0)


@dataclass(frozen=True)
class Box:
    """A box.

    Attributes:
        half: Half of its sides, ``[n, 3]``.
    """

    half: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        a, b, c = self.half.unbind(-1)
        return 8 * (a * b + b * c + c * a)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = (
            column.abs() - side[:, None]
            for column, side in zip(points.unbind(-1), self.half.unbind(-1), strict=True)
        )
        outside = norm(x.clamp_min(0), y.clamp_min(0), z.clamp_min(0))
        return outside + torch.maximum(torch.maximum(x, y), z).clamp_max(0)

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        parts = (direction.abs() * self.half).unbind(-1)
        return parts[0] + parts[1] + parts[2]

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        a, b, c = self.half.unbind(-1)
        face, rest = choose(pick, [b * c, c * a, a * b])
        sign, first, second = random_sign(rest), 2 * u - 1, 2 * v - 1
        x = torch.where(face == 0, sign, first)
        y = torch.where(face == 1, sign, torch.where(face == 0, first, second))
        z = torch.where(face == 2, sign, second)
        return columns(x * a[:, None], y * b[:, None], z * c[:, None])


@dataclass(frozen=True)
class HexagonalPrism:
    """A prism along y over a regular hexagon that has two sides across x.

    Attributes:
        apothem: From the axis to a side, ``[n]``.
        half_height: ``[n]``.
    """

    apothem: Tensor
    half_height: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 4 * _HEXAGON * self.apothem * (self.apothem + 2 * self.half_height)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        apothem = self.apothem[:, None]
        across, along = x.abs(), z.abs()
        # Mirror the corner's far side onto the side across x.
        over = ((along * (_HEXAGON / 2)) - across / 2).clamp_min(0) * 2
        across, along = across + over / 2, along - over * (_HEXAGON / 2)
        edge = apothem / _HEXAGON
        beyond = along - torch.minimum(torch.maximum(along, -edge), edge)
        flat = norm(across - apothem, beyond)
        return rectangle_distance(
            torch.where(across < apothem, -flat, flat), y.abs() - self.half_height[:, None]
        )

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.abs().unbind(-1)
        edge = self.apothem / _HEXAGON
        return torch.maximum(self.apothem * x + edge * z, 2 * edge * z) + self.half_height * y

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        apothem, edge = self.apothem[:, None], self.apothem[:, None] / _HEXAGON
        part, rest = choose(pick, [2 * self.half_height, self.apothem])
        sign = random_sign(rest)
        sixth = (rest * 6).floor().clamp_max(5)
        third = (rest * 2 % 1 * 3).floor().clamp_max(2)
        # The hexagon is three rhombi, each between the directions of two corners 120 degrees apart.
        rhombus_x, rhombus_z = v * apothem, (2 * u - v) * edge
        x = torch.where(part == 0, apothem, rhombus_x)
        z = torch.where(part == 0, (2 * u - 1) * edge, rhombus_z)
        steps = torch.where(part == 0, sixth, 2 * third)
        sixths = [math.radians(60 * step) for step in range(6)]
        cos = u.new_tensor([math.cos(angle) for angle in sixths])[steps.long()]
        sin = u.new_tensor([math.sin(angle) for angle in sixths])[steps.long()]
        height = self.half_height[:, None] * torch.where(part == 0, 2 * v - 1, sign)
        return columns(cos * x - sin * z, height, sin * x + cos * z)


@dataclass(frozen=True)
class Octahedron:
    """A regular octahedron with its corners on the axes.

    Attributes:
        radius: From the centre to a corner, ``[n]``.
    """

    radius: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 4 * _HEXAGON * self.radius**2

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.abs().unbind(-1)
        radius = self.radius[:, None]
        over = x + y + z - radius
        # The coordinate that leaves the face comes first; a and b are those of the edge there.
        by_x, by_y, by_z = 3 * x < over, 3 * y < over, 3 * z < over
        out = torch.where(by_x, x, torch.where(by_y, y, z))
        a = torch.where(by_x, y, torch.where(by_y, z, x))
        b = torch.where(by_x, z, torch.where(by_y, x, y))
        along = torch.minimum(((b - a + radius) / 2).clamp_min(0), radius)
        edge = norm(out, a - radius + along, b - along)
        return torch.where(by_x | by_y | by_z, edge, over / _HEXAGON)

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.abs().unbind(-1)
        return self.radius * torch.maximum(torch.maximum(x, y), z)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        signs = [random_sign(pick), random_sign(pick * 2 % 1), random_sign(pick * 4 % 1)]
        parts = in_triangle(u, v)
        return columns(*(self.radius[:, None] * s * p for s, p in zip(signs, parts, strict=True)))


@dataclass(frozen=True)
class Pyramid:
    """A pyramid over a square: the base at height 0, the tip at ``height``.

    Attributes:
        half_side: Half of the base's side, ``[n]``.
        height: ``[n]``.
    """

    half_side: Tensor
    height: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 4 * self.half_side * (self.half_side + self._slant)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        x, z = x.abs(), z.abs()
        x, z = torch.maximum(x, z), torch.minimum(x, z)
        half, height, slant = self.half_side[:, None], self.height[:, None], self._slant[:, None]
        # In the plane of the face towards x: z across, `up` along the slope, `out` off the plane.
        up = (y * height - (x - half) * half) / slant
        out = ((x - half) * height + y * half) / slant
        share = (up * slant - (z - half) * half) / (slant**2 + half**2)
        share = share.clamp(0, 1)
        rim = (z - half + half * share) ** 2 + (up - slant * share) ** 2
        foot = (z - half).clamp_min(0) ** 2 + up**2
        in_face = (up >= 0) & ((z - half) * slant + up * half <= 0)
        face = torch.where(in_face, 0.0, torch.minimum(rim, foot)) + out**2
        base = (x - half).clamp_min(0) ** 2 + (z - half).clamp_min(0) ** 2 + y**2
        nearest = torch.minimum(face, base).sqrt()
        return torch.where((y > 0) & (out < 0), -nearest, nearest)

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        return torch.maximum(self.half_side * (x.abs() + z.abs()), self.height * y)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, rest = choose(pick, [self.half_side, self._slant])
        first, second, tip = in_triangle(u, v)
        half = self.half_side[:, None]
        x, z = (first + second) * half, (first - second) * half
        swap, sign = rest * 2 % 1 < 0.5, random_sign(rest)
        x, z = torch.where(swap, z, x) * sign, torch.where(swap, x, z) * sign
        on_base = part == 0
        return columns(
            torch.where(on_base, (2 * u - 1) * half, x),
            torch.where(on_base, 0.0, tip * self.height[:, None]),
            torch.where(on_base, (2 * v - 1) * half, z),
        )

    @property
    def _slant(self) -> Tensor:
        return norm(self.half_side, self.height)
