"""From a model's configuration to a network that reads rows."""

from __future__ import annotations

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


def build_reader(model: ModelConfig, space: WeightSpace, num_outputs: int) -> WeightReader:
    """Return a fresh network ``[B, P] -> [B, num_outputs]``; measure its normalisation first.

    Raises:
        TrainingError: If the model cannot read such fields.
    """
    normalisation = TensorNormalisation(space.spec, model.normalisation)
    return WeightReader(normalisation, model.build(space, num_outputs))
