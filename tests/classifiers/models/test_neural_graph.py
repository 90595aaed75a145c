from __future__ import annotations

import pytest
import torch
from torch import Tensor

from classifiers.graph import to_graph, topology_of
from classifiers.models.layers import FourierFeatures
from classifiers.models.neural_graph import (
    EdgeEncoder,
    FourierMap,
    NodeEncoder,
    ProbeFeatures,
    ordered_pairs,
    pair_features,
)
from classifiers.space import WeightSpace, space_of
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren

FIELDS: tuple[FieldConfig, ...] = (
    Siren(hidden_dim=3, num_layers=3, omega_0=2.0),
    FourierNet(hidden_dim=3, num_filters=3),
    GaborNet(hidden_dim=3, num_filters=2, input_scale=2.0),
    RFFNet(hidden_dim=4, num_layers=3, std=0.3),
    MLP(hidden_dim=3, num_layers=2),
    ShapeNet(hidden_dim=3, omega_0=2.0),
)
over_fields = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)


def rows_of(space: WeightSpace, num_fields: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_fields, space.num_params, generator=generator, dtype=torch.float64)


def test_messages_go_both_ways_on_request_and_never_twice() -> None:
    siren = topology_of(space_of(Siren(hidden_dim=3), 2, 1))
    shapenet = topology_of(space_of(ShapeNet(hidden_dim=3, block="shortcut"), 2, 1))

    assert ordered_pairs(siren, reverse=False) == ((0, 1), (1, 2), (2, 3))
    assert ordered_pairs(siren, reverse=True) == ((0, 1), (1, 2), (2, 3), (1, 0), (2, 1), (3, 2))
    assert ordered_pairs(shapenet, reverse=True) == ((0, 1), (1, 1), (1, 2), (1, 0), (2, 1))


def test_a_backward_edge_carries_the_weight_in_its_second_feature() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)
    topology = topology_of(space)
    graph = to_graph(space, topology, rows_of(space))

    features = pair_features(topology, graph, reverse=True)

    weight = graph.edges[1][0, 0, 2, 0]  # from unit 0 of h0 to unit 2 of h1
    assert features[1, 2][0, 0, 2].tolist() == [weight, 0, weight]
    assert features[2, 1][0, 2, 0].tolist() == [0, weight, weight]


def test_units_that_read_each_other_see_both_weights() -> None:
    space = space_of(ShapeNet(hidden_dim=3, num_blocks=1, block="shortcut"), 2, 1)
    topology = topology_of(space)
    graph = to_graph(space, topology, rows_of(space))
    kernel = graph.edges[1][0, :, :, 0]

    features = pair_features(topology, graph, reverse=True)[1, 1][0, 0, 2]

    there, back = kernel[0, 2], kernel[2, 0]
    assert features.tolist() == [there, back, there + back]


def test_the_fourier_map_is_fourier_features_and_linear_maps() -> None:
    torch.manual_seed(0)
    encoder, after = FourierMap(3, 5, 2.0, 4).double(), torch.nn.Linear(4, 6).double()
    features = FourierFeatures(3, 5, 2.0).double()
    features.frequencies.copy_(encoder.frequencies)
    values = torch.randn(7, 3, dtype=torch.float64)

    expected = encoder.encode(features(values))

    torch.testing.assert_close(encoder(values), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(values, after), after(expected), rtol=0, atol=1e-12)


def test_an_edge_that_does_not_exist_is_a_weight_of_zero() -> None:
    torch.manual_seed(0)
    topology = topology_of(space_of(Siren(hidden_dim=3), 2, 1))
    encoder = EdgeEncoder(topology, 4, 5, 3.0, reverse=False)

    encoded = encoder(torch.tensor([[0.0], [1.0]]), (0, 1))

    assert encoder.roles is None
    torch.testing.assert_close(encoder.zero(), encoded[0])
    assert (encoded[0] - encoded[1]).abs().max() > 1e-2


def test_pairs_with_other_features_are_told_apart() -> None:
    torch.manual_seed(0)
    padded = topology_of(space_of(RFFNet(hidden_dim=4, num_layers=3), 2, 1))
    encoder = EdgeEncoder(padded, 4, 5, 3.0, reverse=True)
    values = torch.zeros(1, 6)  # the first ReLU kernel has two numbers per edge

    first, second = encoder(values, (0, 1)), encoder(values, (1, 2))

    assert (first - second).abs().max() > 1e-2


def test_positions_are_one_per_input_per_layer_and_per_output() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 2)
    topology = topology_of(space)
    torch.manual_seed(0)
    encoder = NodeEncoder(space, topology, 4, 5, 3.0, num_probes=0)

    nodes = encoder(torch.zeros(1, topology.num_nodes, 1), torch.zeros(1, space.num_params))[0]

    assert encoder.place_of_node.tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 4, 5]
    assert len(torch.unique(nodes.round(decimals=5), dim=0)) == 6


@over_fields
def test_probe_features_are_what_every_unit_computes(field: FieldConfig) -> None:
    space = space_of(field, 2, 2)
    topology = topology_of(space)
    torch.manual_seed(0)
    probes = ProbeFeatures(space, topology, 5, 4).double()
    rows = rows_of(space)

    features = probes(rows)

    assert features.shape == (2, topology.num_nodes, 4)
    for row, found in zip(rows, features, strict=True):
        trace = field.trace(space.spec.unflatten(row), probes.coords)
        values = {"inputs": probes.coords, **trace}
        for nodes, part, project in zip(
            topology.sets, topology.slices(), probes.project, strict=True
        ):
            for unit in range(nodes.size):
                expected = project(values[nodes.name][:, unit].flatten())
                torch.testing.assert_close(found[part][unit], expected, rtol=0, atol=1e-10)


@over_fields
def test_probes_are_learned(field: FieldConfig) -> None:
    space = space_of(field, 2, 2)
    torch.manual_seed(0)
    probes = ProbeFeatures(space, topology_of(space), 5, 4).double()
    rows = rows_of(space).requires_grad_()

    (probes(rows) * torch.randn(4, dtype=torch.float64)).sum().backward()

    assert probes.coords.grad is not None
    assert (probes.coords.grad.abs() > 0).all()
    assert rows.grad is not None
    assert rows.grad.abs().amax() > 0


def test_probes_start_in_the_cube_of_the_field() -> None:
    space = space_of(Siren(hidden_dim=3), 3, 1, half_side=0.5)
    torch.manual_seed(0)

    coords = ProbeFeatures(space, topology_of(space), 400, 4).coords

    assert coords.shape == (400, 3)
    assert 0.49 < coords.abs().max() < 0.5
    assert coords.mean().abs() < 0.05
