"""Networks that commute with signs and scales of single units, for any field.

Which number carries which factor is read off the unit symmetries of the field's ``ParamSpec``. Of
a unit with the factor ``s`` (a sign, a positive scale, or their product) a feature either carries
``s`` or none of it; an edge feature carries ``1 / s`` of its source and ``s`` of its target, one of
the two, or neither.

Source: ScaleGMN (Kalogeropoulos et al. 2024, arXiv 2406.10685), section 5, generalised to features
that do not carry the factor of an end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from classifiers.graph import Feature, NodeSet, Topology
from classifiers.space import WeightSpace
from nefbench.spec import UnitSymmetry

GAUGES = ("sign", "scale")
"""Kinds of unit symmetries that multiply."""


@dataclass(frozen=True, slots=True)
class NodeGauge:
    """By what the units of one node set may be multiplied.

    Attributes:
        sign: By -1.
        scale: By any positive number.
        carrying: Positions of the set's features that are multiplied too.
        invariant: Positions of those that are not.
    """

    sign: bool
    scale: bool
    carrying: tuple[int, ...]
    invariant: tuple[int, ...]

    @property
    def is_trivial(self) -> bool:
        """Whether nothing may be multiplied."""
        return not (self.sign or self.scale)


@dataclass(frozen=True, slots=True)
class Link:
    """Edge features of one block that carry the same factors.

    Attributes:
        block: Position of the block in the topology.
        source: Position of the set that the edges leave.
        target: Position of the set that they enter.
        features: Positions of the features.
        carries_source: Whether they carry one over the factor of the source.
        carries_target: Whether they carry the factor of the target. Where an end has no factor,
            it counts as carried.
    """

    block: int
    source: int
    target: int
    features: tuple[int, ...]
    carries_source: bool
    carries_target: bool


@dataclass(frozen=True)
class Gauge:
    """The factors of all units and how the features of a graph carry them.

    Attributes:
        nodes: One per node set of the topology.
        links: Edges, in the order of the topology's blocks.
        kinds: Kinds of unit symmetries that are covered completely.
    """

    nodes: tuple[NodeGauge, ...]
    links: tuple[Link, ...]
    kinds: frozenset[str]


def gauge_of(space: WeightSpace, topology: Topology) -> Gauge:
    """Read the gauge of a graph off the symmetries of its weight space.

    Two symmetries of one group are taken together where every feature carries both or neither;
    the first one counts where they differ.
    """
    chosen: dict[str, list[UnitSymmetry]] = {nodes.name: [] for nodes in topology.sets}
    left_out = set()
    for symmetry in space.spec.symmetries:
        if symmetry.kind in GAUGES:
            others = chosen[symmetry.group]
            pattern = _pattern(topology, symmetry)
            if pattern is None or any(_pattern(topology, other) != pattern for other in others):
                left_out.add(symmetry.kind)
            else:
                others.append(symmetry)
    nodes = tuple(_node_gauge(each, chosen[each.name]) for each in topology.sets)
    links: list[Link] = []
    for place, block in enumerate(topology.blocks):
        ends = []
        for feature in block.features:
            leaving = chosen[topology.sets[block.source].name]
            entering = chosen[topology.sets[block.target].name]
            ends.append(
                (
                    not leaving or _power(leaving[0], feature, -2) != 0,
                    not entering or _power(entering[0], feature, -1) != 0,
                )
            )
        for pair in dict.fromkeys(ends):
            features = tuple(i for i, other in enumerate(ends) if other == pair)
            links.append(Link(place, block.source, block.target, features, *pair))
    kinds = {kind for kind in GAUGES if any(s.kind == kind for s in space.spec.symmetries)}
    return Gauge(nodes, tuple(links), frozenset(kinds - left_out))


def _power(symmetry: UnitSymmetry, feature: Feature, axis: int) -> int:
    """Power of the factor in an edge feature, at its source (axis -2) or target (axis -1)."""
    tensor, channel = feature
    num_axes = 2 if channel is None else 3
    return sum(
        slot.power
        for slot in symmetry.slots
        if slot.tensor == tensor
        and (slot.axis - axis) % num_axes == 0
        and (slot.channel is None or slot.channel == channel)
    )


def _node_power(symmetry: UnitSymmetry, feature: Feature) -> int:
    return sum(slot.power for slot in symmetry.slots if slot.tensor == feature[0])


def _pattern(topology: Topology, symmetry: UnitSymmetry) -> tuple[bool, ...] | None:
    """Which features carry a symmetry; None if one carries another power than it should."""
    pattern = []
    for index, nodes in enumerate(topology.sets):
        if nodes.name != symmetry.group:
            continue
        powers = [(_node_power(symmetry, feature), 1) for feature in nodes.features]
        for block in topology.blocks:
            if block.target == index:
                powers += [(_power(symmetry, feature, -1), 1) for feature in block.features]
            if block.source == index:
                powers += [(_power(symmetry, feature, -2), -1) for feature in block.features]
        for power, expected in powers:
            same = power % 2 == 1 if symmetry.kind == "sign" else power == expected
            if power != 0 and not same:
                return None
            pattern.append(power != 0)
    return tuple(pattern)


def _node_gauge(nodes: NodeSet, symmetries: list[UnitSymmetry]) -> NodeGauge:
    kinds = {symmetry.kind for symmetry in symmetries}
    carrying = tuple(
        i
        for i, feature in enumerate(nodes.features)
        if not symmetries or _node_power(symmetries[0], feature) != 0
    )
    invariant = tuple(i for i in range(len(nodes.features)) if i not in carrying)
    return NodeGauge("sign" in kinds, "scale" in kinds, carrying, invariant)


def unit_vectors(values: Tensor) -> Tensor:
    """Divide ``[..., F]`` by its norm over the last axis; zero stays zero."""
    squares = values.square().sum(-1, keepdim=True)
    return values * torch.where(squares > 0, squares, 1.0).rsqrt()


def normed_perceptron(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Return linear map, layer normalisation, SiLU, linear map: ScaleGMN's perceptron."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        nn.LayerNorm(hidden_dim),
        nn.SiLU(),
        nn.Linear(hidden_dim, out_dim),
    )


Canonical = Literal["symmetrised", "absolute"]
"""Invariants under a sign: ``rho(x) + rho(-x)`` with a perceptron ``rho``, or ``|x|``."""


class InvariantInput(nn.Module):
    """Invariant features ``[..., F] -> [..., F]``: unit vectors for scales, even ones for signs.

    Features of nodes without a factor stay as they are.
    """

    def __init__(self, dim: int, hidden_dim: int, gauge: Gauge, canonical: Canonical) -> None:
        super().__init__()
        has_sign = any(node.sign for node in gauge.nodes)
        self.rho = (
            normed_perceptron(dim, hidden_dim, dim)
            if has_sign and canonical == "symmetrised"
            else None
        )

    def forward(self, values: Tensor, node: NodeGauge) -> Tensor:
        """Canonicalise features that carry the factor of ``node``."""
        if node.scale:
            values = unit_vectors(values)
        if node.sign:
            values = values.abs() if self.rho is None else self.rho(values) + self.rho(-values)
        return values


IoNets = Literal["multiplier", "separate"]
"""Where inputs and outputs have no factor: a perceptron of their own in place of the invariant
multiplier, or one for inputs and one for outputs in place of the whole."""


End = Literal["hidden", "inputs", "outputs"]
"""Which nodes of a field."""


class EquivariantNet(nn.Module):
    """``x Gamma * g(inv(x), extra)`` with a bias-free ``Gamma``: carries the factor of ``x``."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hidden_dim: int,
        gauge: Gauge,
        *,
        canonical: Canonical,
        io_nets: IoNets,
        extra_dim: int = 0,
    ) -> None:
        super().__init__()
        dims = (in_dim + extra_dim, hidden_dim, out_dim)
        self.gamma = nn.Linear(in_dim, out_dim, bias=False)
        self.canonical = InvariantInput(in_dim, hidden_dim, gauge, canonical)
        self.multiplier = normed_perceptron(*dims)
        num_io = 1 if io_nets == "multiplier" else 2
        self.io = nn.ModuleList([normed_perceptron(*dims) for _ in range(num_io)])

    def forward(
        self,
        values: Tensor,
        node: NodeGauge,
        end: Literal["hidden", "inputs", "outputs"],
        *extra: Tensor,
    ) -> Tensor:
        """Map features ``[..., F]`` at the nodes of one set, which is an ``end`` of the field."""
        if end == "hidden":
            joined = torch.cat([self.canonical(values, node), *extra], dim=-1)
            result: Tensor = self.gamma(values) * self.multiplier(joined)
            return result
        joined = torch.cat([values, *extra], dim=-1)
        if len(self.io) == 1:
            return self.gamma(values) * self.io[0](joined)  # type: ignore[no-any-return]
        return self.io[0 if end == "inputs" else 1](joined)  # type: ignore[no-any-return]


