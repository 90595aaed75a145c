"""What the neural-graph models share: how nodes and edges are encoded before the first layer.

Source: Kofinas et al. 2024 ("Graph Neural Networks for Learning Equivariant Representations of
Neural Networks", ICLR, arXiv 2403.12143) and the code they released.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.func import vmap

from classifiers.graph import INPUTS, NeuronGraph, Pair, Topology
from classifiers.models.layers import FourierFeatures
from classifiers.space import WeightSpace


def ordered_pairs(topology: Topology, *, reverse: bool) -> tuple[Pair, ...]:
    """Return which sets send to which: as the field computes, with ``reverse`` also backwards."""
    forward = [(block.source, block.target) for block in topology.blocks]
    backward = [(target, source) for source, target in forward] if reverse else []
    return tuple(dict.fromkeys([*forward, *backward]))


def pair_features(topology: Topology, graph: NeuronGraph, *, reverse: bool) -> dict[Pair, Tensor]:
    """Return the features of all edges by pair, ``[B, n_source, n_target, F]``.

    With ``reverse`` an edge from i to j has the features ``[w_ij, w_ji, w_ij + w_ji]`` and ``F`` is
    three times that of the graph; a weight that does not exist is zero.
    """
    forward = {
        (block.source, block.target): edges
        for block, edges in zip(topology.blocks, graph.edges, strict=True)
    }
    if not reverse:
        return forward
    features = {}
    for source, target in ordered_pairs(topology, reverse=True):
        there, back = forward.get((source, target)), forward.get((target, source))
        if back is not None:
            back = back.transpose(1, 2)
        if there is None:
            assert back is not None
            there = torch.zeros_like(back)
        elif back is None:
            back = torch.zeros_like(there)
        features[source, target] = torch.cat([there, back, there + back], dim=-1)
    return features


def in_full_precision(like: Tensor) -> torch.autocast:
    """Compute on the device of a tensor without autocast: the arguments of sines are large."""
    return torch.autocast(like.device.type, enabled=False)


class FourierMap(FourierFeatures):
    """Fourier features of weights or biases and a linear map, without their concatenation.

    The features of all edges are by far the largest tensor of a network, so it is not copied once
    more to join sines and cosines.
    """

    def __init__(self, in_features: int, num_frequencies: int, sigma: float, dim: int) -> None:
        super().__init__(in_features, num_frequencies, sigma)
        self.encode = nn.Linear(2 * num_frequencies, dim)

    def forward(self, values: Tensor, after: nn.Linear | None = None) -> Tensor:
        """Encode ``[..., F]`` to ``[..., d]``; with ``after`` as if that map followed."""
        kernel, bias = self.encode.weight, self.encode.bias
        if after is not None:
            kernel, bias = after.weight @ kernel, after(bias)
        of_sines, of_cosines = kernel.chunk(2, dim=1)
        with in_full_precision(values):
            angle = values @ (2 * math.pi * self.frequencies)
        return F.linear(angle.sin(), of_sines, bias) + F.linear(angle.cos(), of_cosines)


class EdgeEncoder(nn.Module):
    """Fourier features of the weights and two linear maps.

    Where blocks have different numbers of features, every pair of sets has a learned vector more.
    """

    def __init__(
        self,
        topology: Topology,
        dim: int,
        num_frequencies: int,
        sigma: float,
        *,
        reverse: bool,
    ) -> None:
        super().__init__()
        self.pairs = ordered_pairs(topology, reverse=reverse)
        self.in_features = topology.edge_dim * (3 if reverse else 1)
        self.fourier = FourierMap(self.in_features, num_frequencies, sigma, dim)
        self.project = nn.Linear(dim, dim)
        self.roles = nn.Parameter(torch.randn(len(self.pairs), dim)) if topology.is_padded else None

    def forward(self, features: Tensor, pair: Pair) -> Tensor:
        """Encode the edges of a pair of sets, ``[..., F]`` to ``[..., d]``."""
        encoded: Tensor = self.fourier(features, self.project)
        return encoded if self.roles is None else encoded + self.roles[self.pairs.index(pair)]

    def zero(self) -> Tensor:
        """Return the encoding ``[d]`` of an edge that does not exist: a weight of zero."""
        zeros = self.fourier.frequencies.new_zeros(self.in_features)
        encoded: Tensor = self.fourier(zeros, self.project)
        return encoded


class NodeEncoder(nn.Module):
    """Fourier features of the biases and two linear maps, plus the learned position of a node.

    A position is one vector per input, per hidden set and per output, so it also tells sets with
    different features apart. What the units of a field compute at probes joins before the second
    map.
    """

    place_of_node: Tensor

    def __init__(
        self,
        space: WeightSpace,
        topology: Topology,
        dim: int,
        num_frequencies: int,
        sigma: float,
        *,
        num_probes: int,
    ) -> None:
        super().__init__()
        self.fourier = FourierMap(topology.node_dim, num_frequencies, sigma, dim)
        self.project = nn.Linear(dim, dim)
        self.probes = ProbeFeatures(space, topology, num_probes, dim) if num_probes else None
        places: list[int] = []
        for nodes in topology.sets:
            first = places[-1] + 1 if places else 0
            places += [first + (0 if nodes.is_hidden else unit) for unit in range(nodes.size)]
        self.register_buffer("place_of_node", torch.tensor(places), persistent=False)
        self.positions = nn.Parameter(torch.randn(places[-1] + 1, dim))

    def forward(self, nodes: Tensor, weights: Tensor) -> Tensor:
        """Encode features ``[B, N, F]`` of fields with weights ``[B, P]`` to ``[B, N, d]``."""
        encoded: Tensor = self.fourier(nodes)
        if self.probes is not None:
            encoded = encoded + self.probes(weights)
        projected: Tensor = self.project(encoded)
        return projected + self.positions[self.place_of_node]


class ProbeFeatures(nn.Module):
    """What every unit of a field computes at learned coordinates.

    The values of a unit at all probes pass a linear map and a layer norm, one per set of nodes.
    Inputs compute their coordinate. Probes start uniformly in the cube that the fields live on.
    """

    def __init__(self, space: WeightSpace, topology: Topology, num_probes: int, dim: int) -> None:
        super().__init__()
        assert space.field is not None, "a topology has a field"
        self._field, self._spec = space.field, space.spec
        self._names = [nodes.name for nodes in topology.sets]
        uniform = 2 * torch.rand(num_probes, space.in_dim) - 1
        self.coords = nn.Parameter(space.half_side * uniform)
        shapes = self._trace(torch.zeros(1, space.num_params))
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(self._per_unit(shapes[name]).shape[-1], dim), nn.LayerNorm(dim))
            for name in self._names
        )

    def forward(self, weights: Tensor) -> Tensor:
        """Return ``[B, N, d]`` for weights ``[B, P]`` as they are stored."""
        values = self._trace(weights)
        return torch.cat(
            [
                project(self._per_unit(values[name])).expand(len(weights), -1, -1)
                for name, project in zip(self._names, self.project, strict=True)
            ],
            dim=1,
        )

    def _trace(self, weights: Tensor) -> Mapping[str, Tensor]:
        """Return the values of all sets, ``[B, k, n]`` or ``[B, k, n, m]``; B is 1 for inputs."""
        field, spec = self._field, self._spec
        trace = vmap(lambda row: field.trace(spec.unflatten(row), self.coords))
        with in_full_precision(weights):
            values: dict[str, Tensor] = trace(weights)
        return {INPUTS: self.coords[None], **values}

    @staticmethod
    def _per_unit(values: Tensor) -> Tensor:
        """View values as ``[B, n, k m]``."""
        return values.transpose(1, 2).flatten(2)
