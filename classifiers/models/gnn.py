"""Message passing on the graph of neurons, as the published study does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.graph import Topology, to_graph, topology_of
from classifiers.models.base import Access
from classifiers.models.layers import perceptron
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.errors import TrainingError
from nefbench.weights.symmetries import PERMUTATION

_PUBLISHED_STEPS = 4
_ACTIVATION = "silu"
_ROLE_STD = 0.1  # small beside the normalised weights that the vectors are added to


@dataclass(frozen=True, kw_only=True, slots=True)
class GNN:
    """The graph neural network of the study: biases on nodes, weights on edges.

    Papa et al. 2024 (arXiv 2312.10531), supplement: 4 message-passing steps, features of 64, a node
    MLP of 3 layers and an edge MLP of 2 layers of width 256. One step, for an edge from j to i::

        m_ji = edge_mlp([x_j, x_i, e_ji]),   e_ji <- e_ji + m_ji
        x_i <- x_i + node_mlp([x_i, mean_j m_ji])

    The supplement is silent on the rest. Chosen here: layers are hidden layers (1.26 million
    parameters; the study compares 0.5, 1.2 and 1.5 million, and counting the last map as a layer
    gives 0.73), SiLU (the loss on digits falls faster than with ReLU), the mean over all edges that
    enter a node (zero if none does), updates added to what they update, linear encoders, one
    learned vector per input, per group of hidden units and per output, and a readout that joins
    the output nodes into a perceptron with one hidden layer of ``hidden_dim``.
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "standardise"
    kind: Literal["gnn"] = "gnn"
    hidden_dim: int = 64
    """Features of a node and of an edge."""
    node_mlp_dims: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of every node MLP."""
    edge_mlp_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every edge MLP."""
    num_steps: int | None = None
    """Message-passing steps; None: 4, or one per layer of the field if it has more, so that every
    weight reaches the outputs."""
    reverse_edges: bool = False
    """Whether messages also run from the outputs towards the inputs, with an encoder of their
    own."""
    residual: bool = True
    """Whether a step adds to the features of nodes and edges, or replaces them."""

    def __post_init__(self) -> None:
        if self.hidden_dim < 1:
            raise ValueError(f"expected hidden_dim >= 1 (got {self.hidden_dim})")
        for name in ("node_mlp_dims", "edge_mlp_dims"):
            dims = getattr(self, name)
            if not dims or min(dims) < 1:
                raise ValueError(f"expected {name} of one or more widths >= 1 (got {dims})")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"expected num_steps >= 1 (got {self.num_steps})")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """Permutations of hidden units."""
        del space
        return frozenset({PERMUTATION})

    def build(self, space: WeightSpace, num_outputs: int) -> GraphNetwork:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``; it reads every field.

        Raises:
            TrainingError: If the rows are no field, or ``num_steps`` are too few for messages from
                the first layer to arrive at the outputs.
        """
        return GraphNetwork(self, space, num_outputs)


class Arrow(NamedTuple):
    """Complete bipartite edges along which messages run, ``[B, n_source, n_target, …]``.

    Attributes:
        block: Position of the weights in the topology's blocks.
        source: Node set that the messages leave.
        target: Node set that they enter.
        is_reverse: Whether they run against the weights.
    """

    block: int
    source: int
    target: int
    is_reverse: bool


def arrows_of(topology: Topology, reverse_edges: bool) -> tuple[Arrow, ...]:
    """List the blocks of a topology, then the same blocks reversed if asked for."""
    blocks = list(enumerate(topology.blocks))
    arrows = [Arrow(place, block.source, block.target, False) for place, block in blocks]
    if reverse_edges:
        arrows += [Arrow(place, block.target, block.source, True) for place, block in blocks]
    return tuple(arrows)


def node_kinds(topology: Topology) -> Tensor:
    """Number the kinds of nodes, int64 ``[N]``: each input, each hidden set, each output."""
    kinds: list[int] = []
    for nodes in topology.sets:
        first = kinds[-1] + 1 if kinds else 0
        kinds += [first if nodes.is_hidden else first + unit for unit in range(nodes.size)]
    return torch.tensor(kinds)


def depth_of(topology: Topology) -> int:
    """Count the steps after which a message from every edge has reached the outputs."""
    outputs = len(topology.sets) - 1
    distance = {outputs: 0}
    for _ in topology.sets:
        for block in topology.blocks:
            if block.target in distance:
                longer = distance[block.target] + 1
                distance[block.source] = min(longer, distance.get(block.source, longer))
    return 1 + max(distance[block.target] for block in topology.blocks)


def steps_of(config: GNN, space: WeightSpace, topology: Topology) -> int:
    """Return the number of message-passing steps.

    Raises:
        TrainingError: If they are too few.
    """
    depth = depth_of(topology)
    if config.num_steps is None:
        return max(_PUBLISHED_STEPS, depth)
    if config.num_steps < depth:
        raise TrainingError(
            f"model 'gnn' with num_steps={config.num_steps} does not see the first layers of "
            f"{space.name}; it reads any field with num_steps >= {depth}, or without num_steps"
        )
    return config.num_steps


def make_edge_mlp(config: GNN) -> nn.Module:
    """Return the map ``[x_j, x_i, e_ji] -> m_ji`` of an edge from j to i."""
    dim = config.hidden_dim
    return perceptron((3 * dim, *config.edge_mlp_dims, dim), _ACTIVATION)


def make_node_mlp(config: GNN) -> nn.Module:
    """Return the map of a node's features and the mean of its messages to a change of itself."""
    dim = config.hidden_dim
    return perceptron((2 * dim, *config.node_mlp_dims, dim), _ACTIVATION)


