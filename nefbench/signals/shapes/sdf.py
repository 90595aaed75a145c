"""Solids with a closed-form signed distance, many at once.

Every solid stands around the origin with y upwards and holds parameters of ``n`` solids of its
kind. It knows four things:

* ``distance(points)``: ``[n, q, 3] -> [n, q]``, Euclidean, negative inside;
* ``support(direction)``: ``[n, 3] -> [n]``, the largest ``direction . x`` over the solid;
* ``area``: ``[n]``, of its surface;
* ``surface(unit)``: ``[n, q, 3] -> [n, q, 3]``, points uniform over the surface from numbers
  uniform in [0, 1).

All arithmetic is element by element, with operations that are exactly rounded, so that the same
solid and point give the same bits in any batch: no sums over an axis, no matrix products, and
angles from a table. Points are read column by column; keep columns contiguous where speed counts.

Sources: the distances of cylinder, capped cone, hexagonal prism, octahedron and link follow
I. Quilez, "Distance functions" (iquilezles.org/articles/distfunctions); the others are derived
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

_ANGLES = 2**16
_HEXAGON = math.sqrt(3.0)


class Solid(Protocol):
    """``n`` solids of one kind; see the module's text."""

    @property
    def area(self) -> Tensor:
        """Area of the surface, ``[n]``."""

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance, ``[n, q]``."""

    def support(self, direction: Tensor) -> Tensor:
        """Largest extent along ``direction``, ``[n]``."""

    def surface(self, unit: Tensor) -> Tensor:
        """Points of the surface, ``[n, q, 3]``."""


@dataclass(frozen=True)
class Sphere:
    """A ball.

    Attributes:
        radius: ``[n]``.
    """

    radius: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 4 * math.pi * self.radius**2

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        return _norm(*points.unbind(-1)) - self.radius[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return self.radius * _norm(*direction.unbind(-1))

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        _, u, v = unit.unbind(-1)
        return columns(*(self.radius[:, None] * part for part in _on_sphere(u, v)))


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
        return _box_distance(points, self.half)

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        parts = (direction.abs() * self.half).unbind(-1)
        return parts[0] + parts[1] + parts[2]

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        a, b, c = self.half.unbind(-1)
        face, rest = choose(pick, [b * c, c * a, a * b])
        sign, first, second = _sign(rest), 2 * u - 1, 2 * v - 1
        x = torch.where(face == 0, sign, first)
        y = torch.where(face == 1, sign, torch.where(face == 0, first, second))
        z = torch.where(face == 2, sign, second)
        return columns(x * a[:, None], y * b[:, None], z * c[:, None])


@dataclass(frozen=True)
class RoundedBox:
    """A box with round edges and corners.

    Attributes:
        half: Half of its sides, rounding included, ``[n, 3]``.
        rounding: Radius of edges and corners, below the smallest ``half``, ``[n]``.
    """

    half: Tensor
    rounding: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        faces, edges, corners = self._areas()
        return faces[0] + faces[1] + faces[2] + edges[0] + edges[1] + edges[2] + corners

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        return _box_distance(points, self._core) - self.rounding[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return Box(self._core).support(direction) + Sphere(self.rounding).support(direction)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``: a point of the box within, moved along a normal that it has there."""
        pick, u, v = unit.unbind(-1)
        faces, edges, corners = self._areas()
        kind, rest = choose(pick, [*faces, *edges, corners])
        cos, sin = _on_circle(v)
        ball = _on_sphere(u, v)
        sign, first, second = _sign(rest), 2 * u - 1, 2 * v - 1
        found = []
        for axis in range(3):
            before, after = (axis + 2) % 3, (axis + 1) % 3
            normal = torch.where(kind == axis, sign, ball[axis])
            normal = torch.where(kind == 3 + before, cos, normal)
            normal = torch.where(kind == 3 + after, sin, normal)
            free_first, free_second = (kind == before) | (kind == 3 + axis), kind == after
            place = torch.where(free_second, second, _sign_of(normal))
            place = torch.where(free_first, first, place)
            normal = torch.where(free_first | free_second, 0.0, normal)
            found.append(self._core[:, None, axis] * place + self.rounding[:, None] * normal)
        return columns(*found)

    @property
    def _core(self) -> Tensor:
        return self.half - self.rounding[:, None]

    def _areas(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        a, b, c = self._core.unbind(-1)
        faces = [8 * b * c, 8 * c * a, 8 * a * b]
        edges = [4 * math.pi * self.rounding * side for side in (a, b, c)]
        return faces, edges, Sphere(self.rounding).area


@dataclass(frozen=True)
class Torus:
    """A ring around the y axis.

    Attributes:
        major: Radius of the circle in the middle of the tube, ``[n]``.
        minor: Radius of the tube, below ``major``, ``[n]``.
    """

    major: Tensor
    minor: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 4 * math.pi**2 * self.major * self.minor

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        return _norm(_norm(x, z) - self.major[:, None], y) - self.minor[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        return self.major * _norm(x, z) + self.minor * _norm(x, y, z)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        outwards, upwards = _on_tube(pick, u, self.minor / self.major)
        cos, sin = _on_circle(v)
        radius = self.major[:, None] + self.minor[:, None] * outwards
        return columns(radius * cos, self.minor[:, None] * upwards, radius * sin)


@dataclass(frozen=True)
class Capsule:
    """A rod along y with round ends.

    Attributes:
        half_length: Half of the straight part, ``[n]``.
        radius: ``[n]``.
    """

    half_length: Tensor
    radius: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 4 * math.pi * self.radius * (self.half_length + self.radius)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        beyond = (y.abs() - self.half_length[:, None]).clamp_min(0)
        return _norm(x, beyond, z) - self.radius[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return self.half_length * direction[:, 1].abs() + Sphere(self.radius).support(direction)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, _ = choose(pick, [self.half_length, self.radius])
        cos, sin = _on_circle(v)
        x, y, z = _on_sphere(u, v)
        middle = part == 0
        length = self.half_length[:, None] * torch.where(middle, 2 * u - 1, _sign_of(y))
        radius = self.radius[:, None]
        return columns(
            radius * torch.where(middle, cos, x),
            length + radius * torch.where(middle, 0.0, y),
            radius * torch.where(middle, sin, z),
        )


@dataclass(frozen=True)
class Cylinder:
    """A cylinder along y.

    Attributes:
        radius: ``[n]``.
        half_height: ``[n]``.
    """

    radius: Tensor
    half_height: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 2 * math.pi * self.radius * (self.radius + 2 * self.half_height)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        return _rectangle(_norm(x, z) - self.radius[:, None], y.abs() - self.half_height[:, None])

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        return self.radius * _norm(x, z) + self.half_height * y.abs()

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        return Cone(self.radius, self.radius, self.half_height).surface(unit)


@dataclass(frozen=True)
class Tube:
    """A cylinder along y with a round hole through it.

    Attributes:
        inner: Radius of the hole, ``[n]``.
        outer: Radius of the cylinder, ``[n]``.
        half_height: ``[n]``.
    """

    inner: Tensor
    outer: Tensor
    half_height: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        sides, ends = self._areas()
        return 2 * math.pi * (sides + ends)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        middle, half = (self.inner + self.outer) / 2, (self.outer - self.inner) / 2
        return _rectangle(
            (_norm(x, z) - middle[:, None]).abs() - half[:, None],
            y.abs() - self.half_height[:, None],
        )

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return Cylinder(self.outer, self.half_height).support(direction)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        sides, ends = self._areas()
        part, rest = choose(pick, [sides, ends])
        side, _ = choose(rest, [self.inner, self.outer])
        inner, outer = self.inner[:, None], self.outer[:, None]
        ring = (inner**2 + u * (outer**2 - inner**2)).sqrt()
        radius = torch.where(part == 0, torch.where(side == 0, inner, outer), ring)
        height = self.half_height[:, None] * torch.where(part == 0, 2 * u - 1, _sign(rest))
        cos, sin = _on_circle(v)
        return columns(radius * cos, height, radius * sin)

    def _areas(self) -> tuple[Tensor, Tensor]:
        sides = 2 * self.half_height * (self.inner + self.outer)
        return sides, self.outer**2 - self.inner**2


@dataclass(frozen=True)
class Cone:
    """A cone along y, cut off at the top unless ``top`` is 0.

    Attributes:
        bottom: Radius at the lower end, ``[n]``.
        top: Radius at the upper end, ``[n]``.
        half_height: ``[n]``.
    """

    bottom: Tensor
    top: Tensor
    half_height: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        parts = self._areas()
        return math.pi * (parts[0] + parts[1] + parts[2])

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        bottom, top = self.bottom[:, None], self.top[:, None]
        half = self.half_height[:, None]
        radius = _norm(x, z)
        end_across = radius - torch.minimum(radius, torch.where(y < 0, bottom, top))
        end_along = y.abs() - half
        slope = top - bottom
        share = (top - radius) * slope + (half - y) * (2 * half)
        share = (share / (slope**2 + 4 * half**2)).clamp(0, 1)
        side_across = radius - top + slope * share
        side_along = y - half + 2 * half * share
        nearest = torch.minimum(end_across**2 + end_along**2, side_across**2 + side_along**2).sqrt()
        return torch.where((side_across < 0) & (end_along < 0), -nearest, nearest)

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        across = _norm(x, z)
        up = self.half_height * y
        return torch.maximum(self.bottom * across - up, self.top * across + up)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, _ = choose(pick, self._areas())
        bottom, top = self.bottom[:, None], self.top[:, None]
        # Uniform over the side: the squared radius is uniform, or the height where it is upright.
        slope = top - bottom
        upright = slope.abs() < 1e-4 * (top + bottom)
        side = (bottom**2 + u * (top**2 - bottom**2)).sqrt()
        share = torch.where(upright, u, (side - bottom) / torch.where(upright, 1.0, slope))
        root = u.sqrt()
        radius = torch.where(part == 0, side, torch.where(part == 1, bottom, top) * root)
        height = torch.where(part == 0, 2 * share - 1, torch.where(part == 1, -1.0, 1.0))
        cos, sin = _on_circle(v)
        return columns(radius * cos, self.half_height[:, None] * height, radius * sin)

    def _areas(self) -> list[Tensor]:
        slant = _norm(self.top - self.bottom, 2 * self.half_height)
        return [(self.bottom + self.top) * slant, self.bottom**2, self.top**2]


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
        flat = _norm(across - apothem, beyond)
        return _rectangle(
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
        sign = _sign(rest)
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
        edge = _norm(out, a - radius + along, b - along)
        return torch.where(by_x | by_y | by_z, edge, over / _HEXAGON)

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.abs().unbind(-1)
        return self.radius * torch.maximum(torch.maximum(x, y), z)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        signs = [_sign(pick), _sign(pick * 2 % 1), _sign(pick * 4 % 1)]
        parts = _in_triangle(u, v)
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
        first, second, tip = _in_triangle(u, v)
        half = self.half_side[:, None]
        x, z = (first + second) * half, (first - second) * half
        swap, sign = rest * 2 % 1 < 0.5, _sign(rest)
        x, z = torch.where(swap, z, x) * sign, torch.where(swap, x, z) * sign
        on_base = part == 0
        return columns(
            torch.where(on_base, (2 * u - 1) * half, x),
            torch.where(on_base, 0.0, tip * self.height[:, None]),
            torch.where(on_base, (2 * v - 1) * half, z),
        )

    @property
    def _slant(self) -> Tensor:
        return _norm(self.half_side, self.height)


@dataclass(frozen=True)
class Link:
    """A link of a chain: a ring in the x-y plane, stretched along y.

    Attributes:
        half_length: Half of the straight parts, ``[n]``.
        major: Radius of the round parts' middle line, ``[n]``.
        minor: Radius of the tube, below ``major``, ``[n]``.
    """

    half_length: Tensor
    major: Tensor
    minor: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return 2 * math.pi * self.minor * (2 * math.pi * self.major + 4 * self.half_length)

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        beyond = (y.abs() - self.half_length[:, None]).clamp_min(0)
        return _norm(_norm(x, beyond) - self.major[:, None], z) - self.minor[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        ring = self.major * _norm(x, y) + self.minor * _norm(x, y, z)
        return ring + self.half_length * y.abs()

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, rest = choose(pick, [math.pi * self.major, 2 * self.half_length])
        cos, sin = _on_circle(v)
        straight = part == 1
        # On a straight part the ring's direction is -x or x, and y goes along it.
        along = torch.where(straight, 4 * v % 2 - 1, _sign_of(sin))
        cos = torch.where(straight, torch.where(v < 0.5, -1.0, 1.0), cos)
        sin = torch.where(straight, 0.0, sin)
        bent, bent_z = _on_tube(rest, u, self.minor / self.major)
        even, even_z = _on_circle(u)
        outwards = torch.where(straight, even, bent)
        radius = self.major[:, None] + self.minor[:, None] * outwards
        return columns(
            radius * cos,
            radius * sin + self.half_length[:, None] * along,
            self.minor[:, None] * torch.where(straight, even_z, bent_z),
        )


@dataclass(frozen=True)
class Handle:
    """The half of a link where x > 0, with round ends at x = 0.

    Attributes:
        half_length: Half of the straight part, ``[n]``.
        major: Radius of the round parts' middle line, ``[n]``.
        minor: Radius of the tube, below ``major``, ``[n]``.
    """

    half_length: Tensor
    major: Tensor
    minor: Tensor

    @property
    def area(self) -> Tensor:
        """See ``Solid``."""
        return self._link.area / 2 + 4 * math.pi * self.minor**2

    def distance(self, points: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = points.unbind(-1)
        beyond = y.abs() - self.half_length[:, None]
        flat = _norm(x, beyond.clamp_min(0)) - self.major[:, None]
        # Behind the ends either of them is nearest, or the straight part.
        end = _norm(x, beyond - self.major[:, None])
        across = _norm(x - self.major[:, None], beyond.clamp_min(0))
        flat = torch.where(x < 0, torch.minimum(end, across), flat.abs())
        return _norm(flat, z) - self.minor[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        ring = self.major * _norm(x.clamp_min(0), y) + self.minor * _norm(x, y, z)
        return ring + self.half_length * y.abs()

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, rest = choose(pick, [self._link.area / 2, 4 * math.pi * self.minor**2])
        x, y, z = self._link.surface(torch.stack([rest, u, v], -1)).unbind(-1)
        ball = _on_sphere(u, v)
        reach, minor = (self.half_length + self.major)[:, None], self.minor[:, None]
        on_tube = part == 0
        return columns(
            torch.where(on_tube, x.abs(), -minor * ball[0].abs()),
            torch.where(on_tube, y, reach * _sign(rest) + minor * ball[1]),
            torch.where(on_tube, z, minor * ball[2]),
        )

    @property
    def _link(self) -> Link:
        return Link(self.half_length, self.major, self.minor)


def columns(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Join coordinates ``[n, q]`` to points ``[n, q, 3]`` whose columns are contiguous."""
    return torch.stack([x, y, z]).movedim(0, -1)


def choose(pick: Tensor, shares: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Choose by shares ``[n]``: numbers ``[n, q]`` of the choices, and uniform numbers again."""
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    number = torch.zeros_like(pick)
    rest = pick / (shares[0] / total)[:, None].clamp_min(1e-12)
    passed = shares[0] / total
    for position, share in enumerate(shares[1:], start=1):
        width = (share / total)[:, None]
        here = pick >= passed[:, None]
        number = torch.where(here & (width > 0), float(position), number)
        inside = (pick - passed[:, None]) / width.clamp_min(1e-12)
        rest = torch.where(here & (width > 0), inside, rest)
        passed = passed + share / total
    return number, rest.clamp(0, 1 - 2**-24)


def _norm(*parts: Tensor) -> Tensor:
    squares = [part * part for part in parts]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return total.sqrt()


def _rectangle(across: Tensor, along: Tensor) -> Tensor:
    """Distance to a rectangle from how far a point lies beyond its two pairs of sides."""
    outside = _norm(across.clamp_min(0), along.clamp_min(0))
    return outside + torch.maximum(across, along).clamp_max(0)


def _box_distance(points: Tensor, half: Tensor) -> Tensor:
    x, y, z = (
        column.abs() - side[:, None]
        for column, side in zip(points.unbind(-1), half.unbind(-1), strict=True)
    )
    outside = _norm(x.clamp_min(0), y.clamp_min(0), z.clamp_min(0))
    return outside + torch.maximum(torch.maximum(x, y), z).clamp_max(0)


@cache
def _circle() -> tuple[Tensor, Tensor]:
    angles = torch.arange(_ANGLES, dtype=torch.float64) * (2 * math.pi / _ANGLES)
    return angles.cos().float(), angles.sin().float()


def _on_circle(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of turns in [0, 1]."""
    place = (turns * _ANGLES).to(torch.int64) % _ANGLES
    cos, sin = _circle()
    return cos[place], sin[place]


def _on_sphere(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    height = 2 * u - 1
    radius = (1 - height * height).clamp_min(0).sqrt()
    cos, sin = _on_circle(v)
    return radius * cos, height, radius * sin


def _on_tube(pick: Tensor, turns: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Angles around a tube with a density of ``1 + ratio cos``: more of it lies outside.

    A uniform angle is mirrored with probability ``(1 - ratio cos) / 2``.
    """
    cos, sin = _on_circle(turns)
    mirrored = pick < (1 - ratio[:, None] * cos) / 2
    return torch.where(mirrored, -cos, cos), sin


def _in_triangle(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentric coordinates, uniform."""
    root = u.sqrt()
    return 1 - root, root * (1 - v), root * v


def _sign(unit: Tensor) -> Tensor:
    return torch.where(unit < 0.5, -1.0, 1.0)


def _sign_of(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0)
