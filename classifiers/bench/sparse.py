"""The baselines: the same models on graphs gathered and scattered by ``torch_geometric``.

This is what one writes first: every field is a ``Data`` object, every step collates a ``Batch``,
and messages are made edge by edge from joined features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import to_dense_adj

from classifiers.models import GNN, NGGNN, NGT, ModelConfig, ng_gnn
from classifiers.models.ng_gnn import EPS, GraphNetwork, PNALayer
from classifiers.models.ng_t import RelationalAttention, RelationalLayer, RelationalTransformer
from classifiers.pyg import GeometricNetwork, to_pyg
from classifiers.space import WeightSpace


def build_sparse(model: ModelConfig, space: WeightSpace, num_outputs: int) -> nn.Module:
    """Return a network that reads a ``Batch``; its state is that of the dense one."""
    if isinstance(model, GNN):
        return GeometricNetwork(model, space, num_outputs)
    if isinstance(model, NGGNN):
        return GeometricNGGNN(model, space, num_outputs)
    assert isinstance(model, NGT), f"no sparse formulation of {model.kind}"
    return PairwiseNGT(model, space, num_outputs)


def graph_feed(space: WeightSpace, rows: Tensor) -> Callable[[Tensor], Data]:
    """Return what collates graphs: every field a ``Data`` object that is made once."""
    graphs = list(to_pyg(rows, space))
    return lambda chosen: Batch.from_data_list([graphs[place] for place in chosen.tolist()])


class GeometricNGGNN(GraphNetwork):
    """NG-GNN edge by edge, on the state of the dense network."""

    def __init__(self, model: NGGNN, space: WeightSpace, num_outputs: int) -> None:
        super().__init__(model, space, num_outputs)
        self.convolution = PNAConvolution()

    def forward(self, batch: Data) -> Tensor:
        """Map a batch of ``B`` graphs to ``[B, K]``."""
        num_nodes = len(self.nodes.place_of_node)
        weights = batch.edge_attr
        none = torch.zeros_like(weights)
        edge_index = torch.cat([batch.edge_index, batch.edge_index.flip(0)], dim=1)
        features = torch.cat(
            [torch.cat([weights, none, weights], -1), torch.cat([none, weights, weights], -1)]
        )
        edges = self.edges(features, self.edges.pairs[0])
        x = self.nodes(batch.x.unflatten(0, (-1, num_nodes)), weights).flatten(0, 1)
        for index, layer in enumerate(self.layers):
            if index > 0:
                x = self.dropout(F.silu(self.norms[index - 1](x)))
                update = self.edge_updates[index - 1]
                assert isinstance(update, ng_gnn.EdgeUpdate)
                sources, targets = edge_index
                ends = update.target(x)[targets] + update.source(x)[sources]
                edges = update.output(F.silu(update.edge(edges) + ends))
            x = self.convolution(layer, x, edges, edge_index)
        outputs = x.unflatten(0, (-1, num_nodes))[:, self._topology.slices()[-1]]
        logits: Tensor = self.readout(outputs.flatten(1))
        return logits


class PNAConvolution(MessagePassing):  # type: ignore[misc]
    """The aggregation of PNA with its four statistics and two scalers; it has no weights."""

    def __init__(self) -> None:
        super().__init__(aggr=["mean", "min", "max", "var"])

    def forward(self, layer: PNALayer, x: Tensor, edges: Tensor, edge_index: Tensor) -> Tensor:
        """Run one layer with the weights of the dense one."""
        messages = self.edge_updater(edge_index, x=x, edges=edges, layer=layer)
        received = self.propagate(edge_index, messages=messages, size=(len(x), len(x)))
        *others, variance = received.chunk(4, dim=-1)
        received = torch.cat([*others, (variance + EPS).sqrt()], dim=-1)
        degree = torch.bincount(edge_index[1], minlength=len(x))[:, None]
        scale = (degree + 1).log() / layer.mean_log_degree
        gathered = torch.cat([x, received, scale * received], dim=-1)
        new: Tensor = layer.output(layer.update(gathered))
        return new

    def edge_update(self, x_j: Tensor, x_i: Tensor, edges: Tensor, layer: Any) -> Tensor:
        """Return the message of every edge, from its source j to its target i."""
        gamma, beta = layer.modulation(edges).chunk(2, dim=-1)
        messages: Tensor = gamma * layer.message(torch.cat([x_i, x_j], dim=-1)) + beta
        return messages

    def message(self, messages: Tensor) -> Tensor:
        """Pass on what was made edge by edge."""
        return messages


class PairwiseNGT(RelationalTransformer):
    """NG-T on a dense matrix of edges: all pairs are encoded, and get queries, keys and values."""

    def forward(self, batch: Data) -> Tensor:
        """Map a batch of ``B`` graphs to ``[B, K]``."""
        num_nodes = len(self.nodes.place_of_node)
        x = self.nodes(batch.x.unflatten(0, (-1, num_nodes)), batch.edge_attr)
        matrix = to_dense_adj(batch.edge_index, batch.batch, batch.edge_attr, num_nodes)
        edges = self.edges(matrix, self.edges.pairs[0])
        for layer in self.layers:
            assert isinstance(layer, RelationalLayer)
            attended = layer.project(attend_pair_by_pair(layer.attention, x, edges))
            x = layer.norms[0](x + layer.dropout(attended))
            x = layer.norms[1](x + layer.dropout(layer.perceptron(x)))
            update = layer.edge_update
            if update is not None:
                hidden = update.both_ways(torch.cat([edges, edges.transpose(1, 2)], dim=-1))
                hidden = hidden + update.source(x)[:, :, None] + update.target(x)[:, None]
                change = update.dropout(update.output(F.gelu(hidden)))
                edges = update.norms[0](edges + change)
                edges = update.norms[1](edges + update.dropout(update.perceptron(edges)))
        logits: Tensor = self.readout(x[:, self._topology.slices()[-1]].flatten(1))
        return logits


def attend_pair_by_pair(attention: RelationalAttention, x: Tensor, edges: Tensor) -> Tensor:
    """Attend with queries, keys and values ``[B, N, N, D]`` of all pairs."""
    query, key, value = attention.of_nodes(x).chunk(3, dim=-1)
    of_query, of_key, shift, scale = attention.of_edges(edges).chunk(4, dim=-1)
    queries = query[:, :, None] + of_query
    keys = key[:, None] + of_key
    values = value[:, None] * scale + shift
    heads = (attention.num_heads, -1)
    products = (queries * keys).unflatten(-1, heads).sum(-1)
    weights = (products * key.shape[-1] ** -0.5).softmax(dim=2)
    mixed = (weights[..., None] * values.unflatten(-1, heads)).sum(2)
    attended: Tensor = attention.output(mixed.flatten(2))
    return attended
