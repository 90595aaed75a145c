"""From a model's configuration to a network that reads rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models import ModelConfig
from classifiers.normalisation import TensorNormalisation
from classifiers.space import WeightSpace


class WeightReader(nn.Module):
    """A model with the normalisation it was trained with: rows ``[B, P]`` to ``[B, K]``."""

    def __init__(self, normalisation: TensorNormalisation, model: nn.Module) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        """Read rows as they are stored."""
        outputs: Tensor = self.model(FieldBatch(rows, self.normalisation(rows)))
        return outputs


class PropertyScale(nn.Module):
    """Between properties in their own units and the outputs of a network; float64.

    An output is ``(value - mean) / std`` with the numbers of the training split.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_properties: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_properties, dtype=torch.float64))
        self.register_buffer("std", torch.ones(num_properties, dtype=torch.float64))

    def measure(self, values: Tensor) -> None:
        """Take the numbers from the values ``[N, T]`` of the training split."""
        mean = values.double().mean(0)
        self.mean.copy_(mean)
        self.std.copy_((values.double() - mean).square().mean(0).sqrt())

    def standardised(self, values: Tensor) -> Tensor:
        """Return what the network has to put out, float32 ``[N, T]``."""
        return ((values.double() - self.mean) / self.std).float()

    def forward(self, outputs: Tensor) -> Tensor:
        """Return outputs ``[N, T]`` in the units of the properties."""
        return outputs.double() * self.std + self.mean


def build_reader(model: ModelConfig, space: WeightSpace, num_outputs: int) -> WeightReader:
    """Return a fresh network ``[B, P] -> [B, num_outputs]``; measure its normalisation first.

    Raises:
        TrainingError: If the model cannot read such fields.
    """
    normalisation = TensorNormalisation(space.spec, model.normalisation)
    return WeightReader(normalisation, model.build(space, num_outputs))


def read_rows(network: WeightReader, rows: Tensor, batch_size: int) -> Tensor:
    """Return the outputs ``[N, K]`` of rows ``[N, P]``: evaluation mode, no gradients.

    Args:
        network: Is left in evaluation mode.
        rows: Any number of them.
        batch_size: Of training; more rows fit into memory here, where nothing is kept for
            gradients.
    """
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part) for part in rows.split(4 * batch_size)])
