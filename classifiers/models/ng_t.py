"""NG-T: a relational transformer on the graph of neurons, attention between all pairs of nodes.

Source: Kofinas et al. 2024 (ICLR, arXiv 2403.12143) and the code they released, after Diao and
Loynd 2023 ("Relational Attention: Generalizing Transformers for Graph-Structured Tasks", ICLR).

Edge states are by far the largest tensors, so what is linear in them is not computed pair by pair:
scores are expanded into their four terms, and values are mapped after the sum over senders. Only
output nodes are read in the end: the last layer attends from them alone, and the last update of
edges is that of their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from classifiers.batch import FieldBatch
from classifiers.graph import Pair, to_graph, topology_of
from classifiers.models.base import Access
from classifiers.models.layers import perceptron
from classifiers.models.neural_graph import EdgeEncoder, NodeEncoder, pair_features
from classifiers.models.settings import check_at_least, check_positive, check_shares
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class NGT:
    """Attention whose queries, keys and values depend on nodes and edges, with edge updates.

    The published network has 376,586 parameters on SIREN 3x32 with one output (393,098 with three,
    393,866 with one output and 64 probes).
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "standardise"
    kind: Literal["ng-t"] = "ng-t"
    node_dim: int = 64
    """Width of a node; its perceptrons are twice as wide."""
    edge_dim: int = 32
    """Width of an edge; its perceptrons are twice as wide."""
    attention_dim: int = 128
    """Width ``D`` of queries, keys and values, all heads together."""
    num_heads: int = 8
    num_layers: int = 4
    num_probes: int = 0
    """Coordinates at which every unit's value is a feature of its node; published: 0 and 64."""
    edges: Literal["all", "present"] = "all"
    """Which pairs of nodes have an edge state. ``all`` as published; with ``present`` only those
    that a weight joins, in both directions, and any other stays the encoding of zero."""
    reverse_edges: bool = False
    """Whether the edge from a unit back to what it reads also shows the weight."""
    num_frequencies: int = 128
    """Fourier features per weight and per bias: so many sines, and as many cosines."""
    sigma: float = 1.0
    """Spread of their frequencies."""
    dropout: float = 0.2
    """Share of every update of nodes and edges dropped while training."""

    def __post_init__(self) -> None:
        check_at_least(
            1, self, "node_dim", "edge_dim", "attention_dim", "num_heads", "num_frequencies"
        )
        if self.attention_dim % self.num_heads:
            raise ValueError(
                f"expected num_heads to divide attention_dim {self.attention_dim} "
                f"(got {self.num_heads})"
            )
        if self.num_layers < 2:  # outputs read no weights of their own
            raise ValueError(f"expected num_layers >= 2 (got {self.num_layers})")
        check_at_least(0, self, "num_probes")
        check_positive(self, "sigma")
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """The order of neurons: their signs, scales and phases are part of what it reads."""
        del space
        return frozenset({"permutation"})

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``; it reads every field.

        Raises:
            TrainingError: If the rows are plain values.
        """
        return RelationalTransformer(self, space, num_outputs)


_CACHE_BYTES = 2**21
"""A tensor of this size and a second one stay in the second-level cache, or almost."""

Edges = dict[Pair, Tensor]
"""States ``[B, n, m, d]`` of the edges from one group of nodes to another, by their positions."""


class RelationalTransformer(nn.Module):
    """Encoders, layers and the readout of the output nodes.

    Nodes are in groups, of which the outputs are the last: all others together, or with
    ``edges="present"`` one group per set.
    """

    def __init__(self, model: NGT, space: WeightSpace, num_outputs: int) -> None:
        super().__init__()
        self._space = space
        self._topology = topology = topology_of(space)
        self._reverse = model.reverse_edges
        frequencies = model.num_frequencies, model.sigma
        self.nodes = NodeEncoder(
            space, topology, model.node_dim, *frequencies, num_probes=model.num_probes
        )
        self.edges = EdgeEncoder(topology, model.edge_dim, *frequencies, reverse=self._reverse)
        sets = range(len(topology.sets))
        self._groups: list[Sequence[int]]
        if model.edges == "all":
            self._groups = [sets[:-1], sets[-1:]]
            self._pairs = [(i, j) for i in range(2) for j in range(2)]
        else:
            self._groups = [[place] for place in sets]
            joined = {(block.source, block.target) for block in topology.blocks}
            self._pairs = [(i, j) for i in sets for j in sets if {(i, j), (j, i)} & joined]
        self._sizes = [sum(topology.sets[place].size for place in group) for group in self._groups]
        self.layers = nn.ModuleList(
            RelationalLayer(model, has_edge_update=index < model.num_layers - 1)
            for index in range(model.num_layers)
        )
        self.readout = perceptron([space.out_dim * model.node_dim, 2 * model.node_dim, num_outputs])

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        graph = to_graph(self._space, self._topology, batch.normalised)
        nodes = list(self.nodes(graph.nodes, batch.weights).split(self._sizes, dim=1))
        zero = self.edges.zero()
        encoded = {
            pair: self.edges(values, pair)
            for pair, values in pair_features(self._topology, graph, reverse=self._reverse).items()
        }
        edges = {
            pair: self._assemble(pair, encoded, zero, len(batch.weights)) for pair in self._pairs
        }
        last = len(self._groups) - 1
        for index, layer in enumerate(self.layers):
            rows = range(last if index == len(self.layers) - 1 else 0, last + 1)
            kept = last if index >= len(self.layers) - 2 else 0
            nodes, edges = layer(nodes, edges, zero, rows, kept)
        result: Tensor = self.readout(nodes[-1].flatten(1))
        return result

    def _assemble(self, pair: Pair, encoded: Edges, zero: Tensor, num_fields: int) -> Tensor:
        """Join the encoded edges between the sets of two groups, zeros where there is no weight."""
        sizes = [nodes.size for nodes in self._topology.sets]
        rows = []
        for source in self._groups[pair[0]]:
            row = []
            for target in self._groups[pair[1]]:
                shape = (num_fields, sizes[source], sizes[target], len(zero))
                block = encoded.get((source, target))
                row.append(zero.expand(shape) if block is None else block)
            rows.append(torch.cat(row, dim=2))
        return torch.cat(rows, dim=1)


class RelationalLayer(nn.Module):
    """Attention and a perceptron on nodes, then an update and a perceptron on edges."""

    def __init__(self, model: NGT, *, has_edge_update: bool) -> None:
        super().__init__()
        self.attention = RelationalAttention(model)
        self.project = nn.Linear(model.node_dim, model.node_dim)
        self.perceptron = two_maps(model.node_dim)
        self.norms = nn.ModuleList(nn.LayerNorm(model.node_dim) for _ in range(2))
        self.edge_update = EdgeUpdate(model) if has_edge_update else None
        self.dropout = nn.Dropout(model.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, nodes: list[Tensor], edges: Edges, zero: Tensor, rows: range, kept: int
    ) -> tuple[list[Tensor], Edges]:
        """Return the new states of the groups ``rows``, and of their edges from ``kept`` on."""
        sizes = [nodes[row].shape[1] for row in rows]
        state = torch.cat([nodes[row] for row in rows], dim=1)
        attended = self.project(self.attention(nodes, edges, zero, rows))
        state = self.norms[0](state + self.dropout(attended))
        state = self.norms[1](state + self.dropout(self.perceptron(state)))
        nodes = list(state.split(sizes, dim=1))
        if self.edge_update is not None:
            edges = self.edge_update(nodes, edges, kept)
        return nodes, edges


class RelationalAttention(nn.Module):
    """Attention of every node i over all nodes j, as its edges to them modify it.

    ``q_ij = Q_n x_i + Q_e e_ij``, ``k_ij = K_n x_j + K_e e_ij``,
    ``v_ij = (V_n x_j) * (U_e e_ij) + V_e e_ij``; scores are divided by the root of the full width.
    """

    def __init__(self, model: NGT) -> None:
        super().__init__()
        self.num_heads = model.num_heads
        self._scale = model.attention_dim**-0.5
        self.of_nodes = nn.Linear(model.node_dim, 3 * model.attention_dim, bias=False)
        self.of_edges = nn.Linear(model.edge_dim, 4 * model.attention_dim, bias=False)
        self.output = nn.Linear(model.attention_dim, model.node_dim)

    def forward(self, nodes: list[Tensor], edges: Edges, zero: Tensor, rows: range) -> Tensor:
        """Return what the groups ``rows`` attend to, ``[B, n, d_node]``."""
        heads = (self.num_heads, -1)
        queries, keys, values = zip(
            *(self.of_nodes(group).unflatten(-1, (3, *heads)).unbind(2) for group in nodes),
            strict=True,
        )  # each [B, n, H, D / H]
        kernels = self.of_edges.weight.unflatten(0, (4, *heads)).unbind()  # [H, D / H, d_edge]
        attended = []
        for row in rows:
            scores = [
                self._scores(queries[row], keys[column], edges.get((row, column)), kernels, zero)
                for column in range(len(nodes))
            ]
            sizes = [group.shape[1] for group in nodes]
            weights = (self._scale * torch.cat(scores, dim=2)).softmax(dim=2).split(sizes, dim=2)
            parts = [
                self._attend(
                    weights[column], values[column], edges.get((row, column)), kernels, zero
                )
                for column in range(len(nodes))
            ]
            attended.append(torch.stack(parts).sum(0))
        result: Tensor = self.output(torch.cat(attended, dim=1))
        return result

    def _scores(
        self,
        queries: Tensor,
        keys: Tensor,
        edges: Tensor | None,
        kernels: tuple[Tensor, ...],
        zero: Tensor,
    ) -> Tensor:
        """Return ``<q_ij, k_ij>``, ``[B, n, m, H]``; without states all edges are ``zero``."""
        of_queries, of_keys, *_ = kernels
        if edges is None:
            queries, keys = queries + of_queries @ zero, keys + of_keys @ zero
        between_nodes = torch.einsum("bnhc,bmhc->bnmh", queries, keys)
        if edges is None:
            return between_nodes
        # <Q_n x_i, K_e e_ij> and <Q_e e_ij, K_n x_j>: the map of the edge joins that of the node.
        from_queries = torch.einsum("bnhc,hce->bneh", queries, of_keys)
        from_keys = torch.einsum("bmhc,hce->bmeh", keys, of_queries)
        mixed = edges @ from_queries + (edges.transpose(1, 2) @ from_keys).transpose(1, 2)
        # Under autocast states may have 16 bits, but what is saved for the gradient has one type.
        exact = edges.to(of_keys.dtype)
        between_edges: Tensor = _EdgeScores.apply(exact, of_queries, of_keys)
        return between_nodes + mixed + between_edges

    def _attend(
        self,
        weights: Tensor,
        values: Tensor,
        edges: Tensor | None,
        kernels: tuple[Tensor, ...],
        zero: Tensor,
    ) -> Tensor:
        """Return ``sum_j alpha_ij v_ij``, ``[B, n, D]``, for weights ``[B, n, m, H]``."""
        *_, shift, scale = kernels
        if edges is None:
            values = values * (scale @ zero) + shift @ zero
            return torch.einsum("bnmh,bmhc->bnhc", weights, values).flatten(2)
        shifted = torch.einsum("bnhe,hce->bnhc", weights.transpose(2, 3) @ edges, shift)
        exact = (tensor.to(scale.dtype) for tensor in (edges, weights, values))
        scaled: Tensor = _EdgeSums.apply(*exact, scale)
        return scaled + shifted.flatten(2)


class _EdgeScores(torch.autograd.Function):
    """``<Q_e e_ij, K_e e_ij>`` per head, ``[B, n, m, H]``, a few fields at a time.

    Queries and keys of edges are ``D`` numbers per pair of nodes. They are computed again for the
    gradient, so they never leave the cache.
    """

    @staticmethod
    def forward(ctx: Any, edges: Tensor, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        ctx.save_for_backward(edges, of_queries, of_keys)
        heads, maps = of_queries.shape[:2], (of_queries.flatten(0, 1), of_keys.flatten(0, 1))
        scores = []
        for part in edges.split(_fields_at_a_time(edges, heads.numel())):
            queries, keys = (F.linear(part, kernel) for kernel in maps)
            scores.append(queries.mul_(keys).unflatten(-1, heads).sum(-1))
        return torch.cat(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edges, of_queries, of_keys = ctx.saved_tensors
        heads, maps = of_queries.shape[:2], (of_queries.flatten(0, 1), of_keys.flatten(0, 1))
        of_maps = torch.zeros_like(maps[0]), torch.zeros_like(maps[1])
        of_edges = []
        size = _fields_at_a_time(edges, heads.numel())
        for part, of_part in _parts(size, edges, grad[..., None]):
            flat = part.flatten(0, 2)
            queries, keys = (F.linear(flat, kernel) for kernel in maps)
            for product in (queries, keys):
                product.unflatten(-1, heads).mul_(of_part.flatten(0, 2))
            of_edges.append((keys @ maps[0]).addmm_(queries, maps[1]).view(part.shape))
            of_maps[0].addmm_(keys.T, flat)
            of_maps[1].addmm_(queries.T, flat)
        return torch.cat(of_edges), of_maps[0].view_as(of_queries), of_maps[1].view_as(of_keys)


class _EdgeSums(torch.autograd.Function):
    """``sum_j alpha_ij (V_n x_j) * (U_e e_ij)``, ``[B, n, D]``, a few fields at a time.

    The outer products of values and edges are summed over j before ``U_e`` maps them.
    """

    @staticmethod
    def forward(ctx: Any, edges: Tensor, weights: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(edges, weights, values, scale)
        kernel = scale.flatten(0, 1)
        size = _fields_at_a_time(edges, len(kernel))
        sums = []
        for edge, weight, value in _parts(size, edges, weights[..., None], values[:, None]):
            outer = (weight * value).flatten(3).transpose(2, 3) @ edge  # [b, n, D, d_edge]
            sums.append(outer.mul_(kernel).sum(-1))
        return torch.cat(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        edges, weights, values, scale = ctx.saved_tensors
        kernel = scale.flatten(0, 1)
        size = _fields_at_a_time(edges, len(kernel))
        of_kernel = torch.zeros_like(kernel)
        grads = []
        for edge, weight, value, of_sum in _parts(
            size, edges, weights[..., None], values[:, None], grad[..., None]
        ):
            product = weight * value  # [b, n, m, H, D / H]
            outer = product.flatten(3).transpose(2, 3) @ edge
            of_kernel += outer.mul_(of_sum).sum(dim=(0, 1))
            of_outer = torch.mul(of_sum, kernel, out=outer)
            of_edge = product.flatten(3) @ of_outer
            of_product = (edge @ of_outer.transpose(2, 3)).view_as(product)
            of_weight = torch.mul(of_product, value, out=product).sum(-1)
            of_value = of_product.mul_(weight).sum(dim=1)
            grads.append((of_edge, of_weight, of_value))
        of_edges, of_weights, of_values = (torch.cat(parts) for parts in zip(*grads, strict=True))
        return of_edges, of_weights, of_values, of_kernel.view_as(scale)


def _parts(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors ``[B, ...]`` into pieces of ``size`` fields."""
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _fields_at_a_time(edges: Tensor, num_numbers: int) -> int:
    """Return how many fields' numbers per pair of nodes fit into a cache.

    On an accelerator that would only make kernels small, and a compiler joins loops by itself.
    """
    if edges.device.type != "cpu" or torch.compiler.is_compiling():
        return len(edges)
    pairs = edges.shape[1] * edges.shape[2]
    return max(1, _CACHE_BYTES // (pairs * num_numbers * edges.element_size()))


class EdgeUpdate(nn.Module):
    """``e_ij <- LN(e_ij + W_6 gelu(W_5 [e_ij, e_ji] + W_s x_i + W_t x_j))``, then a perceptron."""

    def __init__(self, model: NGT) -> None:
        super().__init__()
        hidden = 2 * model.edge_dim
        self.both_ways = nn.Linear(2 * model.edge_dim, hidden)
        self.source = nn.Linear(model.node_dim, hidden)
        self.target = nn.Linear(model.node_dim, hidden)
        self.output = nn.Linear(hidden, model.edge_dim)
        self.perceptron = two_maps(model.edge_dim)
        self.norms = nn.ModuleList(nn.LayerNorm(model.edge_dim) for _ in range(2))
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, nodes: list[Tensor], edges: Edges, kept: int) -> Edges:
        """Return the new states of the edges from the groups ``kept`` and after."""
        sources = [self.source(group)[:, :, None] for group in nodes]
        targets = [self.target(group)[:, None] for group in nodes]
        states = {}
        for (row, column), edge in edges.items():
            if row >= kept:
                back = edges[column, row].transpose(1, 2)
                hidden = self.both_ways(torch.cat([edge, back], dim=-1))
                hidden = F.gelu(hidden + (sources[row] + targets[column]))
                state = self.norms[0](edge + self.dropout(self.output(hidden)))
                state = self.norms[1](state + self.dropout(self.perceptron(state)))
                states[row, column] = state
        return states


def two_maps(dim: int) -> nn.Module:
    """Return ``dim -> 2 dim -> dim`` with a GELU, without bias in the first map, as published."""
    return nn.Sequential(nn.Linear(dim, 2 * dim, bias=False), nn.GELU(), nn.Linear(2 * dim, dim))
