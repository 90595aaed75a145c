"""DWSNets: networks of layers that are equivariant to permutations of neurons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.chain import Chain, ChainLayout, chain_layout, to_chain
from classifiers.models.base import Access
from classifiers.models.dws_blocks import POOLED, ChainTensors, Pooling, Variant
from classifiers.models.dws_layer import DWSLayer, SetKind
from classifiers.models.layers import perceptron
from classifiers.models.settings import check_at_least, check_shares
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.errors import TrainingError


@dataclass(frozen=True, kw_only=True, slots=True)
class DWS:
    """Equivariant layers on the normalised weights, then an invariant one (Navon et al. 2023).

    Defaults are the published setting for fields of MNIST (arXiv 2301.12780 and its code):
    552,650 parameters on SIREN 3x32 with one output and ten classes, 320,586 with ``ds``.
    It reads chains of at least three layers. Fields whose layers hold several tensors are padded
    with zeros and get a learned number per tensor and feature.

    Unlike the released code it normalises by numbers per tensor, since numbers per entry are not
    equivariant.
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "standardise"
    kind: Literal["dws"] = "dws"
    set_layer: SetKind = "sab"
    """Self-attention blocks, or deep sets."""
    hidden_dim: int = 32
    """Features of every weight and bias between layers."""
    num_hidden: int = 4
    """Equivariant layers after the first."""
    num_heads: int = 8
    """Heads of self-attention; the last equivariant layer has one."""
    pooling: Pooling = "max"
    """How axes are pooled."""
    batch_norm: bool = True
    """Batch normalisation per tensor between equivariant layers."""
    dropout: float = 0.0
    """Share of features dropped after every activation."""
    skip: bool = False
    """Add a linear map of the input to what the last equivariant layer returns."""
    num_head_layers: int = 1
    """Linear maps from the pooled features to the outputs."""
    downsample: int | None = None
    """Read this many learned combinations of the inputs, for fields of many inputs."""
    diagonal: bool = False
    """Only maps within a layer of the field."""
    init_scale: float = 1.0
    """Factor on the initial weights of equivariant layers."""
    off_diagonal_scale: float = 1.0
    """Factor on the initial weights of maps between different tensors."""
    variant: Variant = "fixed"
    """``released`` repeats the code: fewer maps into the last weight (``block_table``), the factor
    ``off_diagonal_scale`` on every map, and dropout also in evaluation."""

    def __post_init__(self) -> None:
        check_at_least(
            1, self, "hidden_dim", "num_hidden", "num_heads", "num_head_layers", "downsample"
        )
        if self.set_layer == "sab" and self.hidden_dim % self.num_heads:
            raise ValueError(
                f"expected hidden_dim to be a multiple of num_heads "
                f"(got {self.hidden_dim} and {self.num_heads})"
            )
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """Permutations of hidden units."""
        del space
        return frozenset({"permutation"})

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the fields are no chains of at least three layers.
        """
        layout = chain_layout(space, self.kind)
        if len(layout.sizes) < 4:
            raise TrainingError(
                f"model {self.kind!r} reads chains of at least 3 layers (got {space.name} in "
                f"{len(layout.sizes) - 1}); fit fields with more layers or use a graph model"
            )
        return DWSNetwork(self, space, layout, num_outputs)


class DWSNetwork(nn.Module):
    """Equivariant layers, what lies between them, and the invariant layer."""

    def __init__(
        self, config: DWS, space: WeightSpace, layout: ChainLayout, num_outputs: int
    ) -> None:
        super().__init__()
        self._space, self._layout = space, layout
        self._tensors = ChainTensors(layout.sizes)
        self._pooling: Pooling = config.pooling
        num_tensors, width = 2 * self._tensors.num_layers, config.hidden_dim
        self.embedding: nn.Parameter | None = None
        if layout.is_padded:
            self.embedding = nn.Parameter(0.1 * torch.randn(num_tensors, layout.num_features))
        first = _equivariant_layer(config, layout.sizes, layout.num_features, config.num_heads)
        layers: list[nn.Module] = [first]
        for place in range(config.num_hidden):
            if config.batch_norm:
                layers.append(BatchNorm(num_tensors, width))
            layers.append(Activation(config))
            num_heads = 1 if place == config.num_hidden - 1 else config.num_heads
            layers.append(_equivariant_layer(config, layout.sizes, width, num_heads))
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Linear(layout.num_features, width) if config.skip else None
        if self.skip is not None:
            nn.init.constant_(self.skip.weight, 1 / self.skip.weight.numel())
            nn.init.zeros_(self.skip.bias)
        self.activation = Activation(config)
        num_pooled = width * sum(self._tensors.fold(tensor) for tensor in range(num_tensors))
        self.head = perceptron([num_pooled, *[num_outputs] * config.num_head_layers])

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        start = to_chain(self._space, self._layout, batch.normalised)
        if self.embedding is not None:
            start = _chain(x + e for x, e in zip(_tensors(start), self.embedding, strict=True))
        chain: Chain = self.layers(start)
        if self.skip is not None:
            pairs = zip(_tensors(chain), _tensors(start), strict=True)
            chain = _chain(x + self.skip(y) for x, y in pairs)
        statistics = self._tensors.statistics(self.activation(chain), self._pooling)
        pooled = [values for (_, axis), values in statistics.items() if axis == POOLED]
        outputs: Tensor = self.head(torch.cat(pooled, dim=-1))
        return outputs


class BatchNorm(nn.Module):
    """Batch normalisation of every tensor's features over fields and entries."""

    def __init__(self, num_tensors: int, num_features: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(num_features) for _ in range(num_tensors))

    def forward(self, chain: Chain) -> Chain:
        """Normalise a chain."""
        pairs = zip(self.norms, _tensors(chain), strict=True)
        return _chain(norm(x.flatten(0, -2)).view(x.shape) for norm, x in pairs)


