from __future__ import annotations

import pytest
import torch

from classifiers.graph import Topology, depth_of, targets_of, to_graph, topology_of
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, GaborNet, RFFNet, Siren


def rows(space: WeightSpace, count: int = 3) -> torch.Tensor:
    return torch.randn(count, space.num_params, generator=torch.Generator().manual_seed(0))


def connections(topology: Topology) -> list[tuple[str, str, int]]:
    names = [nodes.name for nodes in topology.sets]
    return [(names[b.source], names[b.target], len(b.features)) for b in topology.blocks]


def test_a_siren_has_one_node_per_neuron_and_one_edge_per_weight() -> None:
    topology = topology_of(space_of(Siren(hidden_dim=32, num_layers=3), 2, 1))

    assert [(nodes.name, nodes.size) for nodes in topology.sets] == [
        ("inputs", 2), ("h0", 32), ("h1", 32), ("outputs", 1),
    ]  # fmt: skip
    assert (topology.num_nodes, topology.num_edges) == (67, 1120)  # R1 of the literature
    assert (topology.node_dim, topology.edge_dim, topology.is_padded) == (1, 1, False)


def test_a_multiplicative_filter_network_has_edges_from_the_inputs_to_every_unit() -> None:
    topology = topology_of(space_of(FourierNet(hidden_dim=4, num_filters=3), 2, 1))

    assert connections(topology) == [
        ("inputs", "g0", 1), ("inputs", "g1", 1), ("inputs", "g2", 1),
        ("g0", "g1", 1), ("g1", "g2", 1), ("g2", "outputs", 1),
    ]  # fmt: skip
    assert [nodes.features for nodes in topology.sets][1:3] == [
        (("filters_0.linear.bias", None),),
        (("filters_1.linear.bias", None), ("linears_0.bias", None)),
    ]
    assert topology.is_padded


def test_a_gabor_filter_adds_its_centre_to_the_edges_and_its_width_to_the_nodes() -> None:
    topology = topology_of(space_of(GaborNet(hidden_dim=4, num_filters=2), 2, 1))

    assert connections(topology)[:2] == [("inputs", "g0", 2), ("inputs", "g1", 2)]
    assert len(topology.sets[1].features) == 2
    assert len(topology.sets[2].features) == 3


def test_sine_and_cosine_of_a_frequency_are_two_features_of_one_edge() -> None:
    space = space_of(RFFNet(hidden_dim=6, num_layers=3), 2, 1)
    topology = topology_of(space)
    values = rows(space)

    graph = to_graph(space, topology, values)

    assert connections(topology) == [
        ("inputs", "f", 1), ("f", "h0", 2), ("h0", "h1", 1), ("h1", "outputs", 1),
    ]  # fmt: skip
    kernel = space.spec.unflatten(values)["layers_0.linear.kernel"]
    assert torch.equal(graph.edges[1][..., 0], kernel[:, :3])  # sines are stored first
    assert torch.equal(graph.edges[1][..., 1], kernel[:, 3:])
    assert torch.equal(graph.edges[0][..., 1], torch.zeros(3, 2, 3))  # padding


def test_nodes_carry_biases_and_edges_carry_weights() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 3)
    topology = topology_of(space)
    values = rows(space)

    graph = to_graph(space, topology, values)

    parts = space.spec.unflatten(values)
    nodes = graph.nodes[..., 0]
    assert torch.equal(nodes[:, :2], torch.zeros(3, 2))  # inputs have no bias
    assert torch.equal(nodes[:, 2:6], parts["kernel_net_0.linear.bias"])
    assert torch.equal(nodes[:, 10:], parts["output_linear.bias"])
    assert torch.equal(graph.edges[1][..., 0], parts["kernel_net_1.linear.kernel"])


@pytest.mark.parametrize("field", [Siren(hidden_dim=4), FourierNet(hidden_dim=4, num_filters=3)])
def test_permuting_units_permutes_nodes_and_edges(field: FieldConfig) -> None:
    space = space_of(field, 2, 1)
    topology = topology_of(space)
    values = rows(space)
    group = topology.sets[2].name
    order = torch.tensor([2, 0, 3, 1])

    moved = to_graph(space, topology, space.spec.permute(values, {group: order}))

    graph = to_graph(space, topology, values)
    place = topology.slices()[2]
    assert torch.equal(moved.nodes[:, place], graph.nodes[:, place][:, order])
    for block, edges, moved_edges in zip(topology.blocks, graph.edges, moved.edges, strict=True):
        expected = edges[:, :, order] if block.target == 2 else edges
        expected = expected[:, order] if block.source == 2 else expected
        assert torch.equal(moved_edges, expected)


def test_the_edge_index_lists_blocks_in_order() -> None:
    topology = topology_of(space_of(Siren(hidden_dim=2, num_layers=2), 1, 1))

    # inputs 0, hidden 1 and 2, output 3
    assert topology.edge_index().tolist() == [[0, 0, 1, 2], [1, 2, 3, 3]]


def test_plain_values_have_no_neurons() -> None:
    with pytest.raises(TrainingError, match="needs fields with hidden units"):
        topology_of(space_of_values((6,)))


def test_a_weight_reaches_the_outputs_after_as_many_rounds_as_it_is_layers_away() -> None:
    topology = topology_of(space_of(Siren(hidden_dim=2, num_layers=4), 2, 1))
    forward = [(0, 1), (1, 2), (2, 3), (3, 4)]

    assert depth_of(topology) == 4
    # an edge from a hidden unit to the inputs would show its weight to the inputs alone
    assert depth_of(topology, reverse=True) == 4
    assert targets_of(topology, forward, 3) == [(2, 3, 4), (3, 4), (4,)]


def test_filters_are_one_round_from_their_units() -> None:
    topology = topology_of(space_of(FourierNet(hidden_dim=2, num_filters=3), 2, 1))

    assert depth_of(topology) == 4
