"""Solids with curved faces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.signals.shapes.sdf.base import (
    choose,
    columns,
    norm,
    on_circle,
    on_sphere,
    on_tube,
    random_sign,
    rectangle_distance,
    sign_of,
)
from nefbench.signals.shapes.sdf.flat import Box


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
        return norm(*points.unbind(-1)) - self.radius[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return self.radius * norm(*direction.unbind(-1))

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        _, u, v = unit.unbind(-1)
        return columns(*(self.radius[:, None] * part for part in on_sphere(u, v)))


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
        return Box(self._core).distance(points) - self.rounding[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return Box(self._core).support(direction) + Sphere(self.rounding).support(direction)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``: a point of the box within, moved along a normal that it has there."""
        pick, u, v = unit.unbind(-1)
        faces, edges, corners = self._areas()
        kind, rest = choose(pick, [*faces, *edges, corners])
        cos, sin = on_circle(v)
        ball = on_sphere(u, v)
        sign, first, second = random_sign(rest), 2 * u - 1, 2 * v - 1
        found = []
        for axis in range(3):
            before, after = (axis + 2) % 3, (axis + 1) % 3
            normal = torch.where(kind == axis, sign, ball[axis])
            normal = torch.where(kind == 3 + before, cos, normal)
            normal = torch.where(kind == 3 + after, sin, normal)
            free_first, free_second = (kind == before) | (kind == 3 + axis), kind == after
            place = torch.where(free_second, second, sign_of(normal))
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
        return norm(norm(x, z) - self.major[:, None], y) - self.minor[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        return self.major * norm(x, z) + self.minor * norm(x, y, z)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        outwards, upwards = on_tube(pick, u, self.minor / self.major)
        cos, sin = on_circle(v)
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
        return norm(x, beyond, z) - self.radius[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        return self.half_length * direction[:, 1].abs() + Sphere(self.radius).support(direction)

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, _ = choose(pick, [self.half_length, self.radius])
        cos, sin = on_circle(v)
        x, y, z = on_sphere(u, v)
        middle = part == 0
        length = self.half_length[:, None] * torch.where(middle, 2 * u - 1, sign_of(y))
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
        return rectangle_distance(
            norm(x, z) - self.radius[:, None], y.abs() - self.half_height[:, None]
        )

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        return self.radius * norm(x, z) + self.half_height * y.abs()

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
        return rectangle_distance(
            (norm(x, z) - middle[:, None]).abs() - half[:, None],
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
        height = self.half_height[:, None] * torch.where(part == 0, 2 * u - 1, random_sign(rest))
        cos, sin = on_circle(v)
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
        radius = norm(x, z)
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
        across = norm(x, z)
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
        cos, sin = on_circle(v)
        return columns(radius * cos, self.half_height[:, None] * height, radius * sin)

    def _areas(self) -> list[Tensor]:
        slant = norm(self.top - self.bottom, 2 * self.half_height)
        return [(self.bottom + self.top) * slant, self.bottom**2, self.top**2]


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
        return norm(norm(x, beyond) - self.major[:, None], z) - self.minor[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        ring = self.major * norm(x, y) + self.minor * norm(x, y, z)
        return ring + self.half_length * y.abs()

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, rest = choose(pick, [math.pi * self.major, 2 * self.half_length])
        cos, sin = on_circle(v)
        straight = part == 1
        # On a straight part the ring's direction is -x or x, and y goes along it.
        along = torch.where(straight, 4 * v % 2 - 1, sign_of(sin))
        cos = torch.where(straight, torch.where(v < 0.5, -1.0, 1.0), cos)
        sin = torch.where(straight, 0.0, sin)
        bent, bent_z = on_tube(rest, u, self.minor / self.major)
        even, even_z = on_circle(u)
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
        flat = norm(x, beyond.clamp_min(0)) - self.major[:, None]
        # Behind the ends either of them is nearest, or the straight part.
        end = norm(x, beyond - self.major[:, None])
        across = norm(x - self.major[:, None], beyond.clamp_min(0))
        flat = torch.where(x < 0, torch.minimum(end, across), flat.abs())
        return norm(flat, z) - self.minor[:, None]

    def support(self, direction: Tensor) -> Tensor:
        """See ``Solid``."""
        x, y, z = direction.unbind(-1)
        ring = self.major * norm(x.clamp_min(0), y) + self.minor * norm(x, y, z)
        return ring + self.half_length * y.abs()

    def surface(self, unit: Tensor) -> Tensor:
        """See ``Solid``."""
        pick, u, v = unit.unbind(-1)
        part, rest = choose(pick, [self._link.area / 2, 4 * math.pi * self.minor**2])
        x, y, z = self._link.surface(torch.stack([rest, u, v], -1)).unbind(-1)
        ball = on_sphere(u, v)
        reach, minor = (self.half_length + self.major)[:, None], self.minor[:, None]
        on_tube = part == 0
        return columns(
            torch.where(on_tube, x.abs(), -minor * ball[0].abs()),
            torch.where(on_tube, y, reach * random_sign(rest) + minor * ball[1]),
            torch.where(on_tube, z, minor * ball[2]),
        )

    @property
    def _link(self) -> Link:
        return Link(self.half_length, self.major, self.minor)