class Activation(nn.Module):
    """ReLU, and dropout of single numbers."""

    def __init__(self, config: DWS) -> None:
        super().__init__()
        self._dropout = config.dropout
        self._is_always_dropped = config.variant == "released"

    def forward(self, chain: Chain) -> Chain:
        """Apply both to a chain."""
        activated = (F.relu(x) for x in _tensors(chain))
        if not self._dropout:
            return _chain(activated)
        is_dropped = self.training or self._is_always_dropped
        return _chain(F.dropout(x, self._dropout, is_dropped) for x in activated)


def _equivariant_layer(
    config: DWS, sizes: tuple[int, ...], in_features: int, num_heads: int
) -> nn.Module:
    inner_sizes = sizes if config.downsample is None else (config.downsample, *sizes[1:])
    layer = DWSLayer(
        inner_sizes,
        in_features,
        config.hidden_dim,
        set_layer=config.set_layer,
        num_heads=num_heads,
        pooling=config.pooling,
        diagonal=config.diagonal,
        variant=config.variant,
        init_scale=config.init_scale,
        off_diagonal_scale=config.off_diagonal_scale,
    )
    if config.downsample is None:
        return layer
    return DownsampledLayer(layer, sizes[0], config.downsample, in_features, config.hidden_dim)


class DownsampledLayer(nn.Module):
    """An equivariant layer on ``k`` learned combinations of the rows of ``W_1``.

    A set map takes its ``n_0`` rows to ``k``, another one takes the ``k`` of the result back to
    ``n_0``; a linear map of the features skips both.
    """

    def __init__(
        self, layer: DWSLayer, num_inputs: int, downsample: int, in_features: int, out_features: int
    ) -> None:
        super().__init__()
        self.down = InputMap(num_inputs, downsample)
        self.layer = layer
        self.up = InputMap(downsample, num_inputs)
        self.skip = nn.Linear(in_features, out_features)

    def forward(self, chain: Chain) -> Chain:
        """Map a chain of ``F`` features to one of ``F'``."""
        first, *others = chain.weights
        mapped: Chain = self.layer(Chain((self.down(first), *others), chain.biases))
        restored = self.up(mapped.weights[0]) + self.skip(first)
        return Chain((restored, *mapped.weights[1:]), mapped.biases)


class InputMap(nn.Module):
    """A deep-sets map over the units of ``W_1``, for every feature alone.

    The rows of ``W_1`` are what it maps: ``[B, n_0, n_1, F] -> [B, k, n_1, F]``. Units are pooled
    with the softmax of their product with a learned query, which starts at one.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.ones(num_inputs))
        self.gamma = nn.Linear(num_inputs, num_outputs)
        self.lamda = nn.Linear(num_inputs, num_outputs, bias=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Map the first weight."""
        units = weight.transpose(1, 3)  # [B, F, n_1, n_0]
        attention = torch.softmax(units @ self.query, dim=-1).unsqueeze(-2)
        mapped: Tensor = self.gamma(units) - self.lamda(attention @ units)
        return mapped.transpose(1, 3)


def _tensors(chain: Chain) -> tuple[Tensor, ...]:
    return (*chain.weights, *chain.biases)


def _chain(tensors: Iterable[Tensor]) -> Chain:
    listed = tuple(tensors)
    return Chain(listed[: len(listed) // 2], listed[len(listed) // 2 :])
