from __future__ import annotations

import pytest
import torch
from torch import Tensor

from classifiers.graph import to_graph, topology_of
from classifiers.models.gauge import (
    EquivariantNet,
    Gauge,
    InvariantNet,
    NodeGauge,
    gauge_of,
    inverse_edges,
    unit_vectors,
)
from classifiers.space import WeightSpace, space_of
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.phase_split import phase_split
from nefbench.weights.symmetries import act, random_element

SIGN, SCALE, BOTH, NONE = (
    NodeGauge(sign, scale, (0,), ()) for sign, scale in [(1, 0), (0, 1), (1, 1), (0, 0)]
)


def gauge(space: WeightSpace) -> Gauge:
    return gauge_of(space, topology_of(space))


def named_links(space: WeightSpace) -> dict[tuple[str, str], list[tuple[int, bool, bool]]]:
    """(source, target) -> (number of features, carries source, carries target)."""
    topology = topology_of(space)
    found: dict[tuple[str, str], list[tuple[int, bool, bool]]] = {}
    for link in gauge(space).links:
        ends = topology.sets[link.source].name, topology.sets[link.target].name
        entry = len(link.features), link.carries_source, link.carries_target
        found.setdefault(ends, []).append(entry)
    return found


def test_every_weight_of_a_siren_carries_the_signs_of_both_ends() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 1)

    assert [(node.sign, node.scale) for node in gauge(space).nodes] == [
        (False, False), (True, False), (True, False), (False, False),
    ]  # fmt: skip
    assert set(map(tuple, named_links(space).values())) == {((1, True, True),)}
    assert gauge(space).kinds == {"sign"}


def test_units_of_a_relu_network_have_scales_and_no_signs() -> None:
    found = gauge(space_of(MLP(hidden_dim=4, num_layers=2), 2, 1))

    assert [(node.sign, node.scale) for node in found.nodes[1:-1]] == [(False, True)] * 2
    assert found.kinds == {"scale"}


def test_a_cosine_does_not_carry_the_sign_of_its_frequency() -> None:
    space = space_of(RFFNet(hidden_dim=6, num_layers=3), 2, 1)

    assert named_links(space)["f", "h0"] == [(1, True, True), (1, False, True)]
    assert gauge(space).kinds == {"sign", "scale"}


def test_without_fitted_frequencies_a_sine_has_no_sign_to_carry() -> None:
    space = space_of(RFFNet(hidden_dim=6, num_layers=3, learnable_coefficients=False), 2, 1)

    assert named_links(space)["f", "h0"] == [(2, True, True)]
    assert gauge(space).kinds == {"scale"}


@pytest.mark.parametrize(
    ("field", "num_filter_features", "num_invariant"),
    [
        (FourierNet(hidden_dim=4, num_filters=3), 1, 1),
        (GaborNet(hidden_dim=4, num_filters=3), 2, 2),
    ],
)
def test_filters_that_are_multiplied_do_not_carry_the_factor_of_the_product(
    field: FieldConfig, num_filter_features: int, num_invariant: int
) -> None:
    space = space_of(field, 2, 1)
    found = gauge(space)

    assert named_links(space)["inputs", "g1"] == [(num_filter_features, True, False)]
    assert named_links(space)["g0", "g1"] == [(1, True, True)]
    assert [(node.sign, node.scale) for node in found.nodes[1:-1]] == [
        (True, False), (True, True), (True, True),
    ]  # fmt: skip
    assert len(found.nodes[2].invariant) == num_invariant
    assert found.kinds == {"sign", "scale"}


def test_a_residual_stream_has_one_sign_for_all_that_reads_and_writes_it() -> None:
    space = space_of(ShapeNet(hidden_dim=4, block="shortcut"), 2, 1)

    assert all(link[1:] == (True, True) for links in named_links(space).values() for link in links)
    assert gauge(space).kinds == {"sign"}


def test_split_weights_carry_both_signs_or_that_of_the_target_alone() -> None:
    split = phase_split(Siren(hidden_dim=4, num_layers=3), 2, 1)
    space = WeightSpace(split.spec, None, 2, 1)

    assert named_links(space) == {
        ("inputs", "h0"): [(1, True, True)],
        ("h0", "h1"): [(1, False, True), (1, True, True)],
        ("h1", "outputs"): [(1, False, True), (1, True, True)],
    }


