"""What an engine computes: the final rows of one block of fields.

An engine is an implementation of ``Field.apply`` with an optimizer around it, never a second
definition of a field. All engines take the same problem and agree to stated tolerances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fitting.config import FitConfig
from nefbench.spec import ParamSpec


@dataclass(frozen=True)
class FitProblem:
    """What all blocks of one neural dataset have in common.

    Attributes:
        config: The recipe.
        spec: Names and shapes of a row.
        coords: Grid points, ``[Q, d]``, on the device to compute on.
    """

    config: FitConfig
    spec: ParamSpec
    coords: Tensor


class Engine(Protocol):
    """Fits blocks of fields."""

    @property
    def name(self) -> str:
        """Recorded with the weights."""

    def block_size(self, problem: FitProblem) -> int:
        """Fields per block: a rule of the problem alone, so that every run uses the same shapes."""

    def fit(
        self,
        problem: FitProblem,
        start: Tensor,
        targets: Tensor,
        check_stop: Callable[[], None],
    ) -> Tensor:
        """Fit one block.

        Args:
            problem: The common part.
            start: Start rows ``[B, P]``; not changed.
            targets: Normalised values ``[B, Q, c]``.
            check_stop: Called every few steps; raises to abandon the block.

        Returns:
            Rows ``[B, P]`` after exactly ``config.num_steps`` steps. A field whose numbers overflow
            keeps its non-finite weights; the others do not notice.
        """
