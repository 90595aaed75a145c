"""Neural fields in PyTorch Geometric: as data for any of its models, and the study's GNN in it.

The only module that imports ``torch_geometric``, and nothing of nefbench imports this one. All
fields of a space are graphs of one topology, for which ``classifiers.models.gnn`` computes the same
numbers with dense tensors, faster; this is the door to everything else that reads graphs::

    examples = examples_from_dataset(load_neural_dataset("runs/digits-siren"))
    graphs = examples_to_pyg(examples, "standardise")
    model = torch_geometric.nn.GIN(graphs["train"].num_node_features, 64, 3)
    for batch in torch_geometric.loader.DataLoader(graphs["train"], batch_size=32, shuffle=True):
        nodes = model(batch.x, batch.edge_index)  # [32 N, 64]; labels in batch.y
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, Dataset
from torch_geometric.nn import MessagePassing

from classifiers.batch import FieldBatch
from classifiers.examples import Examples
from classifiers.graph import NeuronGraph, Topology, to_graph, topology_of
from classifiers.models.gnn import (
    GNN,
    GraphNetwork,
    make_edge_mlp,
    make_node_mlp,
    node_kinds,
)
from classifiers.normalisation import Normalisation, TensorNormalisation
from classifiers.space import WeightSpace


class FieldGraphs(Dataset):  # type: ignore[misc]
    """Neural fields as ``Data`` objects, made when they are asked for; nothing is on disk.

    Indexing, slices, ``shuffle``, transforms and loaders are those of every PyG dataset. A graph
    has ``N`` nodes (inputs, hidden units, outputs) and ``E`` edges (one per entry of a kernel):

    * ``x``: ``[N, node_dim]``, biases; inputs have none and hold zeros;
    * ``edge_index``, ``edge_attr``: ``[2, E]`` from the inputs towards the outputs, and
      ``[E, edge_dim]``, weights;
    * ``node_type``, ``edge_type``: ``[N]``, ``[E]``: each input, each group of hidden units and
      each output is a type of nodes, each pair of groups a type of edges;
    * ``y``: ``[1]``, if the rows have labels.

    Args:
        rows: Weights ``[n, P]``.
        space: What they mean.
        labels: ``[n]``.

    Raises:
        TrainingError: If the rows are no fields with hidden units.
        ValueError: If rows are of another width than the space, or labels of another number.
    """

    def __init__(self, rows: Tensor, space: WeightSpace, labels: Tensor | None = None) -> None:
        super().__init__()
        if labels is not None and len(labels) != len(rows):
            raise ValueError(f"expected {len(rows)} labels, one per row (got {len(labels)})")
        self.space = space
        self.labels = labels
        topology = topology_of(space)
        self._nodes, self._edges = _flat_edges(to_graph(space, topology, rows))
        self._shared = {
            "edge_index": topology.edge_index().to(rows.device),
            "node_type": node_kinds(topology).to(rows.device),
            "edge_type": _edge_types(topology).to(rows.device),
        }

    def len(self) -> int:
        """Return the number of fields."""
        return len(self._nodes)

    def get(self, idx: int) -> Data:
        """Return one field as a graph."""
        graph = Data(x=self._nodes[idx], edge_attr=self._edges[idx], **self._shared)
        if self.labels is not None:
            graph.y = self.labels[idx : idx + 1]
        return graph


def to_pyg(rows: Tensor, space: WeightSpace, labels: Tensor | None = None) -> FieldGraphs:
    """View rows ``[n, P]`` as a PyG dataset of ``n`` graphs; see ``FieldGraphs``."""
    return FieldGraphs(rows, space, labels)


def examples_to_pyg(
    examples: Examples, normalisation: Normalisation = "none"
) -> dict[str, FieldGraphs]:
    """Return every split of labelled rows as a PyG dataset.

    Args:
        examples: Of a neural dataset: ``examples_from_dataset``.
        normalisation: With the statistics of the training split; ``none``: weights as stored.
    """
    normalise = TensorNormalisation(examples.space.spec, normalisation)
    normalise.measure(examples.splits["train"].rows)
    return {
        name: to_pyg(normalise(part.rows), examples.space, part.labels)
        for name, part in examples.splits.items()
    }


def from_pyg(graphs: Data | Iterable[Data], space: WeightSpace) -> Tensor:
    """Read rows ``[n, P]`` back: every number returns to its place unchanged.

    Args:
        graphs: A graph, a ``Batch`` of graphs, or several graphs, as ``to_pyg`` makes them.
        space: Whose weights they are.

    Raises:
        ValueError: If a graph has other nodes or edges than the fields of the space.
    """
    topology = topology_of(space)
    parts = [graphs] if isinstance(graphs, Data) else list(graphs)
    numbers = torch.cat(
        [
            torch.cat(
                [
                    _per_graph("x", part.x, topology.num_nodes, topology.node_dim),
                    _per_graph("edge_attr", part.edge_attr, topology.num_edges, topology.edge_dim),
                ],
                dim=1,
            )
            for part in parts
        ]
    )
    # Where each weight went: send the numbers 1 … P (padding stays 0), exact in float64.
    labels = torch.arange(1, space.num_params + 1, dtype=torch.float64)
    nodes, edges = _flat_edges(to_graph(space, topology, labels[None]))
    places = torch.cat([nodes.flatten(), edges.flatten()]).argsort()[-space.num_params :]
    return numbers[:, places.to(numbers.device)]


def _per_graph(name: str, values: Tensor, count: int, num_features: int) -> Tensor:
    """Return the features of a batch of graphs as one row per graph."""
    if len(values) % count or values.shape[1:] != (num_features,):
        raise ValueError(
            f"expected {name} of shape [{count}, {num_features}] per graph "
            f"(got {tuple(values.shape)}); this graph was made from other fields"
        )
    return values.reshape(-1, count * num_features)


def _flat_edges(graph: NeuronGraph) -> tuple[Tensor, Tensor]:
    """Return nodes ``[B, N, F]`` and edges ``[B, E, F]`` in the order of the edge index."""
    return graph.nodes, torch.cat([edges.flatten(1, 2) for edges in graph.edges], dim=1)


def _edge_types(topology: Topology) -> Tensor:
    sizes = [topology.sets[b.source].size * topology.sets[b.target].size for b in topology.blocks]
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


class GeometricStep(MessagePassing):  # type: ignore[misc]
    """One step of the study's GNN as a convolution.

    Shapes:
        nodes ``[..., N, h]``, edges ``[..., E, h]``, ``edge_index [2, E]``: without leading axes a
        graph or a batch of graphs, with one ``B`` graphs that share their edges (static graphs).
    """

    def __init__(self, config: GNN) -> None:
        super().__init__(aggr="mean", node_dim=-2)
        self.edge_mlp = make_edge_mlp(config)
        self.node_mlp = make_node_mlp(config)
        self.residual = config.residual

    def forward(self, x: Tensor, edge_attr: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Update nodes and edges."""
        num_nodes = x.shape[-2]
        messages = self.edge_updater(edge_index, x=x, edge_attr=edge_attr)
        received = self.propagate(edge_index, messages=messages, size=(num_nodes, num_nodes))
        change = self.node_mlp(torch.cat([x, received], dim=-1))
        if self.residual:
            return x + change, edge_attr + messages
        return change, messages

    def edge_update(self, x_j: Tensor, x_i: Tensor, edge_attr: Tensor) -> Tensor:
        """Return the message of every edge, from its source j to its target i."""
        messages: Tensor = self.edge_mlp(torch.cat([x_j, x_i, edge_attr], dim=-1))
        return messages

    def message(self, messages: Tensor) -> Tensor:
        """Pass on what the edges were updated with."""
        return messages


