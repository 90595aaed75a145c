from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.graph import to_graph, topology_of
from classifiers.models.ng_t import NGT, RelationalTransformer
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

FIELDS: tuple[FieldConfig, ...] = (
    Siren(hidden_dim=3, num_layers=3, omega_0=2.0),
    FourierNet(hidden_dim=2, num_filters=3),
    GaborNet(hidden_dim=2, num_filters=2, input_scale=2.0),
    RFFNet(hidden_dim=4, num_layers=3, std=0.3),
    MLP(hidden_dim=3, num_layers=2),
    ShapeNet(hidden_dim=2, num_blocks=1, omega_0=2.0),
    ShapeNet(hidden_dim=3, block="shortcut", activation="tanh"),
)
over_fields = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
over_edges = pytest.mark.parametrize("edges", ["all", "present"])
SMALL: dict[str, Any] = {
    "node_dim": 6,
    "edge_dim": 4,
    "attention_dim": 6,
    "num_heads": 2,
    "num_layers": 3,
    "num_frequencies": 3,
    "sigma": 0.5,
    "dropout": 0.0,
}


def rows_of(space: WeightSpace, num_fields: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_fields, space.num_params, generator=generator, dtype=torch.float64)


def network_of(model: NGT, space: WeightSpace) -> RelationalTransformer:
    torch.manual_seed(0)
    network = model.build(space, 3).double()
    assert isinstance(network, RelationalTransformer)
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


@pytest.mark.parametrize(
    ("model", "out_dim", "expected"),
    [
        (NGT(), 1, 376_586),
        (NGT(), 3, 393_098),
        (NGT(num_probes=64), 1, 393_866),
        (NGT(edges="present"), 1, 376_586),
    ],
)
def test_parameter_counts_are_the_published_ones(model: NGT, out_dim: int, expected: int) -> None:
    network = model.build(space_of(Siren(), 2, out_dim), 10)

    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def reference(
    network: RelationalTransformer, space: WeightSpace, rows: Tensor, model: NGT
) -> Tensor:
    """Run the published update pair by pair: all pairs in all layers, nothing expanded."""
    topology = topology_of(space)
    graph = to_graph(space, topology, 1.5 * rows)
    set_of = [place for place, nodes in enumerate(topology.sets) for _ in range(nodes.size)]
    x = list(network.nodes(graph.nodes, rows).unbind(1))
    nodes = range(len(x))
    weights: dict[tuple[int, int], Tensor] = {}
    for block, values in zip(topology.blocks, graph.edges, strict=True):
        source, target = topology.slices()[block.source], topology.slices()[block.target]
        for i in range(source.start, source.stop):
            for j in range(target.start, target.stop):
                weights[i, j] = values[:, i - source.start, j - target.start]
    nothing = torch.zeros(len(rows), topology.edge_dim, dtype=rows.dtype)
    e = {}
    for i in nodes:
        for j in nodes:
            values = there = weights.get((i, j), nothing)
            back = weights.get((j, i), nothing)
            if model.reverse_edges:
                values = torch.cat([there, back, there + back], dim=-1)
            has_weight = (i, j) in weights or (model.reverse_edges and (j, i) in weights)
            if has_weight:
                e[i, j] = network.edges(values, (set_of[i], set_of[j]))
            else:
                e[i, j] = network.edges.fourier(values, network.edges.project)
    lives = {pair for i, j in weights for pair in ((i, j), (j, i))}
    width, heads = model.attention_dim, model.num_heads
    for layer in network.layers:
        attention = layer.attention
        q_n, k_n, v_n = attention.of_nodes.weight.chunk(3)
        q_e, k_e, v_e, u_e = attention.of_edges.weight.chunk(4)
        after = []
        for i in nodes:
            scores, values = [], []
            for j in nodes:
                q = x[i] @ q_n.T + e[i, j] @ q_e.T
                k = x[j] @ k_n.T + e[i, j] @ k_e.T
                scores.append((q * k).unflatten(-1, (heads, -1)).sum(-1) / math.sqrt(width))
                values.append((x[j] @ v_n.T) * (e[i, j] @ u_e.T) + e[i, j] @ v_e.T)
            alpha = torch.stack(scores).softmax(0)
            mixed = (alpha[..., None] * torch.stack(values).unflatten(-1, (heads, -1))).sum(0)
            state = layer.norms[0](x[i] + layer.project(attention.output(mixed.flatten(1))))
            after.append(layer.norms[1](state + layer.perceptron(state)))
        x = after
        if layer.edge_update is None:
            continue
        update, new = layer.edge_update, {}
        for (i, j), state in e.items():
            if model.edges == "present" and (i, j) not in lives:
                new[i, j] = state
                continue
            hidden = update.both_ways(torch.cat([state, e[j, i]], dim=-1))
            hidden = F.gelu(hidden + update.source(x[i]) + update.target(x[j]))
            state = update.norms[0](state + update.output(hidden))
            new[i, j] = update.norms[1](state + update.perceptron(state))
        e = new
    outputs: Tensor = network.readout(torch.cat(x[-space.out_dim :], dim=-1))
    return outputs


