"""Message passing on the graph of neurons, as the published study does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.graph import Topology, depth_of, targets_of, to_graph, topology_of
from classifiers.models.base import Access
from classifiers.models.gnn_messages import send_messages
from classifiers.models.layers import perceptron
from classifiers.models.settings import check_at_least
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
        check_at_least(1, self, "hidden_dim", "num_steps")
        for name in ("node_mlp_dims", "edge_mlp_dims"):
            dims = getattr(self, name)
            if not dims or min(dims) < 1:
                raise ValueError(f"expected {name} of one or more widths >= 1 (got {dims})")

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
    not once per edge. The last linear map of the messages follows their mean; of edges it is taken
    only where they are read again.
    """

    def __init__(self, config: GNN) -> None:
        super().__init__()
        self.edge_mlp = make_edge_mlp(config)
        self.node_mlp = make_node_mlp(config)
        self.residual = config.residual

    def forward(
        self,
        nodes: Tensor,
        edges: Sequence[Tensor],
        arrows: Sequence[Arrow],
        topology: Topology,
        targets: Sequence[int] | None = None,
        next_targets: Sequence[int] | None = None,
        encoders: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Update nodes and edges.

        Args:
            nodes: ``[B, N, h]``.
            edges: ``[B, n_source, n_target, h]`` per arrow.
            arrows: Where messages run.
            topology: Sizes of the sets.
            targets: Sets to update; None: all. Other nodes are returned as they were.
            next_targets: Sets, all of them targets, into which edges are updated; None: all
                targets. Other edges are returned as they were.
            encoders: Per arrow kernel ``[h, F]`` and bias of the linear map that makes its edges
                from ``[B, n_source, n_target, F]``; None: they are made.
        """
        targets = range(len(topology.sets)) if targets is None else targets
        next_targets = targets if next_targets is None else next_targets
        first, *inner, last = (m for m in self.edge_mlp.children() if isinstance(m, nn.Linear))
        of_source, of_target, of_edge = first.weight.chunk(3, dim=1)
        from_part = F.linear(nodes, of_source)
        to_part = F.linear(nodes, of_target, first.bias)
        hidden_maps = [part for layer in inner for part in (layer.weight, layer.bias)]
        places = topology.slices()
        edges, sums = list(edges), [nodes] * len(arrows)
        for place, arrow in enumerate(arrows):
            if arrow.target in targets:
                is_kept = arrow.target in next_targets
                sums[place], new = send_messages(
                    edges[place],
                    from_part[:, places[arrow.source]],
                    to_part[:, places[arrow.target]],
                    of_edge,
                    hidden_maps,
                    (last.weight, last.bias) if is_kept else (),
                    encoder=None if encoders is None else encoders[place],
                    residual=self.residual,
                )
                edges[place] = edges[place] if new is None else new
        states = [nodes[:, place] for place in places]
        received = []
        for target in targets:
            mean = mean_of(sums, arrows, topology, target)
            received.append(torch.zeros_like(states[target]) if mean is None else last(mean))
        updated = self._update(
            torch.cat([states[target] for target in targets], dim=1), torch.cat(received, dim=1)
        )
        sizes = [topology.sets[target].size for target in targets]
        for target, values in zip(targets, updated.split(sizes, dim=1), strict=True):
            states[target] = values
        return torch.cat(states, dim=1), edges

    def _update(self, nodes: Tensor, received: Tensor) -> Tensor:
        change: Tensor = self.node_mlp(torch.cat([nodes, received], dim=-1))
        return nodes + change if self.residual else change


def mean_of(
    sums: Sequence[Tensor], arrows: Sequence[Arrow], topology: Topology, target: int
) -> Tensor | None:
    """Average over all edges that enter a node set.

    Args:
        sums: Per arrow what its edges bring, summed over sources, ``[B, n_target, h]``.
        arrows: Which sums enter which set.
        topology: Sizes of the sets.
        target: The set.

    Returns:
        ``[B, n_target, h]``; None if no edge enters the set.
    """
    entering = [place for place, arrow in enumerate(arrows) if arrow.target == target]
    if not entering:
        return None
    degree = sum(topology.sets[arrows[place].source].size for place in entering)
    return torch.stack([sums[place] for place in entering]).sum(dim=0) / degree


class GraphNetwork(nn.Module):
    """Encoders, message-passing steps and readout on dense blocks of edges."""

    node_kind: Tensor

    def __init__(self, config: GNN, space: WeightSpace, num_outputs: int) -> None:
        super().__init__()
        self.space = space
        self.topology = topology_of(space)
        self.arrows = arrows_of(self.topology, config.reverse_edges)
        num_steps = steps_of(config, space, self.topology)
        pairs = [(arrow.source, arrow.target) for arrow in self.arrows]
        self.targets = targets_of(self.topology, pairs, num_steps)
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
        edges = [
            graph.edges[arrow.block].transpose(1, 2)
            if arrow.is_reverse
            else graph.edges[arrow.block]
            for arrow in self.arrows
        ]
        encoders: list[tuple[Tensor, Tensor]] | None
        encoders = [self._encoder(place) for place in range(len(self.arrows))]
        for step, *targets in zip(self.steps, self.targets, (*self.targets[1:], ()), strict=True):
            nodes, edges = step(nodes, edges, self.arrows, self.topology, *targets, encoders)
            encoders = None
        logits: Tensor = self.readout(nodes[:, self.topology.slices()[-1]].flatten(1))
        return logits

    def _encoder(self, place: int) -> tuple[Tensor, Tensor]:
        """Return kernel and bias of the map that makes the edges of an arrow from weights."""
        is_reverse = self.arrows[place].is_reverse
        layer = self.encode_reverse_edges if is_reverse else self.encode_edges
        if self.edge_embedding is None:
            return layer.weight, layer.bias
        return layer.weight, layer.bias + self.edge_embedding.weight[place]


def _draw(module: nn.Module) -> None:
    """Draw a linear map so that what follows keeps about the size of its input (He et al. 2015).

    With the library's default every step would shrink what it hears a hundredfold, and a change of
    the first layer of a deep field would arrive at the outputs 1e-10 times as large.
    """
    if isinstance(module, nn.Linear):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
