"""One equivariant layer of DWSNets: every map between the tensors of a chain, in few products.

``classifiers.models.dws_blocks`` lists the ``4 M**2`` maps. Here every pooled statistic is computed
once, blocks that only multiply are joined into one product per group of targets with the same
sources, and set layers of one shape are stacked into one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.chain import Chain
from classifiers.models.dws_blocks import (
    POOLED,
    Block,
    ChainTensors,
    Pooling,
    Statistics,
    Target,
    Variant,
    block_table,
)

SetKind = Literal["sab", "ds"]
"""``sab``: a self-attention block (Lee et al. 2019); ``ds``: deep sets (Zaheer et al. 2017)."""


class BlockLinear(NamedTuple):
    """One linear map of a block, as views of joined or stacked parameters.

    Attributes:
        block: Which block.
        name: Which of its maps.
        weight: ``[in, out]``.
        bias: ``[out]``, or None.
    """

    block: Block
    name: str
    weight: Tensor
    bias: Tensor | None


class Widths(NamedTuple):
    """Features ``F`` that a layer reads and ``F'`` that it returns, per tensor entry."""

    tensors: ChainTensors
    in_features: int
    out_features: int

    def of(self, block: Block) -> tuple[int, int]:
        """Inputs and outputs of a block's maps, folded axes included."""
        copies = 1 if block.target.is_copied else self.tensors.fold(block.target.tensor)
        return self.tensors.fold(block.source) * self.in_features, copies * self.out_features


class JointLinear(nn.Module):
    """The linear maps of many blocks: a sum of products is one product of what is concatenated.

    Targets with the same sources share a product. Biases stay one per block, as many as published.

    Args:
        blocks: Which blocks.
        widths: Their sizes.
        name: Of the map within a block.
        on_axis: Read statistics along the target's axis, not pooled ones.
        bias: Whether the maps have biases.
    """

    def __init__(
        self, blocks: Sequence[Block], widths: Widths, name: str, *, on_axis: bool, bias: bool
    ) -> None:
        super().__init__()
        self.name = name
        self._on_axis = on_axis
        into: dict[Target, list[Block]] = {}
        for block in blocks:
            into.setdefault(block.target, []).append(block)
        self._groups: dict[tuple[int, tuple[int, ...]], list[list[Block]]] = {}
        for target, members in into.items():
            axis = target.axis if on_axis else POOLED
            sources = tuple(block.source for block in members)
            self._groups.setdefault((axis, sources), []).append(members)
        self._splits: list[tuple[list[int], list[int]]] = []
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        for columns in self._groups.values():
            ins = [widths.of(block)[0] for block in columns[0]]
            outs = [widths.of(members[0])[1] for members in columns]
            self._splits.append((ins, outs))
            self.kernels.append(nn.Parameter(torch.empty(sum(ins), sum(outs))))
            if bias:
                self.biases.append(nn.Parameter(torch.empty(len(ins), sum(outs))))

    def linears(self) -> Iterator[BlockLinear]:
        """Every map as views."""
        for index, columns in enumerate(self._groups.values()):
            ins, outs = self._splits[index]
            rows = self.kernels[index].split(ins)
            for i, row in enumerate(rows):
                biases = self.biases[index][i].split(outs) if len(self.biases) else None
                for j, weight in enumerate(row.split(outs, dim=1)):
                    bias = None if biases is None else biases[j]
                    yield BlockLinear(columns[j][i], self.name, weight, bias)

    def forward(self, statistics: Statistics) -> dict[Target, Tensor]:
        """Sum the maps per target: ``[B, n_axis, out]``, pooled ones ``[B, out]``."""
        results: dict[Target, Tensor] = {}
        for index, ((axis, sources), columns) in enumerate(self._groups.items()):
            joined = torch.cat([statistics[source, axis] for source in sources], dim=-1)
            bias = self.biases[index].sum(0) if len(self.biases) else None
            values = F.linear(joined, self.kernels[index].T, bias)
            parts = values.split(self._splits[index][1], dim=-1)
            results |= {
                members[0].target: part for members, part in zip(columns, parts, strict=True)
            }
        return results


class DeepSets(nn.Module):
    """Set layers ``x Γ - pool(x) Λ`` (Zaheer et al. 2017), joined."""

    def __init__(self, blocks: Sequence[Block], widths: Widths) -> None:
        super().__init__()
        self.gamma = JointLinear(blocks, widths, "gamma", on_axis=True, bias=True)
        self.lamda = JointLinear(blocks, widths, "lambda", on_axis=False, bias=False)

    def linears(self) -> Iterator[BlockLinear]:
        """Every map as views."""
        yield from self.gamma.linears()
        yield from self.lamda.linears()

    def forward(self, statistics: Statistics) -> Iterator[tuple[Target, Tensor]]:
        """Yield ``[B, n_axis, out]`` per target."""
        pooled = self.lamda(statistics)
        for target, values in self.gamma(statistics).items():
            yield target, values - pooled[target].unsqueeze(1)


