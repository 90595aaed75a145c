"""ScaleGMN: a graph network that commutes with signs and scales of units.

Source: Kalogeropoulos et al. 2024 (arXiv 2406.10685) and their released configurations. On fields
whose features do not all carry the factor of their unit (``classifiers.models.gauge``) it has a few
more parts, as said at ``ScaleGMNetwork``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.graph import INPUTS, OUTPUTS, Topology, depth_of, to_graph, topology_of
from classifiers.models.base import Access
from classifiers.models.gauge import (
    Canonical,
    End,
    EquivariantNet,
    Gauge,
    InvariantNet,
    IoNets,
    Link,
    gauge_of,
    inverse_edges,
    normed_perceptron,
)
from classifiers.models.settings import check_at_least, check_shares
from classifiers.space import WeightSpace
from nefbench.errors import TrainingError
from nefbench.weights.symmetries import PERMUTATION


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleGMN:
    """Message passing in which every hidden state carries the sign and scale of its unit.

    The defaults are those of the released MNIST model with messages along the edges only:
    1,772,042 parameters for ten classes of fields with 2-32-32-1 neurons. Phases of sines, and the
    second sign of multiplicative filter networks, are not covered.
    """

    access: ClassVar[Access] = "weights"
    kind: Literal["scale-gmn"] = "scale-gmn"
    hidden_dim: int = 128
    """Width of states, messages, edges and perceptrons."""
    num_layers: int = 4
    """Rounds of message passing."""
    bidirectional: bool = False
    """Whether messages also go against the edges; with positive scales along inverted weights,
    which the release has an option for and no code."""
    canonical: Canonical = "symmetrised"
    """What is invariant under a sign."""
    io_nets: IoNets = "multiplier"
    """What replaces an equivariant net at inputs and outputs."""
    skip: bool = True
    """Whether a linear map of its state is added to the new state of a node."""
    edge_positions: bool = True
    """Whether edges are multiplied by a learned vector per input, hidden block and output."""
    net_positions: bool = False
    """Whether messages and updates see the learned vector of the node; of a message the source."""
    readout: Literal["outputs", "all"] = "outputs"
    """Read the outputs (and inputs, if bidirectional), or the sum over hidden nodes as well."""
    dropout: float = 0.2
    """Share of state entries dropped after every round while training."""
    normalisation: Literal["scale", "none"] = "none"
    """``scale`` divides every tensor by one number, which keeps signs and scales."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "hidden_dim", "num_layers")
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """Permutations, and signs and scales as far as the field has them."""
        return gauge_of(space, topology_of(space)).kinds | {PERMUTATION}

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the rows are no field with hidden units, or the rounds too few.
        """
        topology = topology_of(space)
        if self.readout == "outputs":
            depth = depth_of(topology)
            needed = depth // 2 + 1 if self.bidirectional else depth
            if self.num_layers < needed:
                raise TrainingError(
                    f"model {self.kind!r} with num_layers={self.num_layers} does not see all "
                    f"weights of {space.name}; it reads any field with num_layers >= {needed} "
                    f"or readout 'all'"
                )
        return ScaleGMNetwork(self, space, num_outputs)


class ScaleGMNetwork(nn.Module):
    """Encoders, rounds of message passing, readout.

    Beyond the published parts, only where a field needs them: a unit's features without its factor
    give an invariant context, which multiplies the first state and is seen by every update, and
    which messages without the unit's factor are added to. An edge without the factor of its
    source is multiplied by an invariant function of the source, not by its state. Where nodes or
    edges differ in their number of features, every set and every link has its own encoder.

    Inputs and outputs, which have no factor, enter edge updates as they are; the release
    canonicalises them too. As there, parameters of the last round that no output depends on exist
    where only outputs are read; they are never computed with.
    """

    def __init__(self, config: ScaleGMN, space: WeightSpace, num_outputs: int) -> None:
        super().__init__()
        self._config, self._space = config, space
        self._topology = topology_of(space)
        self._gauge = gauge_of(space, self._topology)
        dim = config.hidden_dim
        self.encode = _Encoder(config, self._topology, self._gauge)
        everywhere = set(range(len(self._topology.sets)))
        read = {0, max(everywhere)} if config.bidirectional else {max(everywhere)}
        self.layers = nn.ModuleList()
        for i in range(config.num_layers):
            is_last = i == config.num_layers - 1
            wanted = read if is_last and config.readout == "outputs" else everywhere
            self.layers.append(_Round(config, self._topology, self._gauge, wanted, is_last))
        first, last = self._topology.sets[0].size, self._topology.sets[-1].size
        self.project: nn.ModuleList | None = None
        self.pool: nn.Module | None = None
        width = last * dim
        if config.readout == "all":
            self.pool = InvariantNet(dim, 1, dim, dim, self._gauge, config.canonical)
            width = (1 + first + last) * dim
        elif config.bidirectional:
            self.project = nn.ModuleList([nn.Linear(n * dim, dim) for n in (first, last)])
            width = 2 * dim
        self.head = normed_perceptron(width, dim, num_outputs)

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        graph = to_graph(self._space, self._topology, batch.normalised)
        places = self._topology.slices()
        nodes = [graph.nodes[:, place] for place in places]
        links = [graph.edges[link.block][..., list(link.features)] for link in self._gauge.links]
        states, contexts, forward, backward = self.encode(nodes, links)
        for layer in self.layers:
            states, forward, backward = layer(states, contexts, forward, backward)
        ends = [states[0].flatten(1), states[-1].flatten(1)]
        if self.pool is not None:
            hidden = [
                self.pool(state, node).sum(1)
                for state, node, nodes_of in zip(
                    states, self._gauge.nodes, self._topology.sets, strict=True
                )
                if nodes_of.is_hidden
            ]
            joined = torch.cat([torch.stack(hidden).sum(0), *ends], dim=-1)
        elif self.project is not None:
            joined = torch.cat([self.project[1](ends[1]), self.project[0](ends[0])], dim=-1)
        else:
            joined = ends[1]
        logits: Tensor = self.head(joined)
        return logits


class _Encoder(nn.Module):
    """First states, contexts and edges."""

    def __init__(self, config: ScaleGMN, topology: Topology, gauge: Gauge) -> None:
        super().__init__()
        dim = config.hidden_dim
        self._topology, self._gauge = topology, gauge
        self._is_bidirectional = config.bidirectional
        counts = [len(node.carrying) for node in gauge.nodes]
        widths = [len(link.features) for link in gauge.links]
        # Published: one encoder for all biases, inputs included, and one for all weights.
        self._is_shared = not topology.is_padded and len({*counts, 0}) == 2 == len({*widths, 0})
        self._shared_dim = max(counts)
        node_dims, link_dims = ([max(counts)], widths[:1]) if self._is_shared else (counts, widths)
        self.nodes = nn.ModuleList([nn.Linear(n, dim, bias=False) for n in node_dims if n])
        self.links = nn.ModuleList([nn.Linear(n, dim, bias=False) for n in link_dims])
        self.invariants = nn.ModuleDict(
            {
                nodes.name: nn.Linear(len(node.invariant), dim, bias=False)
                for nodes, node in zip(topology.sets, gauge.nodes, strict=True)
                if node.invariant
            }
        )
        self._num_positions = [1 if nodes.is_hidden else nodes.size for nodes in topology.sets]
        self.positions = nn.Parameter(torch.randn(sum(self._num_positions), dim))
        self._position_shapes = [_edge_positions(topology, link) for link in gauge.links]
        self.edge_positions: nn.Parameter | None = None
        if config.edge_positions:
            count = sum(n * m for n, m in self._position_shapes)
            self.edge_positions = nn.Parameter(torch.randn(count, dim))

    def forward(
        self, nodes: list[Tensor], links: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Encode the features of every set and link.

        Returns:
            States ``[B, n, F]`` and contexts ``[B, n, F]`` per set, edges ``[B, n_source,
            n_target, F]`` per link, and the same for the links turned round.
        """
        carrying = [
            values[..., list(node.carrying)]
            for values, node in zip(nodes, self._gauge.nodes, strict=True)
        ]
        forward = self._encode_links(links)
        states: list[Tensor] = []
        contexts: list[Tensor] = []
        encoders = iter(self.nodes)
        all_positions = self.positions.split(self._num_positions)
        for i, (positions, each) in enumerate(zip(all_positions, self._topology.sets, strict=True)):
            values = carrying[i]
            if each.name == INPUTS and self._is_shared:
                values = values.new_ones(*values.shape[:2], self._shared_dim)
            context = positions[None].expand(len(values), each.size, -1)
            if each.name in self.invariants:
                chosen = nodes[i][..., list(self._gauge.nodes[i].invariant)]
                context = context + self.invariants[each.name](chosen)
            if values.shape[-1]:
                state = (self.nodes[0] if self._is_shared else next(encoders))(values)
            else:
                state = self._from_inputs(i, contexts, forward, torch.zeros_like(context))
            contexts.append(context)
            states.append(state + context if self._gauge.nodes[i].is_trivial else state * context)
        if not self._is_bidirectional:
            return states, contexts, forward, []
        inverse = inverse_edges(self._gauge, carrying, links)
        backward = forward if inverse is links else self._encode_links(inverse)
        return states, contexts, forward, [edges.transpose(1, 2) for edges in backward]

    def _from_inputs(
        self, place: int, contexts: list[Tensor], forward: list[Tensor], state: Tensor
    ) -> Tensor:
        """Begin units that have no feature of their own with their edges from the inputs."""
        for link, edges in zip(self._gauge.links, forward, strict=True):
            if link.target == place and link.source == 0 and link.carries_target:
                state = state + (contexts[0][:, :, None] * edges).sum(1)
        return state

    def _encode_links(self, links: list[Tensor]) -> list[Tensor]:
        encoders = [self.links[0]] * len(links) if self._is_shared else self.links
        edges = [encoder(values) for encoder, values in zip(encoders, links, strict=True)]
        if self.edge_positions is None:
            return edges
        shapes = self._position_shapes
        positions = self.edge_positions.split([n * m for n, m in shapes])
        return [
            values * vectors.unflatten(0, shape)
            for values, vectors, shape in zip(edges, positions, shapes, strict=True)
        ]