@over_fields
@over_edges
def test_the_network_is_the_published_update_pair_by_pair(field: FieldConfig, edges: Any) -> None:
    space = space_of(field, 2, 2)
    has_probes = field.kind == "fouriernet"
    model = NGT(**SMALL, edges=edges, num_probes=2 * has_probes, reverse_edges=has_probes)
    network = network_of(model, space)
    rows = rows_of(space)

    with torch.no_grad():
        found, expected = read(network, rows), reference(network, space, rows, model)

    assert expected.square().mean().sqrt() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@over_edges
def test_gradients_are_those_of_the_published_update(edges: Any) -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)
    model = NGT(**SMALL, edges=edges)
    network = network_of(model, space)
    inputs = [rows_of(space).requires_grad_(), *network.parameters()]
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    found = torch.autograd.grad((read(network, inputs[0]) * direction).sum(), inputs)
    plain = (reference(network, space, inputs[0], model) * direction).sum()
    expected = torch.autograd.grad(plain, inputs)

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_fields_are_read_alike_alone_and_in_a_large_batch() -> None:
    # 60 fields of 9 x 9 pairs with 128 numbers each pass the cache in several pieces.
    space = space_of(Siren(hidden_dim=3), 2, 1)
    network = network_of(NGT(num_layers=2, dropout=0.0), space)
    rows = rows_of(space, 60).requires_grad_()

    together = read(network, rows)
    (grads,) = torch.autograd.grad(together.sum(), rows)
    some = rows.detach()[::19].requires_grad_()
    alone = torch.cat([read(network, row[None]) for row in some])
    (grads_alone,) = torch.autograd.grad(alone.sum(), some)

    torch.testing.assert_close(together[::19], alone, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grads[::19], grads_alone, rtol=1e-9, atol=1e-9)


@over_fields
@over_edges
def test_the_order_of_neurons_does_not_matter(field: FieldConfig, edges: Any) -> None:
    space = space_of(field, 3, 2)
    network = network_of(NGT(**SMALL, edges=edges, num_probes=2), space)
    rows = rows_of(space, 4)
    element = random_element(space.spec, Draws(0, (0, 1, 2, 3)), ("permutation",))

    with torch.no_grad():
        before, after = read(network, rows), read(network, act(space.spec, rows, element))

    size = before.square().mean().sqrt()
    assert (before - before.mean(0)).square().mean().sqrt() > 0.02 * size  # it reads something
    assert (after - before).abs().max() <= 1e-9 * size
    assert NGT().symmetries(space) == {"permutation"}


def test_the_order_of_outputs_matters() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 2)
    network = network_of(NGT(**SMALL), space)
    rows = rows_of(space)
    parts = dict(space.spec.unflatten(rows))
    for name in ("output_linear.bias", "output_linear.kernel"):
        parts[name] = parts[name].flip(-1)

    with torch.no_grad():
        before, after = read(network, rows), read(network, space.spec.flatten(parts))

    assert (after - before).abs().max() > 1e-3


@over_fields
@over_edges
def test_every_parameter_and_every_tensor_has_a_gradient(field: FieldConfig, edges: Any) -> None:
    space = space_of(field, 2, 1)
    network = network_of(NGT(**SMALL, edges=edges, num_probes=2), space)
    rows = rows_of(space, 4).requires_grad_()

    (read(network, rows) * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)).sum().backward()

    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert rows.grad is not None
    assert all(grad.abs().max() > 0 for grad in space.spec.unflatten(rows.grad).values())


def test_maps_in_layers_start_as_published() -> None:
    torch.manual_seed(0)
    layer = NGT().build(space_of(Siren(), 2, 1), 10).layers[0]

    # Queries, keys and values of nodes are one map from 64 to 384 numbers.
    bound = math.sqrt(6 / (64 + 384))
    largest = layer.attention.of_nodes.weight.abs().max().item()
    assert 0.99 * bound < largest <= bound
    assert not layer.edge_update.output.bias.any()


def test_rounded_products_change_little() -> None:
    space = space_of(Siren(hidden_dim=3), 2, 1)
    network = network_of(NGT(**SMALL, num_probes=2), space).float()
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
        NGT().build(space_of_values((8,)), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"node_dim": 0}, r"expected node_dim >= 1 \(got 0\)"),
        ({"edge_dim": 0}, r"expected edge_dim >= 1 \(got 0\)"),
        ({"num_heads": 3}, r"expected num_heads to divide attention_dim 128 \(got 3\)"),
        ({"num_layers": 1}, r"expected num_layers >= 2 \(got 1\)"),
        ({"num_probes": -1}, r"expected num_probes >= 0 \(got -1\)"),
        ({"sigma": math.nan}, r"expected sigma > 0 and finite \(got nan\)"),
        ({"dropout": -0.1}, r"expected 0 <= dropout < 1 \(got -0.1\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NGT(**settings)
