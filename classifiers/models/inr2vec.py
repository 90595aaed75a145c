"""The row encoder of inr2vec (De Luigi et al. 2023, ICLR), trained as a classifier."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.base import Access
from classifiers.models.settings import check_at_least, check_shares
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.errors import TrainingError
from nefbench.spec import TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Inr2Vec:
    """Every row of the stacked weights through one MLP, the maximum over rows, a classifier.

    A row holds the weights that enter one neuron, or all biases of a layer. The published network
    reads the hidden maps alone (``layers="hidden"``), whose rows all have the width of the field.
    With ``"all"`` the first and the last map are read too: rows are padded with zeros to the
    longest, and a learned vector tells tensors apart, and outputs, which are not exchangeable.

    Published: fields with four hidden maps of width 512, the encoder trained first to reconstruct
    them, then frozen under the classifier. Here both are trained at once, on labels.
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "standardise"
    kind: Literal["inr2vec"] = "inr2vec"
    layers: Literal["all", "hidden"] = "all"
    """Which rows are read: those of every map, or of maps between hidden layers."""
    encoder_dims: tuple[int, ...] = (512, 512, 1024, 1024)
    """Width of every hidden map of the row encoder."""
    embedding_dim: int = 1024
    """Length of the vector that a field becomes."""
    classifier_dims: tuple[int, ...] = (512, 256)
    """Width of every hidden map of the classifier."""
    dropout: float = 0.5
    """Share of hidden units of the classifier dropped while training."""

    def __post_init__(self) -> None:
        if not self.encoder_dims or min(self.encoder_dims) < 1:
            raise ValueError(f"expected one or more encoder_dims >= 1 (got {self.encoder_dims})")
        check_at_least(1, self, "classifier_dims", "embedding_dim")
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """None: neurons in another order reorder the entries of the next map's rows."""
        del space
        return frozenset()

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``; it reads anything.

        Raises:
            TrainingError: If only maps between hidden layers are to be read and there are none.
        """
        tensors = space.spec.tensors
        if self.layers == "hidden":
            tensors = _hidden_tensors(tensors)
        if not tensors:
            raise TrainingError(
                f"model {self.kind!r} with layers 'hidden' reads fields with a map between hidden "
                f"layers (got {space.name} without one); layers 'all' reads them"
            )
        return RowEncoder(self, space, tensors, num_outputs)


def _hidden_tensors(tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Keep maps between hidden layers and the vectors of the neurons that they enter."""
    entered = {
        tensor.axes[-1]
        for tensor in tensors
        if len(tensor.axes) > 1 and None not in tensor.axes[-2:]
    }
    return tuple(
        tensor
        for tensor in tensors
        if tensor.axes[-1] in entered and (len(tensor.axes) == 1 or tensor.axes[-2] is not None)
    )


class RowEncoder(nn.Module):
    """Rows through one MLP, the maximum over rows, a classifier."""

    roles: Tensor

    def __init__(
        self, config: Inr2Vec, space: WeightSpace, tensors: Sequence[TensorSpec], num_outputs: int
    ) -> None:
        super().__init__()
        self.spec = space.spec
        self.tensors = tuple(tensors)
        lengths = [_row_shape(tensor)[1] for tensor in tensors]
        vectors = [tensor.axes for tensor in tensors if len(tensor.axes) == 1]
        self.longest = max(lengths)
        dims = config.encoder_dims
        self.first = nn.Linear(self.longest, dims[0])
        # Published rows are of two kinds, the weights of a neuron and the biases of a layer, all of
        # one length; anything else is told apart.
        self.role_vectors: nn.Embedding | None = None
        if config.layers == "all" or len(set(lengths)) > 1 or len(set(vectors)) < len(vectors):
            roles = torch.tensor(list(_roles(tensors)))
            self.register_buffer("roles", roles, persistent=False)
            self.role_vectors = nn.Embedding(1 + int(roles.max()), dims[0])
        layers: list[nn.Module] = [nn.BatchNorm1d(dims[0]), nn.ReLU()]
        for before, after in itertools.pairwise(dims):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Linear(dims[-1], config.embedding_dim))
        dims = (config.embedding_dim, *config.classifier_dims)
        layers = []
        for before, after in itertools.pairwise(dims):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
        self.classifier = nn.Sequential(*layers, nn.Linear(dims[-1], num_outputs))

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows of weights to ``[B, K]``."""
        hidden = self.first(self.stacked(batch.normalised))
        if self.role_vectors is not None:
            hidden = hidden + self.role_vectors(self.roles)
        encoded = self.encoder(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        outputs: Tensor = self.classifier(encoded.amax(1))
        return outputs

    def stacked(self, weights: Tensor) -> Tensor:
        """View ``[B, P]`` as ``[B, R, longest]``, a row per neuron or per layer's biases."""
        parts = self.spec.unflatten(weights)
        rows = []
        for tensor in self.tensors:
            num_rows, length = _row_shape(tensor)
            columns = parts[tensor.name].reshape(len(weights), length, num_rows)
            rows.append(F.pad(columns.mT, (0, self.longest - length)))
        return torch.cat(rows, dim=1)


def _row_shape(tensor: TensorSpec) -> tuple[int, int]:
    """Return how many rows a tensor has, and how long they are."""
    if len(tensor.axes) == 1:
        return 1, tensor.size
    num_rows = tensor.symmetry_shape[-1]
    return num_rows, tensor.size // num_rows


def _roles(tensors: Sequence[TensorSpec]) -> Iterator[int]:
    """Number what the rows are: those of a tensor alike, but outputs one by one."""
    count = itertools.count()
    for tensor in tensors:
        num_rows, _ = _row_shape(tensor)
        if tensor.axes[-1] is None:
            yield from itertools.islice(count, num_rows)
        else:
            yield from itertools.repeat(next(count), num_rows)