class InvariantNet(nn.Module):
    """Perceptron on the joined invariant features of one or more nodes."""

    def __init__(
        self,
        dim: int,
        num_nodes: int,
        out_dim: int,
        hidden_dim: int,
        gauge: Gauge,
        canonical: Canonical,
    ) -> None:
        super().__init__()
        self.canonical = InvariantInput(dim, hidden_dim, gauge, canonical)
        self.phi = normed_perceptron(num_nodes * dim, hidden_dim, out_dim)

    def forward(self, values: Tensor, node: NodeGauge) -> Tensor:
        """Map features ``[..., F]`` of single nodes."""
        result: Tensor = self.phi(self.canonical(values, node))
        return result

    def pairs(self, source: Tensor, target: Tensor, ends: tuple[NodeGauge, NodeGauge]) -> Tensor:
        """Map all pairs: ``[B, n, F]`` and ``[B, m, F]`` to ``[B, n, m, out_dim]``.

        The first linear map acts on nodes, not on pairs: it is a sum over the two ends.
        """
        first = self.phi[0]
        assert isinstance(first, nn.Linear), "what a perceptron begins with"
        half = source.shape[-1]
        left = self.canonical(source, ends[0]) @ first.weight[:, :half].T
        right = self.canonical(target, ends[1]) @ first.weight[:, half:].T + first.bias
        values: Tensor = self.phi[1:](left[:, :, None] + right[:, None])
        return values


