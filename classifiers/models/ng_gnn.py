"""NG-GNN: messages on the graph of neurons, aggregated as in PNA and modulated by the edges.

Source: Kofinas et al. 2024 (ICLR, arXiv 2403.12143) and the code they released; Corso et al. 2020
("Principal Neighbourhood Aggregation for Graph Nets", arXiv 2004.05718).

Blocks of edges are complete, so nothing is gathered or scattered: the edges into one set of nodes
are one tensor ``[n_target, n_sources, B, d]``. Nodes and edges come before the fields of the batch,
which makes an aggregate over sources a reduction over long contiguous vectors. Only output nodes
are read in the end, so every layer computes the sets that can still reach them, and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from classifiers.batch import FieldBatch
from classifiers.graph import Topology, depth_of, targets_of, to_graph, topology_of
from classifiers.models.base import Access
from classifiers.models.layers import perceptron
from classifiers.models.neural_graph import EdgeEncoder, NodeEncoder, pair_features
from classifiers.models.settings import check_at_least, check_positive, check_shares
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace

EPS = 1e-5
"""Added to a variance under its root: messages that do not vary have a finite gradient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NGGNN:
    """Message passing with four aggregators, edge modulation and edge updates.

    The published network has 92,010 parameters on SIREN 3x32 with one output (94,122 with three,
    100,714 with one output and 64 probes).
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "standardise"
    kind: Literal["ng-gnn"] = "ng-gnn"
    hidden_dim: int = 32
    """Width ``d`` of nodes and edges."""
    num_layers: int | None = None
    """Rounds of messages; None: 4 as published, more if some weight is farther from the outputs."""
    num_probes: int = 0
    """Coordinates at which every unit's value is a feature of its node; published: 0 and 64."""
    reverse_edges: bool = True
    """Whether messages also go from outputs to inputs."""
    num_frequencies: int = 128
    """Fourier features per weight and per bias: so many sines, and as many cosines."""
    sigma: float = 3.0
    """Spread of their frequencies."""
    dropout: float = 0.2
    """Share of node states dropped between layers while training."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "hidden_dim", "num_frequencies", "num_layers")
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
        return GraphNetwork(self, space, num_outputs)


States = dict[int, Tensor]
"""By position of a set: its nodes ``[n, B, d]``, or the edges into it ``[n, n_sources, B, d]``."""

Sources = Mapping[int, Sequence[int]]
"""By position of a set: the sets that send to it, in the order in which its edges lie."""


class GraphNetwork(nn.Module):
    """Encoders, layers and the readout of the output nodes."""

    def __init__(self, model: NGGNN, space: WeightSpace, num_outputs: int) -> None:
        super().__init__()
        self._space = space
        self._topology = topology = topology_of(space)
        self._reverse = model.reverse_edges
        dim, frequencies = model.hidden_dim, (model.num_frequencies, model.sigma)
        self.nodes = NodeEncoder(space, topology, dim, *frequencies, num_probes=model.num_probes)
        self.edges = EdgeEncoder(topology, dim, *frequencies, reverse=self._reverse)
        pairs = self.edges.pairs
        self._sources = {
            place: tuple(source for source, target in pairs if target == place)
            for place in range(len(topology.sets))
        }
        num_layers = model.num_layers or max(4, depth_of(topology, reverse=self._reverse))
        self._targets = targets_of(topology, pairs, num_layers)
        log_degree = mean_log_degree(topology)
        self.layers = nn.ModuleList(PNALayer(dim, log_degree) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers - 1))
        self.edge_updates = nn.ModuleList(EdgeUpdate(dim) for _ in range(num_layers - 1))
        self.dropout = nn.Dropout(model.dropout)
        self.readout = perceptron([space.out_dim * dim, dim, dim, num_outputs])

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        nodes, edges = self._encode(batch)
        for index, layer in enumerate(self.layers):
            if index > 0:
                nodes = {
                    place: self.dropout(F.silu(self.norms[index - 1](state)))
                    for place, state in nodes.items()
                }
                update = self.edge_updates[index - 1]
                edges = update(nodes, edges, self._sources, self._targets[index])
            nodes = layer(nodes, edges, self._sources, self._targets[index])
        (outputs,) = nodes.values()
        result: Tensor = self.readout(outputs.transpose(0, 1).flatten(1))
        return result

    def _encode(self, batch: FieldBatch) -> tuple[States, States]:
        topology = self._topology
        graph = to_graph(self._space, topology, batch.normalised)
        encoded = self.nodes(graph.nodes, batch.weights).transpose(0, 1)
        nodes = {place: encoded[part] for place, part in enumerate(topology.slices())}
        features = pair_features(topology, graph, reverse=self._reverse)
        edges = {}
        for target in self._targets[0]:
            pairs = [(source, target) for source in self._sources[target]]
            if pairs:
                parts = [self.edges(features[pair].permute(2, 1, 0, 3), pair) for pair in pairs]
                edges[target] = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return nodes, edges


class PNALayer(nn.Module):
    """One round of messages.

    ``m_ij = gamma_ij * (W_m [x_i, x_j] + c_m) + beta_ij`` with ``[gamma_ij, beta_ij] = W_e e_ij``
    for receiver i; their mean, minimum, maximum and standard deviation, plain and times
    ``log(degree + 1) / delta``, and the state of the receiver pass two linear maps. Nodes that
    receive nothing aggregate zeros.
    """

    def __init__(self, dim: int, mean_log_degree: float) -> None:
        super().__init__()
        self.mean_log_degree = mean_log_degree
        self.modulation = nn.Linear(dim, 2 * dim)
        self.message = nn.Linear(2 * dim, dim)
        self.update = nn.Linear(9 * dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(
        self, nodes: States, edges: States, sources: Sources, targets: Sequence[int]
    ) -> States:
        """Return the new states of ``targets``."""
        to_kernel, from_kernel = self.message.weight.chunk(2, dim=1)
        states = {}
        for target in targets:
            state = nodes[target]
            if not sources[target]:
                received = state.new_zeros(*state.shape[:-1], 8 * state.shape[-1])
            else:
                to_part = F.linear(state, to_kernel, self.message.bias)
                from_part = F.linear(joined(nodes, sources[target]), from_kernel)
                received = statistics_of_messages(
                    *self._modulation(edges[target]), to_part, from_part
                )
                scale = math.log(len(from_part) + 1) / self.mean_log_degree
                received = torch.cat([received, scale * received], dim=-1)
            states[target] = self.output(self.update(torch.cat([state, received], dim=-1)))
        return states

    def _modulation(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Return factor and shift; two products make two contiguous tensors."""
        kernels, biases = self.modulation.weight.chunk(2), self.modulation.bias.chunk(2)
        gamma, beta = (F.linear(edges, k, b) for k, b in zip(kernels, biases, strict=True))
        return gamma, beta


