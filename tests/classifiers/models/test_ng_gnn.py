from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.graph import depth_of, targets_of, to_graph, topology_of
from classifiers.models.layers import FourierFeatures
from classifiers.models.neural_graph import ordered_pairs
from classifiers.models.ng_gnn import (
    NGGNN,
    GraphNetwork,
    mean_log_degree,
    statistics_of_messages,
)
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

FIELDS: tuple[FieldConfig, ...] = (
    Siren(hidden_dim=3, num_layers=4, omega_0=2.0),
    FourierNet(hidden_dim=3, num_filters=3),
    GaborNet(hidden_dim=3, num_filters=2, input_scale=2.0),
    RFFNet(hidden_dim=4, num_layers=3, std=0.3),
    MLP(hidden_dim=3, num_layers=2),
    ShapeNet(hidden_dim=3, num_blocks=1, omega_0=2.0),
    ShapeNet(hidden_dim=3, block="shortcut", activation="tanh"),
)
over_fields = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
SMALL: dict[str, Any] = {"hidden_dim": 8, "num_frequencies": 3, "sigma": 0.5, "dropout": 0.0}


def rows_of(space: WeightSpace, num_fields: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_fields, space.num_params, generator=generator, dtype=torch.float64)


def network_of(model: NGGNN, space: WeightSpace) -> GraphNetwork:
    torch.manual_seed(0)
    network = model.build(space, 3).double()
    assert isinstance(network, GraphNetwork)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim == 1:  # biases, and gains that must not vanish
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(1.5 * noise / math.sqrt(parameter.shape[-1]))
    return network


def read(network: nn.Module, rows: Tensor) -> Tensor:
    outputs: Tensor = network(FieldBatch(rows, 1.5 * rows))
    return outputs


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("model", "out_dim", "expected"),
    [
        (NGGNN(), 1, 92_010),
        (NGGNN(), 3, 94_122),
        (NGGNN(num_probes=64), 1, 100_714),
        (NGGNN(hidden_dim=64), 1, 331_466),
    ],
)
def test_parameter_counts_are_the_published_ones(model: NGGNN, out_dim: int, expected: int) -> None:
    assert count(model.build(space_of(Siren(), 2, out_dim), 10)) == expected


def encode(fourier: nn.Module, values: Tensor) -> Tensor:
    """Encode ``[B, F]`` as published: features side by side, then a linear map."""
    features = FourierFeatures(*fourier.frequencies.shape, 1.0).double()
    features.frequencies.copy_(fourier.frequencies)
    encoded: Tensor = fourier.encode(features(values))
    return encoded


def reference(network: GraphNetwork, space: WeightSpace, rows: Tensor, *, reverse: bool) -> Tensor:
    """Run the published update node by node on a list of edges, all nodes in all layers."""
    topology = topology_of(space)
    graph = to_graph(space, topology, 1.5 * rows)
    set_of = [place for place, nodes in enumerate(topology.sets) for _ in range(nodes.size)]
    weights: dict[tuple[int, int], Tensor] = {}
    for block, values in zip(topology.blocks, graph.edges, strict=True):
        source, target = topology.slices()[block.source], topology.slices()[block.target]
        for i in range(source.start, source.stop):
            for j in range(target.start, target.stop):
                weights[i, j] = values[:, i - source.start, j - target.start]
    nothing = torch.zeros_like(next(iter(weights.values())))
    features = dict(weights)
    if reverse:
        both = {*weights, *((j, i) for i, j in weights)}
        features = {}
        for i, j in both:
            there, back = weights.get((i, j), nothing), weights.get((j, i), nothing)
            features[i, j] = torch.cat([there, back, there + back], dim=-1)
    e = {}
    for (i, j), values in features.items():
        e[i, j] = network.edges.project(encode(network.edges.fourier, values))
        if network.edges.roles is not None:
            e[i, j] += network.edges.roles[network.edges.pairs.index((set_of[i], set_of[j]))]
    bias = encode(network.nodes.fourier, graph.nodes)
    if network.nodes.probes is not None:
        bias = bias + network.nodes.probes(rows)
    encoded = network.nodes.project(bias) + network.nodes.positions[network.nodes.place_of_node]
    x = list(encoded.unbind(1))
    degrees = [sum(target == j for _, target in weights) for j in range(len(x))]
    delta = sum(math.log(degree + 1) for degree in degrees) / len(x)
    for index, layer in enumerate(network.layers):
        if index > 0:
            x = [F.silu(network.norms[index - 1](state)) for state in x]
            update = network.edge_updates[index - 1]
            e = {
                (i, j): update.output(
                    F.silu(update.edge(state) + update.source(x[i]) + update.target(x[j]))
                )
                for (i, j), state in e.items()
            }
        after = []
        for j, state in enumerate(x):
            messages = []
            for (i, target), edge in e.items():
                if target == j:
                    gamma, beta = layer.modulation(edge).chunk(2, dim=-1)
                    message = layer.message(torch.cat([state, x[i]], dim=-1))
                    messages.append(gamma * message + beta)
            received = [torch.zeros_like(state)] * 8
            if messages:
                stacked = torch.stack(messages)
                spread = (stacked.var(0, unbiased=False) + 1e-5).sqrt()
                plain = [stacked.mean(0), stacked.amin(0), stacked.amax(0), spread]
                scale = math.log(len(messages) + 1) / delta
                received = [*plain, *(scale * value for value in plain)]
            after.append(layer.output(layer.update(torch.cat([state, *received], dim=-1))))
        x = after
    outputs: Tensor = network.readout(torch.cat(x[-space.out_dim :], dim=-1))
    return outputs


