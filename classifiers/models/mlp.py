"""The flat-weight MLP: a row of weights as a plain vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.base import Access
from classifiers.models.layers import ACTIVATIONS
from classifiers.models.settings import check_at_least, check_shares
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class MLP:
    """Linear maps with an activation between them, on the normalised flat row.

    It knows nothing of symmetries: neurons in another order are other inputs. The default is the
    strong setting; ``hidden_dims=(64,) * 5`` with ReLU and batch normalisation is the released
    example of the published study, ``(32,) * 5`` the baseline of Navon et al. 2023
    (42,762 parameters on rows of 1,185 weights).
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "standardise"
    kind: Literal["mlp"] = "mlp"
    hidden_dims: tuple[int, ...] = (1024, 512, 256)
    """Width of every hidden map."""
    activation: Literal["relu", "gelu"] = "gelu"
    batch_norm: bool = False
    """Batch normalisation after every hidden map but the first, as published."""
    dropout: float = 0.1
    """Share of hidden units dropped while training."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "hidden_dims")
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """None: the order and the signs of neurons are part of what it reads."""
        del space
        return frozenset()

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``; it reads anything."""
        layers: list[nn.Module] = []
        width = space.num_params
        for index, dim in enumerate(self.hidden_dims):
            layers.append(nn.Linear(width, dim))
            if self.batch_norm and index > 0:
                layers.append(nn.BatchNorm1d(dim))
            layers.append(ACTIVATIONS[self.activation]())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            width = dim
        return FlatNetwork(*layers, nn.Linear(width, num_outputs))


class FlatNetwork(nn.Sequential):
    """Layers on the normalised flat row."""

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        outputs: Tensor = super().forward(batch.normalised)
        return outputs