def test_unit_vectors_have_norm_one_and_zero_stays_zero_with_a_finite_gradient() -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)

    units = unit_vectors(values)
    units.sum().backward()

    torch.testing.assert_close(units, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert values.grad is not None
    assert values.grad.isfinite().all()


@pytest.mark.parametrize(
    ("node", "factor"), [(SIGN, -1.0), (SCALE, 37.0), (BOTH, -0.02)], ids=["sign", "scale", "both"]
)
@pytest.mark.parametrize("canonical", ["symmetrised", "absolute"])
def test_an_equivariant_net_carries_the_factor_of_its_input(
    node: NodeGauge, factor: float, canonical: str
) -> None:
    torch.manual_seed(0)
    every = Gauge((SIGN, SCALE, BOTH), (), frozenset())
    net = EquivariantNet(3, 4, 8, every, canonical=canonical, io_nets="multiplier")  # type: ignore[arg-type]
    net, values = net.double(), torch.randn(5, 3, dtype=torch.float64)

    expected = factor * net(values, node, "hidden")

    torch.testing.assert_close(net(factor * values, node, "hidden"), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("node", [SIGN, SCALE, BOTH], ids=["sign", "scale", "both"])
def test_an_invariant_net_sees_more_than_nothing_but_no_factor(node: NodeGauge) -> None:
    torch.manual_seed(0)
    every = Gauge((SIGN, SCALE, BOTH), (), frozenset())
    net = InvariantNet(3, 1, 4, 8, every, "symmetrised").double()
    values = torch.randn(5, 3, dtype=torch.float64)
    factor = (-1.0 if node.sign else 1.0) * (7.0 if node.scale else 1.0)

    expected = net(values, node)

    torch.testing.assert_close(net(factor * values, node), expected, rtol=1e-12, atol=0)
    assert expected.std(0).min() > 1e-3


def test_nets_of_pairs_agree_with_the_net_on_joined_features() -> None:
    torch.manual_seed(0)
    net = InvariantNet(3, 2, 4, 8, Gauge((SIGN,), (), frozenset()), "absolute").double()
    source, target = (torch.randn(2, n, 3, dtype=torch.float64) for n in (4, 5))

    joined = torch.cat(
        [source[:, :, None].expand(2, 4, 5, 3).abs(), target[:, None].expand(2, 4, 5, 3)], dim=-1
    )

    torch.testing.assert_close(net.pairs(source, target, (SIGN, NONE)), net.phi(joined))


def features(space: WeightSpace, rows: Tensor) -> tuple[Gauge, list[Tensor], list[Tensor]]:
    topology = topology_of(space)
    found, graph = gauge_of(space, topology), to_graph(space, topology, rows)
    nodes = [
        graph.nodes[:, place][..., list(node.carrying)]
        for place, node in zip(topology.slices(), found.nodes, strict=True)
    ]
    return found, nodes, [graph.edges[x.block][..., list(x.features)] for x in found.links]


@pytest.mark.parametrize(
    "field", [MLP(hidden_dim=4, num_layers=3), RFFNet(hidden_dim=6), FourierNet(hidden_dim=4)]
)
def test_a_weight_times_its_bounded_inverse_is_invariant(field: FieldConfig) -> None:
    space = space_of(field, 2, 1)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, space.num_params, dtype=torch.float64, generator=generator)
    element = random_element(space.spec, Draws(0, (0, 1, 2)), ["scale", "sign"], max_scale=100.0)

    found, nodes, edges = features(space, rows)
    _, moved_nodes, moved_edges = features(space, act(space.spec, rows, element))
    products = [a * b for a, b in zip(edges, inverse_edges(found, nodes, edges), strict=True)]
    moved = [
        a * b
        for a, b in zip(moved_edges, inverse_edges(found, moved_nodes, moved_edges), strict=True)
    ]

    for before, after in zip(products, moved, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-12)
        assert (before >= 0).all()
        assert (before < 1).all()  # v**2 / (v**2 + 0.05**2)


def test_the_bounded_inverse_agrees_with_a_hand_computation() -> None:
    # Bias 4 and kernel 3 enter the only unit: its magnitude is 5, the balanced kernel 3/5; the
    # outgoing 0.02 is balanced to 0.02 * 5 = 0.1.
    space = space_of(MLP(hidden_dim=1, num_layers=1), 1, 1)
    names = {
        "Dense_0.bias": 4.0,
        "Dense_0.kernel": 3.0,
        "Dense_1.bias": 9.0,
        "Dense_1.kernel": 0.02,
    }
    row = torch.tensor([[names[tensor.name] for tensor in space.spec.tensors]])

    found, nodes, edges = features(space, row)
    entering, leaving = inverse_edges(found, nodes, edges)

    assert entering.item() == pytest.approx(0.2 * 0.6 / (0.6**2 + 0.05**2))
    assert leaving.item() == pytest.approx(5 * 0.1 / (0.1**2 + 0.05**2))


def test_signs_need_no_inverse() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)
    found, nodes, edges = features(space, torch.randn(2, space.num_params))

    assert inverse_edges(found, nodes, edges) is edges
