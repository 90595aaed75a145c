"""Phase probes: the field's own pass at learned points, plus a set of its last units.

The pass runs on weights split by ``nefbench.weights.phase_split``, so nothing depends on phases and
their periods: a state with the sign of its unit enters every message through its sine, which has
the sign too, and through its cosine, which has not. A round of messages costs two matrix products
per layer. The last units are read one by one, free of permutations, signs and phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.base import Access
from classifiers.models.layers import perceptron
from classifiers.models.settings import check_at_least, check_shares, check_siren
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.fields import Siren
from nefbench.weights.phase_split import phase_split
from nefbench.weights.symmetries import symmetry_kinds


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseProbes:
    """The field's own pass at learned points, and a set of its last units.

    State ``x_m = sum_k cos(x_k) A_km + sin(x_k) B_km`` of ``num_channels`` numbers, all units of a
    layer at once; the states of the inputs are learned points. Without ``mixing_rank`` a channel is
    the field's pass at its point, and the sum over the last units its value there. The parts that
    single units add to that value are read as a set beside it.
    """

    access: ClassVar[Access] = "function"
    normalisation: ClassVar[Normalisation] = "none"
    kind: Literal["phase-probes"] = "phase-probes"
    num_channels: int = 128
    """Channels of every state."""
    mixing_rank: int = 0
    """Rank of a learned map between the channels of a hidden state, added to the state; 0: none."""
    unit_dim: int = 32
    """Width of the perceptron that reads single units; 0: only their sum is read."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Width of every hidden map of the perceptron at the end."""
    dropout: float = 0.3
    """Share of its hidden units dropped while training."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_channels", "hidden_dims")
        check_at_least(0, self, "mixing_rank", "unit_dim")
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """All that a SIREN has."""
        return frozenset(symmetry_kinds(space.spec))

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the fields are no SIRENs.
        """
        return ProbesNetwork(self, space, check_siren(self.kind, space), num_outputs)


class ProbesNetwork(nn.Module):
    """States of the inputs, one round of messages per layer, readout.

    Shapes: states ``[B, D, n]``, channels before units; kernels ``[B, n, m]``.
    """

    def __init__(
        self, config: PhaseProbes, space: WeightSpace, field: Siren, num_outputs: int
    ) -> None:
        super().__init__()
        self._split = phase_split(field, space.in_dim, space.out_dim)
        self._dropout = config.dropout
        channels = config.num_channels
        points = space.half_side * (2 * torch.rand(channels, space.in_dim) - 1)
        self.inputs = nn.Parameter(points)
        # The first kernel is linear in the inputs' states: mixing before it would be no addition.
        ranks = [config.mixing_rank] * (field.num_layers - 2 if config.mixing_rank else 0)
        self.mixing = nn.ModuleList([_LowRank(channels, rank) for rank in ranks])
        width = channels * space.out_dim
        self.units: nn.Module | None = None
        if config.unit_dim:
            self.units = perceptron((2 * width, config.unit_dim, config.unit_dim), "gelu")
        # One mean and deviation for all channels: near the borders of images hardly anything
        # varies, and what does is no news.
        self.sum_norm = nn.BatchNorm1d(1, affine=False)
        self.head = perceptron(
            (width + config.unit_dim, *config.hidden_dims, num_outputs), "gelu", config.dropout
        )

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        # never in bfloat16: sines of large numbers would be other sines
        with torch.autocast(batch.weights.device.type, enabled=False):
            even, odd, bias = self.messages(batch.weights)
        sums = (even + odd).sum(2).flatten(1) + bias
        joined = self.sum_norm(sums[:, None])[:, 0]
        if self.units is not None:
            parts = torch.cat([even, odd], dim=1).transpose(1, 2).flatten(2)
            # As if every unit were alone: its share of a value grows with the number of units.
            seen = F.gelu(self.units(parts * parts.shape[1] ** 0.5)).mean(1)
            seen = F.dropout(seen, self._dropout, self.training)
            joined = torch.cat([joined, seen], dim=-1)
        logits: Tensor = self.head(joined)
        return logits

    def messages(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pass messages to the last hidden layer.

        Returns:
            What every unit adds to every output through its cosine and through its sine,
            ``[B, D, n, c]`` each, and the last bias ``[B, D * c]``.
        """
        parts = self._split.spec.unflatten(self._split.split(rows))
        first, *kernels, bias = parts.values()
        pairs = list(zip(kernels[::2], kernels[1::2], strict=True))
        states = self.inputs @ first
        for layer, pair in enumerate(pairs[:-1]):
            waves = torch.cat([states.cos(), states.sin()], dim=-1)
            states = waves @ torch.cat(pair, dim=-2)
            if self.mixing:
                states = self.mixing[layer](states)
        cosine, sine = (kernel[:, None] for kernel in pairs[-1])
        repeated = bias[:, None].expand(-1, len(self.inputs), -1).flatten(1)
        return states.cos()[..., None] * cosine, states.sin()[..., None] * sine, repeated


class _LowRank(nn.Module):
    """``x + (x U) V`` over the channels of ``[B, D, n]``; begins near the identity."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, dim) / dim**0.5)
        self.up = nn.Parameter(1e-2 * torch.randn(dim, rank) / rank**0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Mix channels."""
        return states + self.up @ (self.down @ states)
