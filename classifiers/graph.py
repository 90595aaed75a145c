"""A field as a graph of its neurons, derived from the axis groups alone.

Every group of exchangeable axes is a set of nodes, and so are the inputs and the outputs. A tensor
with one group is a feature of its nodes, a tensor with two ends is a complete bipartite block of
edges. All fields of a batch share the topology, so a block is a dense tensor and gathering or
scattering is a reshape.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from classifiers.space import WeightSpace
from nefbench.errors import TrainingError
from nefbench.spec import TensorSpec

INPUTS, OUTPUTS = "inputs", "outputs"

Feature = tuple[str, int | None]
"""A tensor, and the index on its view's first axis where that axis counts features."""

Pair = tuple[int, int]
"""Positions of two node sets: the edges from every node of one to every node of the other."""


@dataclass(frozen=True)
class NodeSet:
    """Nodes that one group of axes (or the inputs, or the outputs) gives.

    Attributes:
        name: ``inputs``, the group id, or ``outputs``.
        size: Number of nodes.
        features: Tensors that hold one number per node; empty for the inputs.
    """

    name: str
    size: int
    features: tuple[Feature, ...]

    @property
    def is_hidden(self) -> bool:
        """Whether the nodes are exchangeable."""
        return self.name not in (INPUTS, OUTPUTS)


@dataclass(frozen=True)
class EdgeBlock:
    """All edges from one node set to another.

    Attributes:
        source: Position of the set that the edges leave.
        target: Position of the set that they enter.
        features: Tensors that hold one number per edge.
    """

    source: int
    target: int
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Topology:
    """Which nodes and edges the fields of one weight space have.

    Attributes:
        sets: Inputs, hidden groups in the order of the spec, outputs.
        blocks: Edges, in the order of the spec.
    """

    sets: tuple[NodeSet, ...]
    blocks: tuple[EdgeBlock, ...]

    @property
    def num_nodes(self) -> int:
        """Nodes ``N``."""
        return sum(nodes.size for nodes in self.sets)

    @property
    def num_edges(self) -> int:
        """Edges ``E``."""
        return sum(self.sets[b.source].size * self.sets[b.target].size for b in self.blocks)

    @property
    def node_dim(self) -> int:
        """Features of a node; sets with fewer are padded with zeros."""
        return max(len(nodes.features) for nodes in self.sets)

    @property
    def edge_dim(self) -> int:
        """Features of an edge; blocks with fewer are padded with zeros."""
        return max(len(block.features) for block in self.blocks)

    @property
    def is_padded(self) -> bool:
        """Whether feature ``i`` means different things in different sets or blocks."""
        hidden = {len(nodes.features) for nodes in self.sets if nodes.name != INPUTS}
        return len(hidden | {0}) > 2 or len({len(block.features) for block in self.blocks}) > 1

    def slices(self) -> tuple[slice, ...]:
        """Place of every set in the node axis."""
        ends = list(itertools.accumulate((nodes.size for nodes in self.sets), initial=0))
        return tuple(slice(start, stop) for start, stop in itertools.pairwise(ends))

    def edge_index(self) -> Tensor:
        """Source and target of every edge, int64 ``[2, E]``, blocks in order, each row-major."""
        places = self.slices()
        pairs = []
        for block in self.blocks:
            source = torch.arange(places[block.source].start, places[block.source].stop)
            target = torch.arange(places[block.target].start, places[block.target].stop)
            pairs.append(torch.cartesian_prod(source, target).T)
        return torch.cat(pairs, dim=1)


class NeuronGraph(NamedTuple):
    """Features of ``B`` graphs of one topology.

    Attributes:
        nodes: ``[B, N, node_dim]``, zero where a set has fewer features.
        edges: Per block ``[B, n_source, n_target, edge_dim]``, zero where it has fewer features.
    """

    nodes: Tensor
    edges: tuple[Tensor, ...]


