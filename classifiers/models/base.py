"""What a model is: a frozen configuration that builds a network for a weight space."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

from torch import nn

from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace

Access = Literal["weights", "function"]
"""What a model looks at: the numbers in a row, or only what the field computes with them."""


class Model(Protocol):
    """Configuration of a model.

    The network that it builds maps a ``FieldBatch`` of ``B`` rows to ``[B, K]`` numbers.
    """

    access: ClassVar[Access]

    @property
    def kind(self) -> str:
        """Name of the model in configurations."""

    @property
    def normalisation(self) -> Normalisation:
        """How the rows are normalised before the network reads them."""

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """Kinds of symmetries (``nefbench.weights.symmetries``) that no output depends on."""

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the model cannot read such fields; the message says which it can.
        """
