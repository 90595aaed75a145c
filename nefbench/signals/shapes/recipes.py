"""Twelve classes of things, each a recipe: parts with drawn proportions, y upwards, any size.

Parts overlap where they meet: where they only touched, the distance of their union would be zero
inside the thing. Nothing is thinner than about a thirtieth of the longest side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.seeding import random_words
from nefbench.signals.shapes.composites import Mirrored, Moved, Repeated, Union
from nefbench.signals.shapes.sdf import (
    Box,
    Capsule,
    Cone,
    Cylinder,
    Handle,
    Octahedron,
    Pyramid,
    RoundedBox,
    Solid,
    Torus,
    Tube,
)

_MOST_DRAWS = 16


@dataclass
class Proportions:
    """Numbers drawn one after another for ``n`` shapes, each shape's its own.

    Attributes:
        unit: Uniform in [0, 1), ``[n, 16]``.
    """

    unit: Tensor
    _taken: int = 0

    def between(self, low: float, high: float) -> Tensor:
        """Return a number from ``low`` to ``high`` per shape, ``[n]``."""
        self._taken += 1
        return low + (high - low) * self.unit[:, self._taken - 1]

    def whole(self, low: int, high: int) -> Tensor:
        """Return a whole number from ``low`` to ``high`` per shape, ``[n]``."""
        return self.between(low, high + 1).floor()

    def point(self, x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
        """Return ``[n, 3]`` from three coordinates, each ``[n]`` or the same for all."""
        return torch.stack([self.filled(part) for part in (x, y, z)], dim=-1)

    def filled(self, value: Tensor | float) -> Tensor:
        """Return ``[n]`` of one value."""
        return value if isinstance(value, Tensor) else self.unit.new_full((len(self.unit),), value)

    def turn(self, axis: int, degrees: Tensor | float) -> Tensor:
        """Return rotation matrices ``[n, 3, 3]`` about an axis."""
        return turn_about(axis, self.filled(degrees))


def draw_proportions(seed: int, class_name: str, indices: Sequence[int]) -> Proportions:
    """Draw the proportions of shapes; each a function of (seed, class, index)."""
    words = random_words(seed, f"shapes/proportions/{class_name}", indices, _MOST_DRAWS)
    return Proportions(unit_from_words(torch.from_numpy(words.view("int64"))))


def unit_from_words(words: Tensor) -> Tensor:
    """Map 32-bit words to float32 in [0, 1), 24 random bits."""
    return (words >> 8).to(torch.float32) * 2.0**-24


def turn_about(axis: int, degrees: Tensor) -> Tensor:
    """Return matrices ``[n, 3, 3]`` that turn about an axis by angles ``[n]``.

    Sines come one by one, so that they have the same bits in any batch.
    """
    radians = [math.radians(angle) for angle in degrees.tolist()]
    cos = degrees.new_tensor([math.cos(angle) for angle in radians])
    sin = degrees.new_tensor([math.sin(angle) for angle in radians])
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3).repeat(len(degrees), 1, 1)
    matrix[:, first, first], matrix[:, second, second] = cos, cos
    matrix[:, first, second], matrix[:, second, first] = -sin, sin
    return matrix


def airplane(draw: Proportions) -> Solid:
    """Fuselage, swept wings, engines, tail plane and fin; nose towards -z."""
    radius = draw.between(0.075, 0.1)
    lying = draw.turn(0, 90.0)
    fuselage = Moved(Capsule(0.5 - radius, radius), draw.point(0.0, 0.0, 0.0), lying)
    span, sweep = draw.between(0.4, 0.55), draw.between(5.0, 35.0)
    at, engine = draw.between(-0.1, 0.05), draw.between(0.032, 0.045)
    wings = _wings(draw, span, draw.between(0.08, 0.12), sweep, -radius / 3, at)
    engine_x = span * draw.between(0.38, 0.5)
    engines = Moved(
        Capsule(draw.filled(0.07), engine),
        draw.point(engine_x, -radius / 3 - engine, at + engine_x * sweep / 60),
        lying,
    )
    tail = _wings(draw, draw.between(0.17, 0.24), draw.between(0.05, 0.07), sweep, radius / 3, 0.36)
    rise = draw.between(0.16, 0.24)
    fin = Moved(Box(draw.point(0.018, rise / 2, 0.06)), draw.point(0.0, rise / 2, 0.4))
    return Union([fuselage, wings, Mirrored(engines, (0,)), tail, fin])


def bench(draw: Proportions) -> Solid:
    """A long seat on two slabs, before a back of two or three slats between posts."""
    seat, depth = draw.between(0.34, 0.42), draw.between(0.15, 0.2)
    board = draw.between(0.025, 0.035)
    top = Moved(Box(draw.point(0.5, board, depth)), draw.point(0.0, seat, 0.0))
    slab_x = draw.between(0.34, 0.44)
    slabs = Moved(
        Box(draw.point(draw.between(0.03, 0.05), seat / 2, 0.85 * depth)),
        draw.point(slab_x, seat / 2, 0.0),
    )
    rise = draw.between(0.28, 0.4)
    posts = Moved(
        Box(draw.point(0.03, (rise + seat / 2) / 2, 0.025)),
        draw.point(slab_x, seat + rise / 2 - seat / 4, -depth),
    )
    count = draw.whole(2, 3)
    step = 0.72 * rise / count
    slats = Repeated(Box(draw.point(0.5, 0.3 * step, 0.02)), step, count)
    back = Moved(slats, draw.point(0.0, seat + 0.6 * rise, 0.02 - depth))
    return Union([top, Mirrored(slabs, (0,)), Mirrored(posts, (0,)), back])


def bookcase(draw: Proportions) -> Solid:
    """Two sides, a back and three to six boards, open to the front."""
    width, depth = draw.between(0.26, 0.42), draw.between(0.12, 0.18)
    board = draw.between(0.018, 0.026)
    sides = Moved(Box(draw.point(board, 0.5, depth)), draw.point(width - board, 0.0, 0.0))
    back = Moved(Box(draw.point(width, 0.5, 0.018)), draw.point(0.0, 0.0, 0.018 - depth))
    count = draw.whole(3, 6)
    step = (1 - 2 * board) / (count - 1)
    boards = Repeated(Box(draw.point(width, board, depth)), step, count)
    return Union([Mirrored(sides, (0,)), back, boards])


def bottle(draw: Proportions) -> Solid:
    """A cylinder that narrows to a neck with a lip."""
    radius, neck = draw.between(0.14, 0.23), draw.between(0.045, 0.07)
    body, shoulder = draw.between(0.45, 0.6), draw.between(0.1, 0.22)
    lower = Moved(Cylinder(radius, body / 2), draw.point(0.0, body / 2, 0.0))
    # The shoulder begins inside the body.
    sunk = (shoulder + 0.02) / 2
    upper = Moved(Cone(radius, neck, sunk), draw.point(0.0, body + shoulder - sunk, 0.0))
    tall = (1 - body) / 2
    throat = Moved(Cylinder(neck, tall), draw.point(0.0, 1 - tall, 0.0))
    lip = Moved(
        Cylinder(neck + draw.between(0.012, 0.025), draw.filled(0.03)),
        draw.point(0.0, 0.97, 0.0),
    )
    return Union([lower, upper, throat, lip])


def car(draw: Proportions) -> Solid:
    """A body with a cabin on four wheels; front towards -z."""
    width, body = draw.between(0.19, 0.24), draw.between(0.08, 0.115)
    hull = RoundedBox(draw.point(width, body, 0.5), draw.filled(0.05))
    cabin, long = draw.between(0.09, 0.12), draw.between(0.2, 0.3)
    roof = Moved(
        RoundedBox(draw.point(0.86 * width, cabin, long), draw.between(0.05, 0.08)),
        draw.point(0.0, body + 0.6 * cabin, draw.between(-0.02, 0.12)),
    )
    wheel, axle = draw.between(0.085, 0.11), draw.between(0.28, 0.33)
    wheels = Moved(
        Cylinder(wheel, draw.between(0.035, 0.05)),
        draw.point(width - 0.03, -body, axle),
        draw.turn(2, 90.0),
    )
    return Union([hull, roof, Mirrored(wheels, (0, 2))])


def chair(draw: Proportions) -> Solid:
    """A seat on four legs with a back that leans a little."""
    width, depth = draw.between(0.2, 0.26), draw.between(0.2, 0.26)
    seat, board = draw.between(0.38, 0.48), draw.between(0.025, 0.04)
    leg = draw.between(0.024, 0.036)
    top = Moved(Box(draw.point(width, board, depth)), draw.point(0.0, seat, 0.0))
    legs = Moved(
        Box(draw.point(leg, seat / 2, leg)), draw.point(width - leg, seat / 2, depth - leg)
    )
    rise = draw.between(0.19, 0.27)
    back = Moved(
        Box(draw.point(width * draw.between(0.85, 1.0), rise, draw.between(0.02, 0.03))),
        draw.point(0.0, seat + rise, -depth),
        draw.turn(0, -draw.between(3.0, 15.0)),
    )
    return Union([top, Mirrored(legs, (0, 2)), back])


def house(draw: Proportions) -> Solid:
    """Four walls under a pyramid of a roof, with a chimney."""
    width, depth = draw.between(0.3, 0.36), draw.between(0.24, 0.36)
    wall, roof = draw.between(0.18, 0.3), draw.between(0.25, 0.42)
    walls = Moved(Box(draw.point(width, wall, depth)), draw.point(0.0, wall, 0.0))
    eaves = draw.between(0.4, 0.46)
    # The walls end inside the roof.
    top = Moved(Pyramid(eaves, roof), draw.point(0.0, 2 * wall - 0.02, 0.0))
    side, rise = draw.between(0.04, 0.06), draw.between(0.75, 0.95) * roof
    chimney = Moved(
        Box(draw.point(side, rise / 2, side)),
        draw.point(0.45 * eaves, 2 * wall + rise / 2, draw.between(-0.3, 0.3) * eaves),
    )
    return Union([walls, top, chimney])


def lamp(draw: Proportions) -> Solid:
    """A shade on a pole on a round foot."""
    foot, plate = draw.between(0.15, 0.22), draw.between(0.02, 0.035)
    base = Moved(Cylinder(foot, plate), draw.point(0.0, plate, 0.0))
    pole = Moved(Cylinder(draw.between(0.02, 0.03), draw.filled(0.4)), draw.point(0.0, 0.4, 0.0))
    shade = draw.between(0.14, 0.2)
    cone = Cone(draw.between(0.2, 0.32), draw.between(0.08, 0.17), shade)
    return Union([base, pole, Moved(cone, draw.point(0.0, 1 - shade, 0.0))])


def mug(draw: Proportions) -> Solid:
    """A hollow cylinder with a bottom and a handle towards x."""
    outer, wall = draw.between(0.3, 0.42), draw.between(0.05, 0.07)
    side = Tube(outer - wall, outer, draw.filled(0.5))
    plate = draw.between(0.03, 0.05)
    bottom = Moved(Cylinder(outer - wall / 2, plate), draw.point(0.0, plate - 0.5, 0.0))
    handle = Moved(
        Handle(draw.between(0.04, 0.14), draw.between(0.14, 0.2), draw.between(0.036, 0.05)),
        draw.point(outer - 0.01, draw.between(-0.06, 0.06), 0.0),
    )
    return Union([side, bottom, handle])


def ring(draw: Proportions) -> Solid:
    """An upright ring that bears a gem."""
    major, minor = draw.between(0.32, 0.4), draw.between(0.055, 0.09)
    band = Moved(Torus(major, minor), draw.point(0.0, 0.0, 0.0), draw.turn(0, 90.0))
    gem = draw.between(0.11, 0.17)
    stone = Moved(Octahedron(gem), draw.point(0.0, major + minor / 2 + 0.5 * gem, 0.0))
    return Union([band, stone])


def sofa(draw: Proportions) -> Solid:
    """A low block between two arms, with a thick back."""
    base, depth = draw.between(0.1, 0.14), draw.between(0.19, 0.25)
    block = Moved(Box(draw.point(0.49, base, depth)), draw.point(0.0, base, 0.0))
    arm, arm_rise = draw.between(0.05, 0.08), draw.between(0.16, 0.2)
    arms = Moved(
        RoundedBox(draw.point(arm, arm_rise, depth + 0.01), draw.filled(0.04)),
        draw.point(0.5 - arm, arm_rise, 0.0),
    )
    rise, thick = draw.between(0.24, 0.31), draw.between(0.055, 0.08)
    back = Moved(
        RoundedBox(draw.point(0.5, rise, thick), draw.filled(0.04)),
        draw.point(0.0, rise, thick - depth - 0.02),
    )
    return Union([block, Mirrored(arms, (0,)), back])


def table(draw: Proportions) -> Solid:
    """A flat top on four legs."""
    depth, height = draw.between(0.26, 0.45), draw.between(0.4, 0.65)
    board, leg = draw.between(0.02, 0.032), draw.between(0.025, 0.04)
    inset = draw.between(0.0, 0.06)
    top = Moved(Box(draw.point(0.5, board, depth)), draw.point(0.0, height - board, 0.0))
    legs = Moved(
        Box(draw.point(leg, height / 2 - board / 4, leg)),
        draw.point(0.49 - leg - inset, height / 2 - board / 4, depth - 0.01 - leg - inset),
    )
    return Union([top, Mirrored(legs, (0, 2))])


RECIPES: dict[str, Callable[[Proportions], Solid]] = {
    recipe.__name__: recipe
    for recipe in (
        airplane,
        bench,
        bookcase,
        bottle,
        car,
        chair,
        house,
        lamp,
        mug,
        ring,
        sofa,
        table,
    )
}
"""All classes, in order of their labels."""


def _wings(
    draw: Proportions,
    span: Tensor,
    chord: Tensor,
    sweep: Tensor,
    height: Tensor,
    at: Tensor | float,
) -> Solid:
    """Two boards from the middle plane outwards and back by ``sweep`` degrees."""
    # turn_about(1, -sweep) moves +x towards +z; inner corners stay in their own half.
    turned = draw.turn(1, -sweep)
    cos, sin = turned[:, 0, 0], turned[:, 2, 0]
    board = Box(draw.point(span / 2, 0.02, chord))
    place = draw.point(span / 2 * cos + chord * sin, height, at + span / 2 * sin)
    return Mirrored(Moved(board, place, turned), (0,))
