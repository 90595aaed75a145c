"""The flat-weight MLP: a row of weights as a plain vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


@dataclass(frozen=True, kw_only=True, slots=True)
class MLP:
    """Linear maps with an activation between them, on the normalised flat row.

    It knows nothing of symmetries: neurons in another order are other inputs. The default is the
    strong setting; ``hidden_dims=(64,) * 5`` with ReLU and batch normalisation is the released
    example of the published study, ``(32,) * 5`` the baseline of Navon et al. 2023
    (42,762 parameters on rows of 1,185 weights).
    """

    kind: Literal["mlp"] = "mlp"
    hidden_dims: tuple[int, ...] = (1024, 512, 256)
    """Width of every hidden map."""
    activation: Literal["relu", "gelu"] = "gelu"
    batch_norm: bool = False
    """Batch normalisation after every hidden map but the first, as published."""
    dropout: float = 0.1
    """Share of hidden units dropped while training."""

    def __post_init__(self) -> None:
        if any(dim < 1 for dim in self.hidden_dims):
            raise ValueError(f"expected hidden_dims >= 1 (got {self.hidden_dims})")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected 0 <= dropout < 1 (got {self.dropout})")

    def build(self, num_inputs: int, num_classes: int) -> nn.Module:
        """Return a fresh network ``[B, num_inputs] -> [B, num_classes]`` (logits)."""
        layers: list[nn.Module] = []
        width = num_inputs
        for index, dim in enumerate(self.hidden_dims):
            layers.append(nn.Linear(width, dim))
            if self.batch_norm and index > 0:
                layers.append(nn.BatchNorm1d(dim))
            layers.append(_ACTIVATIONS[self.activation]())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            width = dim
        return nn.Sequential(*layers, nn.Linear(width, num_classes))
