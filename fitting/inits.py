"""Where fields start: one draw for all of them, or one draw each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nefbench.fields import FieldConfig
from nefbench.seeding import SHARED_INDEX, Draws


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """Every field starts from the same draw, a function of the seed alone."""

    kind: Literal["shared"] = "shared"

    def rows(
        self, field: FieldConfig, in_dim: int, out_dim: int, seed: int, indices: Sequence[int]
    ) -> Tensor:
        """Return start rows ``[n, P]`` for the signals with these indices."""
        return _draw(field, in_dim, out_dim, seed, (SHARED_INDEX,)).repeat(len(indices), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Random:
    """Every field starts from its own draw, a function of the seed and the signal's index."""

    kind: Literal["random"] = "random"

    def rows(
        self, field: FieldConfig, in_dim: int, out_dim: int, seed: int, indices: Sequence[int]
    ) -> Tensor:
        """Return start rows ``[n, P]`` for the signals with these indices."""
        return _draw(field, in_dim, out_dim, seed, tuple(indices))


InitConfig = Shared | Random
"""Every kind of start that can be named in a configuration."""


def _draw(
    field: FieldConfig, in_dim: int, out_dim: int, seed: int, indices: tuple[int, ...]
) -> Tensor:
    params = field.init(in_dim, out_dim, Draws(seed, indices))
    return field.spec(in_dim, out_dim).flatten(params)