class EdgeUpdate(nn.Module):
    """``e_ij <- W_2 silu(W_a e_ij + W_b x_j + W_c x_i)`` for an edge from j to i."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.edge = nn.Linear(dim, dim)
        self.source = nn.Linear(dim, dim)
        self.target = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(
        self, nodes: States, edges: States, sources: Sources, targets: Sequence[int]
    ) -> States:
        """Return the new states of the edges into ``targets``."""
        states = {}
        for target in targets:
            if sources[target]:
                ends = self.target(nodes[target])[:, None] + self.source(
                    joined(nodes, sources[target])
                )
                states[target] = self.output(F.silu(self.edge(edges[target]) + ends))
        return states


def joined(nodes: States, sources: Sequence[int]) -> Tensor:
    """Concatenate the nodes of several sets."""
    parts = [nodes[source] for source in sources]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Statistics(torch.autograd.Function):
    """Messages and their aggregates in few passes over the edges, forwards and backwards."""

    @staticmethod
    def forward(
        ctx: Any, gamma: Tensor, beta: Tensor, to_part: Tensor, from_part: Tensor
    ) -> Tensor:
        messages = torch.addcmul(beta, gamma, to_part[:, None] + from_part[None])
        mean, least, most = messages.mean(dim=1), messages.amin(dim=1), messages.amax(dim=1)
        variance = (messages - mean[:, None]).square_().mean(dim=1)
        spread = variance.add_(EPS).sqrt_()
        ctx.save_for_backward(gamma, to_part, from_part, messages, mean, least, most, spread)
        return torch.cat([mean, least, most, spread], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gamma, to_part, from_part, messages, mean, least, most, spread = ctx.saved_tensors
        of_mean, of_least, of_most, of_spread = grad.chunk(4, dim=-1)
        # d spread / d m_j = (m_j - mean) / (n spread), so mean and spread are linear in m_j.
        slope = of_spread / (messages.shape[1] * spread)
        offset = of_mean / messages.shape[1] - slope * mean
        grads = torch.addcmul(offset[:, None], messages, slope[:, None])
        buffer = torch.empty_like(messages)
        for extreme, of_extreme in ((least, of_least), (most, of_most)):
            hits = buffer.copy_(messages).eq_(extreme[:, None])  # as numbers: ties share
            grads.addcmul_(hits, (of_extreme / hits.sum(dim=1))[:, None])
        of_gamma = torch.add(to_part[:, None], from_part[None], out=buffer).mul_(grads)
        of_sum = grads * gamma
        return of_gamma, grads, of_sum.sum(dim=1), of_sum.sum(dim=0)


def statistics_of_messages(
    gamma: Tensor, beta: Tensor, to_part: Tensor, from_part: Tensor
) -> Tensor:
    """Aggregate the messages ``gamma_ij * (to_i + from_j) + beta_ij`` over the senders j.

    Products that autocast rounded to 16 bits are aggregated in float32.

    Args:
        gamma: ``[n, n_sources, B, d]``.
        beta: As gamma.
        to_part: Per receiver ``[n, B, d]``.
        from_part: Per sender ``[n_sources, B, d]``.

    Returns:
        Mean, minimum, maximum and standard deviation, ``[n, B, 4 d]``.
    """
    parts = (gamma, beta, to_part, from_part)
    if gamma.dtype in (torch.float16, torch.bfloat16):
        parts = (gamma.float(), beta.float(), to_part.float(), from_part.float())
    result: Tensor = _Statistics.apply(*parts)
    return result


def mean_log_degree(topology: Topology) -> float:
    """Return the mean of ``log(degree + 1)`` over all nodes; backward edges do not count."""
    degrees = [0] * len(topology.sets)
    for block in topology.blocks:
        degrees[block.target] += topology.sets[block.source].size
    sizes = [nodes.size for nodes in topology.sets]
    total = sum(size * math.log(degree + 1) for size, degree in zip(sizes, degrees, strict=True))
    return total / sum(sizes)
