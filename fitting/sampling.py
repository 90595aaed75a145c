"""Which points are in the loss of a step: a function of the step, the same for all fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nefbench.seeding import permutation


class Sampling(Protocol):
    """Chooses points; hashable, and equal where it chooses the same."""

    @property
    def num_sampled(self) -> int:
        """Points ``q`` in one step's loss."""

    def __hash__(self) -> int:
        """Equal samplings have equal hashes: tables of points are kept by it."""

    def points(self, step: int) -> Tensor:
        """Positions ``[q]`` among the points of a field, for a step counted from 1; on the CPU."""


@dataclass(frozen=True)
class GridShare:
    """A fresh draw of grid points in every step, without repetition.

    Attributes:
        seed: Seed of the draws.
        num_points: Points ``Q`` of the grid.
        num_sampled: How many are drawn.
    """

    seed: int
    num_points: int
    num_sampled: int

    def points(self, step: int) -> Tensor:
        """Positions ``[q]``; see ``Sampling.points``."""
        return permutation(self.seed, "fit/pixels", self.num_points, step)[: self.num_sampled]


@dataclass(frozen=True)
class Windows:
    """The next contiguous points of every range, which begins anew where it ends.

    With a range of points outside of a shape before one of points inside, every step is balanced
    (fit-a-nef's sampling of shapes).

    Attributes:
        ranges: ``(points in the range, points taken per step)``, laid one after another.
    """

    ranges: tuple[tuple[int, int], ...]

    @property
    def num_sampled(self) -> int:
        """Points ``q`` in one step's loss."""
        return sum(taken for _, taken in self.ranges)

    def points(self, step: int) -> Tensor:
        """Positions ``[q]``; see ``Sampling.points``."""
        chosen, start = [], 0
        for size, taken in self.ranges:
            first = (step - 1) * taken
            chosen.append(start + (first + torch.arange(taken)) % size)
            start += size
        return torch.cat(chosen)