_FLOOR = 0.05
"""Weights smaller than this share of what enters a unit are not inverted any further."""


def magnitudes(gauge: Gauge, nodes: list[Tensor], edges: list[Tensor]) -> list[Tensor]:
    """Return a positive number per unit ``[B, n]`` that grows with its scale; 1 without a scale.

    It is the norm of what enters the unit, measured with the units before it at norm 1.

    Args:
        gauge: The gauge.
        nodes: Features that carry the factor, per set ``[B, n, F]``.
        edges: Features per link ``[B, n_source, n_target, F]``.
    """
    sizes: list[Tensor] = []
    for index, node in enumerate(gauge.nodes):
        squares = nodes[index].square().sum(-1)
        for link, values in zip(gauge.links, edges, strict=True):
            if link.target == index and link.source < index and link.carries_target:
                balanced = values
                if link.carries_source:
                    balanced = values * sizes[link.source][:, :, None, None]
                squares = squares + balanced.square().sum((1, 3))
        is_scaled = (squares > 0) if node.scale else torch.zeros_like(squares, dtype=torch.bool)
        sizes.append(torch.where(is_scaled, squares, 1.0).sqrt())
    return sizes


def inverse_edges(gauge: Gauge, nodes: list[Tensor], edges: list[Tensor]) -> list[Tensor]:
    """Return edge features with the inverse factors: ``1 / w``, bounded.

    With the magnitudes of both ends taken off, a weight ``v`` is invariant, and ``v / (v**2 +
    0.05**2)`` stands for its inverse. Without scales a weight is as good as its inverse and stays.
    Arguments as in ``magnitudes``.
    """
    if not any(node.scale for node in gauge.nodes):
        return edges
    sizes = magnitudes(gauge, nodes, edges)
    inverted = []
    for link, values in zip(gauge.links, edges, strict=True):
        factor = torch.ones_like(values[..., :1])
        if link.carries_source:
            factor = factor * sizes[link.source][:, :, None, None]
        if link.carries_target:
            factor = factor / sizes[link.target][:, None, :, None]
        balanced = values * factor
        inverted.append(factor * balanced / (balanced.square() + _FLOOR**2))
    return inverted