def _edge_positions(topology: Topology, link: Link) -> tuple[int, int]:
    """How many rows and columns of edges have a learned vector of their own."""
    source, target = topology.sets[link.source], topology.sets[link.target]
    return (1 if source.is_hidden else source.size, 1 if target.is_hidden else target.size)


def _turned(link: Link) -> Link:
    """Return the link in the other direction, with inverse factors."""
    return Link(
        link.block,
        link.target,
        link.source,
        link.features,
        link.carries_target,
        link.carries_source,
    )


class _Messages(nn.Module):
    """Messages of one direction, summed at their targets.

    ``Eq((x_source W_v) * (e W_e))``, with the state of the source replaced by an invariant function
    of it where the edge does not carry the factor of the source. A product that does not carry the
    factor of the target is its own message and belongs to the target's context.
    """

    def __init__(self, config: ScaleGMN, topology: Topology, gauge: Gauge, links: list[Link]):
        super().__init__()
        dim = config.hidden_dim
        self._gauge, self._links = gauge, links
        self._ends = [_end(topology, i) for i in range(len(topology.sets))]
        self._sees_positions = config.net_positions
        self.state = nn.Linear(dim, dim, bias=False)
        self.edge = nn.Linear(dim, dim, bias=False)
        self.net = EquivariantNet(
            dim,
            dim,
            dim,
            gauge,
            canonical=config.canonical,
            io_nets=config.io_nets,
            extra_dim=dim if config.net_positions else 0,
        )
        self.source: nn.Module | None = None
        if not all(link.carries_source for link in links):
            self.source = InvariantNet(dim, 1, dim, dim, gauge, config.canonical)

    def forward(
        self, states: list[Tensor], contexts: list[Tensor], edges: list[Tensor], wanted: set[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return sums that carry the factor of their target, and sums that do not, per set."""
        sums = [torch.zeros_like(state) for state in states]
        invariants = list(sums)
        values = [self.state(state) for state in states]
        for link, edge in zip(self._links, edges, strict=True):
            if link.target not in wanted:
                continue
            source = values[link.source]
            if not link.carries_source:
                assert self.source is not None, "built for such links"
                source = self.source(states[link.source], self._gauge.nodes[link.source])
            product = source[:, :, None] * self.edge(edge)
            if not link.carries_target:
                invariants[link.target] = invariants[link.target] + product.sum(1)
                continue
            extra = [contexts[link.source][:, :, None].expand_as(product)]
            target = self._gauge.nodes[link.target]
            message = self.net(
                product, target, self._ends[link.target], *extra[: int(self._sees_positions)]
            )
            sums[link.target] = sums[link.target] + message.sum(1)
        return sums, invariants


def _end(topology: Topology, place: int) -> End:
    name = topology.sets[place].name
    return {INPUTS: "inputs", OUTPUTS: "outputs"}.get(name, "hidden")  # type: ignore[return-value]


class _Round(nn.Module):
    """One round: messages, new states, new edges."""

    def __init__(
        self, config: ScaleGMN, topology: Topology, gauge: Gauge, wanted: set[int], is_last: bool
    ) -> None:
        super().__init__()
        dim = config.hidden_dim
        self._gauge, self._wanted, self._dropout = gauge, wanted, config.dropout
        self._ends = [_end(topology, i) for i in range(len(topology.sets))]
        directions = [list(gauge.links)]
        if config.bidirectional:
            directions.append([_turned(link) for link in gauge.links])
        self._links = directions
        # Without scales an edge is its own inverse, and one update serves both directions.
        self._num_edge_updates = len(directions) if any(n.scale for n in gauge.nodes) else 1
        self.messages = nn.ModuleList(
            [_Messages(config, topology, gauge, links) for links in directions]
        )
        has_invariants = any(node.invariant for node in gauge.nodes) or not all(
            link.carries_target for links in directions for link in links
        )
        self._sees_context = config.net_positions or has_invariants
        self.update = EquivariantNet(
            (1 + len(directions)) * dim,
            dim,
            dim,
            gauge,
            canonical=config.canonical,
            io_nets=config.io_nets,
            extra_dim=dim if self._sees_context else 0,
        )
        self.skip = nn.Linear(dim, dim, bias=False) if config.skip else None
        self.edges, self.edge_multipliers = nn.ModuleList(), nn.ModuleList()
        for _ in range(0 if is_last else self._num_edge_updates):
            self.edges.append(nn.Linear(dim, dim, bias=False))
            self.edge_multipliers.append(InvariantNet(dim, 2, dim, dim, gauge, config.canonical))

    def forward(
        self,
        states: list[Tensor],
        contexts: list[Tensor],
        forward: list[Tensor],
        backward: list[Tensor],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return new states, edges, and edges of the links turned round."""
        received = [
            messages(states, contexts, edges, self._wanted)
            for messages, edges in zip(self.messages, (forward, backward), strict=False)
        ]
        updated = list(states)
        for i in self._wanted:
            extra = []
            if self._sees_context:
                extra.append(contexts[i] + sum(invariants[i] for _, invariants in received))
            joined = torch.cat([states[i], *(sums[i] for sums, _ in received)], dim=-1)
            state = self.update(joined, self._gauge.nodes[i], self._ends[i], *extra)
            if self.skip is not None:
                state = state + self.skip(states[i])
            updated[i] = F.dropout(state, self._dropout, self.training)
        if len(self.edges):
            forward = self._update_edges(0, states, forward)
            if self._num_edge_updates == 2:
                backward = self._update_edges(1, states, backward)
            else:
                backward = [edges.transpose(1, 2) for edges in forward]
        return updated, forward, backward

    def _update_edges(
        self, direction: int, states: list[Tensor], edges: list[Tensor]
    ) -> list[Tensor]:
        multiplier = self.edge_multipliers[direction]
        assert isinstance(multiplier, InvariantNet)
        updated = []
        for link, edge in zip(self._links[direction], edges, strict=True):
            ends = (self._gauge.nodes[link.source], self._gauge.nodes[link.target])
            pairs = multiplier.pairs(states[link.source], states[link.target], ends)
            updated.append(self.edges[direction](edge) * pairs)
        return updated