def topology_of(space: WeightSpace) -> Topology:
    """Derive the neuron graph of a weight space.

    An axis that is not exchangeable stands for the inputs if it comes first of two, for the outputs
    if it comes last, and for features if it comes first of three.

    Raises:
        TrainingError: If the rows are no field with hidden units.
    """
    if not space.spec.group_sizes:
        raise TrainingError(
            f"a graph of neurons needs fields with hidden units (got {space.name}); "
            f"plain values are read by the model 'mlp'"
        )
    names = [INPUTS, *space.spec.group_sizes, OUTPUTS]
    node_features: dict[str, list[Feature]] = {name: [] for name in names}
    edge_features: dict[tuple[str, str], list[Feature]] = {}
    for tensor in space.spec.tensors:
        if len(tensor.axes) == 1:
            node_features[tensor.axes[0] or OUTPUTS].append((tensor.name, None))
            continue
        source, target = tensor.axes[-2] or INPUTS, tensor.axes[-1] or OUTPUTS
        edge_features.setdefault((source, target), []).extend(_features(tensor))
    sizes = {INPUTS: space.in_dim, **space.spec.group_sizes, OUTPUTS: space.out_dim}
    return Topology(
        tuple(NodeSet(name, sizes[name], tuple(node_features[name])) for name in names),
        tuple(
            EdgeBlock(names.index(source), names.index(target), tuple(features))
            for (source, target), features in edge_features.items()
        ),
    )


def _features(tensor: TensorSpec) -> list[Feature]:
    if len(tensor.axes) == 2:
        return [(tensor.name, None)]
    return [(tensor.name, channel) for channel in range(tensor.symmetry_shape[0])]


def to_graph(space: WeightSpace, topology: Topology, rows: Tensor) -> NeuronGraph:
    """View rows ``[B, P]`` as node and edge features."""
    views = {tensor.name: tensor.symmetry_shape for tensor in space.spec.tensors}
    parts = {
        name: values.reshape(len(rows), *views[name])
        for name, values in space.spec.unflatten(rows).items()
    }
    nodes = [
        _stack(parts, nodes.features, (len(rows), nodes.size), topology.node_dim, rows)
        for nodes in topology.sets
    ]
    edges = []
    for block in topology.blocks:
        shape = (len(rows), topology.sets[block.source].size, topology.sets[block.target].size)
        edges.append(_stack(parts, block.features, shape, topology.edge_dim, rows))
    return NeuronGraph(torch.cat(nodes, dim=1), tuple(edges))


def _stack(
    parts: Mapping[str, Tensor],
    features: tuple[Feature, ...],
    shape: tuple[int, ...],
    num_features: int,
    like: Tensor,
) -> Tensor:
    if not features:
        return like.new_zeros(*shape, num_features)
    columns = [parts[name] if i is None else parts[name][:, i] for name, i in features]
    stacked = torch.stack(columns, dim=-1)
    return F.pad(stacked, (0, num_features - len(features)))


def targets_of(topology: Topology, pairs: Sequence[Pair], num_layers: int) -> list[tuple[int, ...]]:
    """Return for every layer of messages the sets whose states after it can reach the outputs.

    Args:
        topology: The graph.
        pairs: Which sets send to which.
        num_layers: Rounds of messages.
    """
    needed = {len(topology.sets) - 1}
    layers = []
    for _ in range(num_layers):
        layers.append(tuple(sorted(needed)))
        needed |= {source for source, target in pairs if target in needed}
    return layers[::-1]


def depth_of(topology: Topology, *, reverse: bool = False) -> int:
    """Return the rounds of messages after which every weight has reached the outputs.

    With ``reverse`` every edge also sends from its target to its source.
    """
    blocks = [(block.source, block.target) for block in topology.blocks]
    pairs = [*blocks, *((target, source) for source, target in blocks)] if reverse else blocks
    for num_layers in itertools.count(1):
        first = targets_of(topology, pairs, num_layers)[0]
        if all(j in first or (reverse and i in first) for i, j in blocks):
            return num_layers
    raise AssertionError("every set leads to the outputs")