class GraphStep(nn.Module):
    """One round of messages, for nodes ``[B, N, h]`` and one edge tensor per arrow.

    Linear maps of joined features are sums of linear maps: those of nodes are taken once per node,
    not once per edge.
    """

    def __init__(self, config: GNN) -> None:
        super().__init__()
        self.edge_mlp = make_edge_mlp(config)
        self.node_mlp = make_node_mlp(config)
        self.residual = config.residual

    def forward(
        self, nodes: Tensor, edges: Sequence[Tensor], arrows: Sequence[Arrow], topology: Topology
    ) -> tuple[Tensor, list[Tensor]]:
        """Update all nodes and all edges."""
        last = list(self.edge_mlp.children())[-1]
        hidden = self._hidden(nodes, edges, arrows, topology)
        messages = [last(values) for values in hidden]
        received = [
            mean_of(messages, arrows, topology, target) for target in range(len(topology.sets))
        ]
        nodes = self._update(nodes, torch.cat(received, dim=1))
        if self.residual:
            messages = [old + new for old, new in zip(edges, messages, strict=True)]
        return nodes, messages

    def finish(
        self, nodes: Tensor, edges: Sequence[Tensor], arrows: Sequence[Arrow], topology: Topology
    ) -> Tensor:
        """Update the output nodes alone, ``[B, c, h]``: in the last step nothing else is read.

        No edge is needed afterwards, so the last linear map of the messages follows the mean.
        """
        outputs = len(topology.sets) - 1
        entering = [place for place, arrow in enumerate(arrows) if arrow.target == outputs]
        chosen = [arrows[place] for place in entering]
        hidden = self._hidden(nodes, [edges[place] for place in entering], chosen, topology)
        pooled = mean_of(hidden, chosen, topology, outputs)
        last = list(self.edge_mlp.children())[-1]
        return self._update(nodes[:, topology.slices()[outputs]], last(pooled))

    def _hidden(
        self, nodes: Tensor, edges: Sequence[Tensor], arrows: Sequence[Arrow], topology: Topology
    ) -> list[Tensor]:
        """Return the edge MLP up to its last linear map, ``[B, n_source, n_target, width]``."""
        first, *inner, _ = self.edge_mlp.children()
        assert isinstance(first, nn.Linear)
        of_source, of_target, of_edge = first.weight.chunk(3, dim=1)
        sources = F.linear(nodes, of_source)
        targets = F.linear(nodes, of_target, first.bias)
        places = topology.slices()
        results = []
        for arrow, values in zip(arrows, edges, strict=True):
            hidden = F.linear(values, of_edge)
            hidden += sources[:, places[arrow.source]].unsqueeze(2)
            hidden += targets[:, places[arrow.target]].unsqueeze(1)
            for layer in inner:
                hidden = layer(hidden)
            results.append(hidden)
        return results

    def _update(self, nodes: Tensor, received: Tensor) -> Tensor:
        change: Tensor = self.node_mlp(torch.cat([nodes, received], dim=-1))
        return nodes + change if self.residual else change