@over_fields
@pytest.mark.parametrize("reverse", [True, False], ids=["both-ways", "forward"])
def test_the_network_is_the_published_update_node_by_node(
    field: FieldConfig, reverse: bool
) -> None:
    space = space_of(field, 2, 2)
    model = NGGNN(**SMALL, reverse_edges=reverse, num_probes=2 if reverse else 0)
    network = network_of(model, space)
    rows = rows_of(space)

    with torch.no_grad():
        found, expected = read(network, rows), reference(network, space, rows, reverse=reverse)

    assert expected.square().mean().sqrt() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_messages_of_a_hand_computed_example() -> None:
    # One receiver with state part 1, senders 0 and 2, factors 1 and 2, shifts 0 and -1:
    # messages 1 (1 + 0) + 0 = 1 and 2 (1 + 2) - 1 = 5.
    gamma = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    beta = torch.tensor([0.0, -1.0]).view(1, 2, 1, 1)
    to_part, from_part = torch.ones(1, 1, 1), torch.tensor([0.0, 2.0]).view(2, 1, 1)

    received = statistics_of_messages(gamma, beta, to_part, from_part)

    expected = torch.tensor([[[3.0, 1.0, 5.0, math.sqrt(4 + 1e-5)]]])
    torch.testing.assert_close(received, expected)


def test_gradients_of_the_statistics_are_exact() -> None:
    torch.manual_seed(0)
    shapes = (2, 3, 2, 4), (2, 3, 2, 4), (2, 2, 4), (3, 2, 4)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    assert torch.autograd.gradcheck(statistics_of_messages, inputs)


def test_equal_messages_share_the_gradient_of_their_extremes() -> None:
    gamma = torch.ones(1, 3, 1, 1)
    beta = torch.tensor([2.0, 2.0, 1.0]).view(1, 3, 1, 1).requires_grad_()
    zeros = torch.zeros(1, 1, 1), torch.zeros(3, 1, 1)

    statistics_of_messages(gamma, beta, *zeros)[..., 2].sum().backward()

    assert beta.grad is not None
    assert beta.grad.flatten().tolist() == [0.5, 0.5, 0.0]


def test_messages_that_do_not_vary_have_no_spread_and_a_finite_gradient() -> None:
    beta = torch.full((1, 3, 1, 1), 1e4).requires_grad_()
    zeros = torch.zeros(1, 1, 1), torch.zeros(3, 1, 1)

    received = statistics_of_messages(torch.ones(1, 3, 1, 1), beta, *zeros)
    received.sum().backward()

    assert received[0, 0, 3].item() == pytest.approx(math.sqrt(1e-5))
    assert beta.grad is not None
    assert beta.grad.isfinite().all()


def test_the_scale_of_degrees_counts_forward_edges_of_all_nodes() -> None:
    # 2-3-3-1: degrees 0, 0; 2, 2, 2; 3, 3, 3; 3.
    topology = topology_of(space_of(Siren(hidden_dim=3), 2, 1))

    expected = (3 * math.log(3) + 4 * math.log(4)) / 9
    assert mean_log_degree(topology) == pytest.approx(expected)


