"""A field as a chain of layers: what models of deep weight spaces read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from classifiers.graph import EdgeBlock, NeuronGraph, Topology, to_graph, topology_of
from classifiers.space import WeightSpace
from nefbench.errors import TrainingError


class Chain(NamedTuple):
    """``B`` fields as layers ``l = 1 … M``.

    Attributes:
        weights: ``W_l``, each ``[B, n_{l-1}, n_l, F]``.
        biases: ``b_l``, each ``[B, n_l, F]``.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


@dataclass(frozen=True)
class ChainLayout:
    """How the graph of a weight space packs into a chain.

    Attributes:
        topology: The graph.
        sizes: ``n_0 … n_M``.
        num_features: Features ``F`` of every weight and bias; 1 unless a layer holds more than one
            tensor. Entries with fewer are padded with zeros.
        layers: Per layer the position of its block of edges.
        extra: Per layer the positions of the blocks from the inputs that are folded into its
            biases: the filters of a multiplicative filter network.
    """

    topology: Topology
    sizes: tuple[int, ...]
    num_features: int
    layers: tuple[int, ...]
    extra: tuple[tuple[int, ...], ...]

    @property
    def is_padded(self) -> bool:
        """Whether feature ``i`` means different things in different tensors."""
        return self.num_features > 1


def chain_layout(space: WeightSpace, reader: str) -> ChainLayout:
    """Pack the neuron graph of a weight space into a chain.

    Args:
        space: The weight space.
        reader: Name of the model that asks, for the message.

    Raises:
        TrainingError: If the field is not a chain of layers.
    """
    topology = topology_of(space)
    layers: list[list[int]] = [[] for _ in topology.sets[1:]]
    extra: list[list[int]] = [[] for _ in topology.sets[1:]]
    for place, block in enumerate(topology.blocks):
        if block.target == block.source + 1:
            layers[block.target - 1].append(place)
        elif block.source == 0 and block.target > 1:
            extra[block.target - 1].append(place)
        else:
            raise _not_a_chain(space, topology, block, reader)
    assert all(len(places) == 1 for places in layers), "one block per pair of sets"
    widths = [len(topology.blocks[place].features) for (place,) in layers]
    for nodes, places in zip(topology.sets[1:], extra, strict=True):
        folded = sum(len(topology.blocks[place].features) for place in places)
        widths.append(len(nodes.features) + folded * topology.sets[0].size)
    return ChainLayout(
        topology,
        tuple(nodes.size for nodes in topology.sets),
        max(widths),
        tuple(place for (place,) in layers),
        tuple(tuple(places) for places in extra),
    )


def _not_a_chain(
    space: WeightSpace, topology: Topology, block: EdgeBlock, reader: str
) -> TrainingError:
    names = [nodes.name for nodes in topology.sets]
    return TrainingError(
        f"model {reader!r} reads chains of layers; {space.name} also have weights from "
        f"{names[block.source]} to {names[block.target]}; graph models read them"
    )


def to_chain(space: WeightSpace, layout: ChainLayout, rows: Tensor) -> Chain:
    """View rows ``[B, P]`` as layers."""
    topology = layout.topology
    graph: NeuronGraph = to_graph(space, topology, rows)
    weights, biases = [], []
    for layer, (place, folded) in enumerate(zip(layout.layers, layout.extra, strict=True)):
        edges = graph.edges[place][..., : len(topology.blocks[place].features)]
        weights.append(F.pad(edges, (0, layout.num_features - edges.shape[-1])))
        nodes = topology.sets[layer + 1]
        values = [graph.nodes[:, topology.slices()[layer + 1], : len(nodes.features)]]
        for extra in folded:
            block = graph.edges[extra][..., : len(topology.blocks[extra].features)]
            values.append(block.movedim(1, -1).flatten(-2))
        joined = torch.cat(values, dim=-1)
        biases.append(F.pad(joined, (0, layout.num_features - joined.shape[-1])))
    return Chain(tuple(weights), tuple(biases))