class StackedLinear(nn.Module):
    """``K`` linear maps of one shape: ``[K, N, in] -> [K, N, out]``."""

    def __init__(self, num_maps: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_maps, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(num_maps, 1, out_features))

    def forward(self, values: Tensor) -> Tensor:
        """Map each of the ``K`` inputs by its own map."""
        return torch.baddbmm(self.bias, values, self.weight)


class SelfAttention(nn.Module):
    """``K`` self-attention blocks of one shape (Lee et al. 2019), stacked.

    ``Q, K, V`` are linear in the tokens; ``O = Q + softmax(Q K^T / sqrt(q)) V`` per head, with the
    full width ``q`` under the root; the result is ``O + relu(O W_o)``. No layer normalisation.
    """

    def __init__(
        self, blocks: Sequence[Block], in_features: int, out_features: int, num_heads: int
    ) -> None:
        super().__init__()
        self._blocks = tuple(blocks)
        self._num_heads = num_heads
        self.query = StackedLinear(len(blocks), in_features, out_features)
        self.key = StackedLinear(len(blocks), in_features, out_features)
        self.value = StackedLinear(len(blocks), in_features, out_features)
        self.mix = StackedLinear(len(blocks), out_features, out_features)

    def linears(self) -> Iterator[BlockLinear]:
        """Every map as views."""
        maps = {"query": self.query, "key": self.key, "value": self.value, "mix": self.mix}
        for name, stacked in maps.items():
            for block, weight, bias in zip(
                self._blocks, stacked.weight, stacked.bias[:, 0], strict=True
            ):
                yield BlockLinear(block, name, weight, bias)

    def forward(self, statistics: Statistics) -> Iterator[tuple[Target, Tensor]]:
        """Yield ``[B, n_axis, out]`` per block."""
        tokens = torch.stack([statistics[b.source, b.target.axis] for b in self._blocks])
        stack, batch, num_tokens, _ = tokens.shape
        joined = tokens.flatten(1, 2)
        query, key, value = (
            linear(joined).view(stack * batch, num_tokens, self._num_heads, -1).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scale = 1 / math.sqrt(self.mix.weight.shape[-1])
        read = F.scaled_dot_product_attention(query, key, value, scale=scale)
        mixed = (query + read).transpose(1, 2).reshape(stack, batch * num_tokens, -1)
        results = mixed + self.mix(mixed).relu()
        parts = results.view(stack, batch, num_tokens, -1)
        for block, part in zip(self._blocks, parts, strict=True):
            yield block.target, part


class EntryMaps(nn.Module):
    """Maps of the weights between hidden layers to themselves, a quarter of the sum of four.

    They act on every entry, on what is pooled over rows, over columns, and over both.
    """

    NAMES = ("entries", "rows", "columns", "both")

    def __init__(self, blocks: Sequence[Block], in_features: int, out_features: int) -> None:
        super().__init__()
        self._blocks = tuple(blocks)
        self.kernel = nn.Parameter(torch.empty(len(blocks), 4, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(len(blocks), 4, out_features))

    def linears(self) -> Iterator[BlockLinear]:
        """Every map as views."""
        for index, block in enumerate(self._blocks):
            for place, name in enumerate(self.NAMES):
                yield BlockLinear(block, name, self.kernel[index, place], self.bias[index, place])

    def forward(
        self, weights: Sequence[Tensor], statistics: Statistics, scale: float
    ) -> tuple[dict[int, Tensor], list[tuple[Target, Tensor]]]:
        """Return the maps of the entries per tensor, times ``scale``, and the other three."""
        kernels, biases = self.kernel / 4, self.bias.sum(1) / 4
        whole: dict[int, Tensor] = {}
        parts: list[tuple[Target, Tensor]] = []
        for index, block in enumerate(self._blocks):
            tensor = block.source
            rows_axis, columns_axis = tensor, tensor + 1  # W_l is tensor l - 1
            entries, rows, columns, both = kernels[index]
            # by far the largest product: its kernel is scaled, not its result
            whole[tensor] = weights[tensor] @ (entries * scale)
            # pooled over rows, it lives on the columns
            parts.append((Target(tensor, columns_axis), statistics[tensor, columns_axis] @ rows))
            parts.append((Target(tensor, rows_axis), statistics[tensor, rows_axis] @ columns))
            pooled = statistics[tensor, POOLED] @ both + biases[index]
            parts.append((Target(tensor, POOLED), pooled))
        return whole, parts


class DWSLayer(nn.Module):
    """All blocks of one equivariant layer; their sum is divided by ``2 M``.

    Parameters are drawn Xavier-normal, times ``sqrt(2 in / out)`` and ``init_scale``; biases
    uniformly from ``[-1e-4, 1e-4]``.

    Shapes:
        Chains with ``W_l [B, n_{l-1}, n_l, F]`` and ``b_l [B, n_l, F]``, to ``F'`` features.

    Args:
        sizes: ``n_0 … n_M`` with ``M >= 3``.
        in_features: Features ``F``.
        out_features: Features ``F'``.
        set_layer: Kind of the set layers.
        num_heads: Heads of every self-attention block; divides ``F'``.
        pooling: How axes are pooled.
        diagonal: Only blocks within a layer of the chain.
        variant: See ``block_table``; the ``released`` layer also applies ``off_diagonal_scale`` to
            every block.
        init_scale: Factor on every weight.
        off_diagonal_scale: Factor on the weights of blocks between two different tensors.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        in_features: int,
        out_features: int,
        *,
        set_layer: SetKind = "sab",
        num_heads: int = 8,
        pooling: Pooling = "max",
        diagonal: bool = False,
        variant: Variant = "fixed",
        init_scale: float = 1.0,
        off_diagonal_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.tensors = ChainTensors(tuple(sizes))
        self._out_features = out_features
        self._pooling: Pooling = pooling
        widths = Widths(self.tensors, in_features, out_features)
        blocks = block_table(self.tensors, diagonal=diagonal, variant=variant)
        entries, sets, pooled = (
            [block for block in blocks if block.kind == kind]
            for kind in ("entries", "set", "pooled")
        )
        self.entries = EntryMaps(entries, in_features, out_features)
        self.pooled = JointLinear(pooled, widths, "pooled", on_axis=False, bias=True)
        self.sets = nn.ModuleList()
        if set_layer == "ds":
            self.sets.append(DeepSets(sets, widths))
        else:
            shapes: dict[tuple[int, int, int], list[Block]] = {}
            for block in sets:
                key = (self.tensors.sizes[block.target.axis], *widths.of(block))
                shapes.setdefault(key, []).append(block)
            for (_, wide_in, wide_out), members in shapes.items():
                self.sets.append(SelfAttention(members, wide_in, wide_out, num_heads))
        with torch.no_grad():
            for block, _, weight, bias in self.linears():
                off_diagonal = variant == "released" or block.source != block.target.tensor
                scale = init_scale * (off_diagonal_scale if off_diagonal else 1.0)
                fan_in, fan_out = weight.shape
                xavier = math.sqrt(2 / (fan_in + fan_out))
                weight.normal_(0, scale * xavier * math.sqrt(2 * fan_in / fan_out))
                if bias is not None:
                    bias.uniform_(-1e-4, 1e-4)

    def linears(self) -> Iterator[BlockLinear]:
        """Every linear map of every block, as views of the parameters."""
        for part in (self.entries, self.pooled, *self.sets):
            yield from part.linears()

    def forward(self, chain: Chain) -> Chain:
        """Map a chain of ``F`` features to one of ``F'``."""
        statistics = self.tensors.statistics(chain, self._pooling)
        scale = 1 / (2 * self.tensors.num_layers)
        sums: dict[Target, Tensor] = self.pooled(statistics)
        whole, parts = self.entries(chain.weights, statistics, scale)
        for target, values in itertools.chain(parts, *(sets(statistics) for sets in self.sets)):
            sums[target] = sums[target] + values if target in sums else values
        results = []
        for tensor in range(2 * self.tensors.num_layers):
            targets = sorted(target for target in sums if target.tensor == tensor)
            terms = [self._place(target, sums[target] * scale) for target in targets]
            if tensor in whole:  # small terms are added before the large one, but for the last
                terms.insert(-1, whole[tensor])
            results.append(functools.reduce(torch.add, terms))
        num_layers = self.tensors.num_layers
        return Chain(tuple(results[:num_layers]), tuple(results[num_layers:]))

    def _place(self, target: Target, values: Tensor) -> Tensor:
        """View ``[B, n_axis, fold F']`` so that it broadcasts over the target's other axes."""
        tensor, axis, _ = target
        unfolded: Tensor = values.unflatten(-1, (-1, self._out_features))
        if not self.tensors.is_weight(tensor):
            return unfolded if axis == POOLED else unfolded.flatten(1, 2)
        if axis == POOLED:  # the folded axis is the first of W_1, the last of W_M
            return unfolded.unsqueeze(2 if tensor == 0 else 1)
        # the layer's own units are columns
        return unfolded.transpose(1, 2) if axis == self.tensors.layer(tensor) else unfolded