def test_layers_compute_only_what_can_reach_the_outputs() -> None:
    topology = topology_of(space_of(Siren(hidden_dim=3), 2, 1))
    pairs = ordered_pairs(topology, reverse=True)

    assert targets_of(topology, pairs, 4) == [(0, 1, 2, 3), (1, 2, 3), (2, 3), (3,)]
    assert depth_of(topology, reverse=True) == 3  # h0 reads the inputs, h1 reads h0, and so on


@pytest.mark.parametrize("reverse", [True, False])
def test_every_weight_of_a_deep_field_counts(reverse: bool) -> None:
    space = space_of(RFFNet(hidden_dim=4, num_layers=6, std=0.3), 2, 1)
    network = network_of(NGGNN(**SMALL, reverse_edges=reverse), space)
    rows = rows_of(space).requires_grad_()

    read(network, rows).square().sum().backward()

    assert len(network.layers) == 7
    assert rows.grad is not None
    assert all(grad.abs().max() > 0 for grad in space.spec.unflatten(rows.grad).values())


def test_the_number_of_layers_may_be_given() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)

    assert len(network_of(NGGNN(num_layers=2), space).layers) == 2
    assert len(network_of(NGGNN(), space).layers) == 4


@over_fields
def test_the_order_of_neurons_does_not_matter(field: FieldConfig) -> None:
    space = space_of(field, 3, 2)
    network = network_of(NGGNN(**SMALL, num_probes=2), space)
    rows = rows_of(space, 4)
    element = random_element(space.spec, Draws(0, (0, 1, 2, 3)), ("permutation",))

    with torch.no_grad():
        before, after = read(network, rows), read(network, act(space.spec, rows, element))

    size = before.square().mean().sqrt()
    assert (before - before.mean(0)).square().mean().sqrt() > 0.02 * size  # it reads something
    assert (after - before).abs().max() <= 1e-9 * size
    assert NGGNN().symmetries(space) == {"permutation"}


def test_the_order_of_outputs_matters() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 2)
    network = network_of(NGGNN(**SMALL), space)
    rows = rows_of(space)
    parts = dict(space.spec.unflatten(rows))
    for name in ("output_linear.bias", "output_linear.kernel"):
        parts[name] = parts[name].flip(-1)

    with torch.no_grad():
        before, after = read(network, rows), read(network, space.spec.flatten(parts))

    assert (after - before).abs().max() > 1e-3


@over_fields
def test_every_parameter_and_every_tensor_has_a_gradient(field: FieldConfig) -> None:
    space = space_of(field, 2, 1)
    network = network_of(NGGNN(**SMALL, num_probes=2), space)
    rows = rows_of(space, 4).requires_grad_()

    (read(network, rows) * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)).sum().backward()

    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert rows.grad is not None
    assert all(grad.abs().max() > 0 for grad in space.spec.unflatten(rows.grad).values())


def test_probes_read_the_weights_as_they_are_stored() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)
    network = network_of(NGGNN(**SMALL, num_probes=2), space)
    rows = rows_of(space)

    with torch.no_grad():
        first = network(FieldBatch(rows, rows))
        second = network(FieldBatch(rows.flip(0), rows))

    assert (first - second).abs().max() > 1e-3


def test_rounded_products_change_little() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)
    network = network_of(NGGNN(**SMALL, num_probes=2), space).float()
    rows = rows_of(space).float()

    exact = read(network, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = read(network, rows)
    rounded.float().square().sum().backward()

    assert not torch.equal(rounded.float(), exact)
    assert (rounded.float() - exact).abs().max() < 0.1 * exact.abs().max()  # 8 bits
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match="needs fields with hidden units"):
        NGGNN().build(space_of_values((8,)), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 0}, r"expected hidden_dim >= 1 \(got 0\)"),
        ({"num_frequencies": 0}, r"expected num_frequencies >= 1 \(got 0\)"),
        ({"num_layers": 0}, r"expected num_layers >= 1 \(got 0\)"),
        ({"num_probes": -1}, r"expected num_probes >= 0 \(got -1\)"),
        ({"sigma": 0.0}, r"expected sigma > 0 and finite \(got 0.0\)"),
        ({"dropout": 1.0}, r"expected 0 <= dropout < 1 \(got 1.0\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NGGNN(**settings)