def mean_of(
    messages: Sequence[Tensor], arrows: Sequence[Arrow], topology: Topology, target: int
) -> Tensor:
    """Average all messages that enter a node set, ``[B, n_target, h]``; zero if none do."""
    entering = [
        (values.sum(dim=1), values.shape[1])
        for arrow, values in zip(arrows, messages, strict=True)
        if arrow.target == target
    ]
    if not entering:
        batch, *_, dim = messages[0].shape
        return messages[0].new_zeros(batch, topology.sets[target].size, dim)
    total = torch.stack([values for values, _ in entering]).sum(dim=0)
    return total / sum(degree for _, degree in entering)


class GraphNetwork(nn.Module):
    """Encoders, message-passing steps and readout on dense blocks of edges."""

    node_kind: Tensor

    def __init__(self, config: GNN, space: WeightSpace, num_outputs: int) -> None:
        super().__init__()
        self.space = space
        self.topology = topology_of(space)
        self.arrows = arrows_of(self.topology, config.reverse_edges)
        num_steps = steps_of(config, space, self.topology)
        dim = config.hidden_dim
        self.encode_nodes = nn.Linear(self.topology.node_dim, dim, bias=False)
        kinds = node_kinds(self.topology)
        self.register_buffer("node_kind", kinds, persistent=False)
        self.node_embedding = nn.Embedding(int(kinds[-1]) + 1, dim)
        self.encode_edges = nn.Linear(self.topology.edge_dim, dim)
        self.has_reverse_edges = config.reverse_edges
        if self.has_reverse_edges:
            self.encode_reverse_edges = nn.Linear(self.topology.edge_dim, dim)
        # A feature means one thing per block only where blocks differ in what they hold.
        self.edge_embedding = (
            nn.Embedding(len(self.arrows), dim) if self.topology.is_padded else None
        )
        self.steps = nn.ModuleList(self.make_step(config) for _ in range(num_steps))
        dims = (self.topology.sets[-1].size * dim, dim, num_outputs)
        self.readout = perceptron(dims, _ACTIVATION)
        self.steps.apply(_draw)
        # Inputs have nothing but their vector; it keeps the library's standard deviation of 1.
        nn.init.normal_(self.node_embedding.weight[self.topology.sets[0].size :], std=_ROLE_STD)
        if self.edge_embedding is not None:
            nn.init.normal_(self.edge_embedding.weight, std=_ROLE_STD)

    def make_step(self, config: GNN) -> nn.Module:
        """Return one message-passing step."""
        return GraphStep(config)

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        graph = to_graph(self.space, self.topology, batch.normalised)
        nodes = self.encode_nodes(graph.nodes) + self.node_embedding(self.node_kind)
        edges = [self._encode(graph.edges, place) for place in range(len(self.arrows))]
        *steps, last = self.steps
        for step in steps:
            nodes, edges = step(nodes, edges, self.arrows, self.topology)
        assert isinstance(last, GraphStep)
        outputs = last.finish(nodes, edges, self.arrows, self.topology)
        logits: Tensor = self.readout(outputs.flatten(1))
        return logits

    def _encode(self, blocks: Sequence[Tensor], place: int) -> Tensor:
        arrow = self.arrows[place]
        values = blocks[arrow.block]
        encoded: Tensor
        if arrow.is_reverse:
            encoded = self.encode_reverse_edges(values.transpose(1, 2))
        else:
            encoded = self.encode_edges(values)
        if self.edge_embedding is not None:
            encoded = encoded + self.edge_embedding.weight[place]
        return encoded


def _draw(module: nn.Module) -> None:
    """Draw a linear map so that what follows keeps about the size of its input (He et al. 2015).

    With the library's default every step would shrink what it hears a hundredfold, and a change of
    the first layer of a deep field would arrive at the outputs 1e-10 times as large.
    """
    if isinstance(module, nn.Linear):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