class GeometricNetwork(GraphNetwork):
    """The study's GNN with ``torch_geometric``: the state and the numbers of ``GraphNetwork``.

    It reads a ``FieldBatch`` (one edge index for all fields) and a ``Batch`` of graphs from
    ``to_pyg``; weights of either network load into the other.

    Example::

        network = GeometricNetwork(GNN(), space, num_outputs=10)
        network.load_state_dict(classifier.network.model.state_dict())
        logits = network(Batch.from_data_list(list(to_pyg(normalised_rows, space))))
    """

    edge_index: Tensor
    edge_type: Tensor

    def __init__(self, config: GNN, space: WeightSpace, num_outputs: int) -> None:
        super().__init__(config, space, num_outputs)
        self.register_buffer("edge_index", self.topology.edge_index(), persistent=False)
        self.register_buffer("edge_type", _edge_types(self.topology), persistent=False)

    def make_step(self, config: GNN) -> nn.Module:
        """Return one message-passing step."""
        return GeometricStep(config)

    def forward(self, batch: FieldBatch | Data) -> Tensor:
        """Map ``B`` normalised fields to ``[B, K]``."""
        edge_index: Tensor
        if isinstance(batch, FieldBatch):
            x, edge_attr = _flat_edges(to_graph(self.space, self.topology, batch.normalised))
            edge_index = self.edge_index
        else:
            x, edge_attr, edge_index = batch.x, batch.edge_attr, batch.edge_index
        nodes = _add_per_graph(self.encode_nodes(x), self.node_embedding(self.node_kind))
        edges = self._encode_edges(edge_attr)
        if self.has_reverse_edges:
            edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        for step in self.steps:
            nodes, edges = step(nodes, edges, edge_index)
        outputs = nodes.reshape(-1, *self.node_kind.shape, nodes.shape[-1])
        logits: Tensor = self.readout(outputs[:, self.topology.slices()[-1]].flatten(1))
        return logits

    def _encode_edges(self, edge_attr: Tensor) -> Tensor:
        """Encode edges ``[..., E, F]``; reversed ones follow all others."""
        encoded = [self.encode_edges(edge_attr)]
        if self.has_reverse_edges:
            encoded.append(self.encode_reverse_edges(edge_attr))
        if self.edge_embedding is not None:
            vectors: Any = self.edge_embedding.weight.split(len(self.topology.blocks))
            encoded = [
                _add_per_graph(values, own[self.edge_type])
                for values, own in zip(encoded, vectors, strict=True)
            ]
        return torch.cat(encoded, dim=-2)


def _add_per_graph(values: Tensor, vectors: Tensor) -> Tensor:
    """Add vectors ``[n, h]`` of one graph to ``[B, n, h]``, or to ``[B n, h]`` of a batch."""
    return (values.reshape(-1, *vectors.shape) + vectors).reshape(values.shape)
