"""Which maps an equivariant layer of DWSNets has: the table of its blocks.

The layer of Navon et al. 2023 (arXiv 2301.12780) is a grid of ``4 M**2`` blocks, one from each of
the ``2 M`` tensors of a chain to each. A block is one of three things, told by the hidden axes that
its two tensors share: with none, the source is pooled and mapped; with one, a set layer acts along
it and its results are repeated over the target's other axis; a weight between two hidden layers
that maps to itself shares two and has four linear maps. Inputs and outputs are not exchangeable:
they count as features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from classifiers.chain import Chain

Pooling = Literal["max", "mean", "sum"]
Variant = Literal["fixed", "released"]

POOLED = 0
"""The axis of a statistic that is pooled over every hidden axis; hidden axes are ``1 … M - 1``."""

Statistics = Mapping[tuple[int, int], Tensor]
"""Per (tensor, axis) ``[B, n_axis, fold F]``, per (tensor, POOLED) ``[B, fold F]``."""


def pool(values: Tensor, dim: int, kind: Pooling) -> Tensor:
    """Reduce one axis."""
    if kind == "max":
        return values.max(dim).values
    return values.mean(dim) if kind == "mean" else values.sum(dim)


@dataclass(frozen=True)
class ChainTensors:
    """The ``2 M`` tensors of a chain, numbered ``W_1 … W_M, b_1 … b_M`` from 0.

    Attributes:
        sizes: ``n_0 … n_M``.
    """

    sizes: tuple[int, ...]

    @property
    def num_layers(self) -> int:
        """Layers ``M``."""
        return len(self.sizes) - 1

    def layer(self, tensor: int) -> int:
        """Layer ``1 … M`` of a tensor."""
        return tensor % self.num_layers + 1

    def is_weight(self, tensor: int) -> bool:
        """Whether a tensor is a weight, not a bias."""
        return tensor < self.num_layers

    def hidden_axes(self, tensor: int) -> tuple[int, ...]:
        """Exchangeable axes of a tensor, numbered by the layer whose units they count."""
        last = self.layer(tensor)
        axes = (last - 1, last) if self.is_weight(tensor) else (last,)
        return tuple(axis for axis in axes if 0 < axis < self.num_layers)

    def fold(self, tensor: int) -> int:
        """Length of the axis that counts as features: ``n_0`` of ``W_1``, ``n_M`` at the end."""
        if tensor == 0:
            return self.sizes[0]
        return self.sizes[-1] if self.layer(tensor) == self.num_layers else 1

    def statistics(self, chain: Chain, pooling: Pooling) -> dict[tuple[int, int], Tensor]:
        """Pool every tensor over all hidden axes and, where it has two, over each."""
        found: dict[tuple[int, int], Tensor] = {}
        for tensor, values in enumerate((*chain.weights, *chain.biases)):
            axes = self.hidden_axes(tensor)
            if len(axes) == 2:
                found[tensor, axes[0]] = pool(values, 2, pooling)
                found[tensor, axes[1]] = pool(values, 1, pooling)
            elif axes:
                units_first = values.transpose(1, 2) if tensor == 0 else values
                found[tensor, axes[0]] = units_first.flatten(2)
            else:
                found[tensor, POOLED] = values.flatten(1)
                continue
            found[tensor, POOLED] = pool(found[tensor, axes[-1]], 1, pooling)
        return found


class Target(NamedTuple):
    """Where the results of blocks are summed.

    Attributes:
        tensor: The tensor that they are for.
        axis: The hidden axis that they live on, or POOLED; they are repeated over any other.
        is_copied: Every output gets the same numbers (a fault of the released layer).
    """

    tensor: int
    axis: int
    is_copied: bool = False


class Block(NamedTuple):
    """One map of the layer.

    Attributes:
        kind: ``entries`` for a weight between hidden layers to itself, ``set`` for a set layer
            along the one axis that source and target share, ``pooled`` otherwise.
        source: The tensor that it reads.
        target: What it contributes to.
    """

    kind: Literal["entries", "set", "pooled"]
    source: int
    target: Target


def block_table(tensors: ChainTensors, *, diagonal: bool, variant: Variant) -> tuple[Block, ...]:
    """List the blocks of a layer.

    Args:
        tensors: Of the chain.
        diagonal: Only blocks within a layer of the chain.
        variant: In the ``released`` code the blocks that end in the last weight and start at the
            weight before it, or at a bias that shares no axis with it, have one result for all
            outputs. Nothing changes with one output; with three, the layer misses maps.
    """
    blocks = []
    for target in range(2 * tensors.num_layers):
        for source in range(2 * tensors.num_layers):
            if diagonal and tensors.layer(source) != tensors.layer(target):
                continue
            shared = set(tensors.hidden_axes(source)) & set(tensors.hidden_axes(target))
            is_copied = variant == "released" and _has_one_result(tensors, source, target)
            if len(shared) == 2:
                blocks.append(Block("entries", source, Target(target, POOLED)))
            elif shared:
                blocks.append(Block("set", source, Target(target, shared.pop(), is_copied)))
            else:
                blocks.append(Block("pooled", source, Target(target, POOLED, is_copied)))
    return tuple(blocks)


def _has_one_result(tensors: ChainTensors, source: int, target: int) -> bool:
    last_weight = tensors.num_layers - 1
    if target != last_weight:
        return False
    if tensors.is_weight(source):
        return source == last_weight - 1
    return tensors.layer(source) < last_weight
