"""Who is measured: every model of the library, and the formulations that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models import ModelConfig
from classifiers.space import WeightSpace


@dataclass(frozen=True)
class Contender:
    """A network to be trained.

    Attributes:
        name: For tables.
        model: Its configuration.
        baseline: Name of the contender that it is compared with; None: with none.
        is_same: Whether the two compute the same function of the same state.
        is_sparse: Trained as a ``Batch`` of ``torch_geometric`` graphs, collated in every step.
    """

    name: str
    model: ModelConfig
    baseline: str | None = None
    is_same: bool = True
    is_sparse: bool = False

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return the network."""
        if not self.is_sparse:
            return self.model.build(space, num_outputs)
        from classifiers.bench.sparse import build_sparse

        return build_sparse(self.model, space, num_outputs)

    def feed(self, space: WeightSpace, rows: Tensor) -> Callable[[Tensor], object]:
        """Return what makes the network's input from positions of rows ``[N, P]``."""
        if not self.is_sparse:
            return lambda chosen: FieldBatch(rows[chosen], rows[chosen])
        from classifiers.bench.sparse import graph_feed

        return graph_feed(space, rows)


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device != "cpu":
        torch.cuda.synchronize(device)
