"""What a solid knows, and the arithmetic that all of them share; see the package's text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

_ANGLES = 2**16


class Solid(Protocol):
    """``n`` solids of one kind; see the package's text."""

    @property
    def area(self) -> Tensor:
        """Area of the surface, ``[n]``."""

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance, ``[n, q]``."""

    def support(self, direction: Tensor) -> Tensor:
        """Largest extent along ``direction``, ``[n]``."""

    def surface(self, unit: Tensor) -> Tensor:
        """Points of the surface, ``[n, q, 3]``."""


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


def norm(*parts: Tensor) -> Tensor:
    """Length of vectors from their coordinates."""
    squares = [part * part for part in parts]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return total.sqrt()


def rectangle_distance(across: Tensor, along: Tensor) -> Tensor:
    """Distance to a rectangle from how far a point lies beyond its two pairs of sides."""
    outside = norm(across.clamp_min(0), along.clamp_min(0))
    return outside + torch.maximum(across, along).clamp_max(0)


@cache
def _circle() -> tuple[Tensor, Tensor]:
    angles = torch.arange(_ANGLES, dtype=torch.float64) * (2 * math.pi / _ANGLES)
    return angles.cos().float(), angles.sin().float()


def on_circle(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of turns in [0, 1]."""
    place = (turns * _ANGLES).to(torch.int64) % _ANGLES
    cos, sin = _circle()
    return cos[place], sin[place]


def on_sphere(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of a point of the unit sphere, uniform."""
    height = 2 * u - 1
    radius = (1 - height * height).clamp_min(0).sqrt()
    cos, sin = on_circle(v)
    return radius * cos, height, radius * sin


def on_tube(pick: Tensor, turns: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Angles around a tube with a density of ``1 + ratio cos``: more of it lies outside.

    A uniform angle is mirrored with probability ``(1 - ratio cos) / 2``.
    """
    cos, sin = on_circle(turns)
    mirrored = pick < (1 - ratio[:, None] * cos) / 2
    return torch.where(mirrored, -cos, cos), sin


def in_triangle(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentric coordinates, uniform."""
    root = u.sqrt()
    return 1 - root, root * (1 - v), root * v


def random_sign(unit: Tensor) -> Tensor:
    """Turn uniform numbers into -1 or 1."""
    return torch.where(unit < 0.5, -1.0, 1.0)


def sign_of(values: Tensor) -> Tensor:
    """Sign, 1 for 0."""
    return torch.where(values < 0, -1.0, 1.0)
