from __future__ import annotations

import typing

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.scale_gmn import ScaleGMN, ScaleGMNetwork
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

R1, R3 = (space_of(Siren(hidden_dim=32, num_layers=3), 2, n) for n in (1, 3))
SMALL: dict[str, typing.Any] = {"hidden_dim": 6, "num_layers": 3, "dropout": 0.0}
BIDIRECTIONAL: dict[str, typing.Any] = {
    "bidirectional": True,
    "skip": False,
    "edge_positions": False,
    "net_positions": True,
}
FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=4, num_layers=3),
    MLP(hidden_dim=4, num_layers=2),
    RFFNet(hidden_dim=6, num_layers=2),
    FourierNet(hidden_dim=4, num_filters=3),
    GaborNet(hidden_dim=4, num_filters=2),
    ShapeNet(hidden_dim=4),
]
SETTINGS: dict[str, dict[str, typing.Any]] = {
    "forward": {},
    "bidirectional": BIDIRECTIONAL,
    "all-separate": {"bidirectional": True, "readout": "all", "io_nets": "separate"},
    "absolute": {"canonical": "absolute", "readout": "all"},
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def built(config: ScaleGMN, space: WeightSpace, num_outputs: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return config.build(space, num_outputs).double()


def gaussian(space: WeightSpace, num_fields: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_fields, space.num_params, dtype=torch.float64, generator=generator)


def read(model: nn.Module, rows: Tensor) -> Tensor:
    outputs: Tensor = model(FieldBatch(torch.full_like(rows, torch.nan), rows))
    return outputs


@pytest.mark.parametrize(
    ("config", "space", "expected"),
    [
        (ScaleGMN(), R1, 1_772_042),
        (ScaleGMN(**BIDIRECTIONAL), R1, 3_089_162),
        (
            ScaleGMN(
                hidden_dim=64,
                canonical="absolute",
                io_nets="separate",
                skip=False,
                edge_positions=False,
            ),
            R3,
            397_450,
        ),
        (
            ScaleGMN(bidirectional=True, io_nets="separate", edge_positions=False),
            R3,
            3_324_938,
        ),
    ],
    ids=["mnist", "mnist-bidirectional", "cifar", "cifar-augmented-bidirectional"],
)
def test_parameter_counts_are_the_published_ones(
    config: ScaleGMN, space: WeightSpace, expected: int
) -> None:
    assert count(config.build(space, 10)) == expected


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_outputs_do_not_see_what_is_declared(field: FieldConfig, setting: str) -> None:
    space = space_of(field, 2, 2)
    config = ScaleGMN(**SMALL | {"num_layers": 4} | SETTINGS[setting])
    model, rows = built(config, space), gaussian(space)
    kinds = config.symmetries(space)
    with torch.no_grad():
        before = read(model, rows)
        spread = (before - before.mean(0)).abs().mean()

        for kind in kinds:
            element = random_element(space.spec, Draws(1, (0, 1, 2)), [kind], max_scale=100.0)
            after = read(model, act(space.spec, rows, element))
            assert (after - before).abs().max() <= 1e-8 * spread, kind


def test_what_is_declared_is_what_multiplies_units() -> None:
    declared = {field.kind: ScaleGMN().symmetries(space_of(field, 2, 1)) for field in FIELDS}

    assert declared == {
        "siren": {"permutation", "sign"},
        "mlp": {"permutation", "scale"},
        "rffnet": {"permutation", "sign", "scale"},
        "fouriernet": {"permutation", "sign", "scale"},
        "gabornet": {"permutation", "sign", "scale"},
        "shapenet": {"permutation", "sign"},
    }


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_every_parameter_and_every_weight_counts_when_all_nodes_are_read(
    field: FieldConfig, bidirectional: bool
) -> None:
    space = space_of(field, 2, 2)
    config = ScaleGMN(**SMALL, bidirectional=bidirectional, readout="all")
    model, rows = built(config, space), gaussian(space).requires_grad_()

    read(model, rows).square().sum().backward()

    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    assert rows.grad is not None
    for name, place in space.spec.slices().items():
        assert rows.grad[:, place].any(), name


@pytest.mark.parametrize("readout", ["outputs", "all"])
def test_states_carry_the_signs_and_places_of_their_units(readout: typing.Any) -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 1)
    model = built(ScaleGMN(**SMALL, readout=readout), space)
    assert isinstance(model, ScaleGMNetwork)
    rows, seen = gaussian(space), []
    model.layers[1].register_forward_hook(lambda _, __, result: seen.append(result))
    signs = torch.tensor([[1.0, -1.0, -1.0, 1.0]] * 3, dtype=torch.float64)
    order = torch.tensor([[2, 0, 3, 1]] * 3)
    element = random_element(space.spec, Draws(0, (0, 1, 2)), [])
    element.parameters["h1", "sign"] = signs  # type: ignore[index]
    element.permutations["h1"] = order  # type: ignore[index]

    read(model, rows)
    read(model, act(space.spec, rows, element))

    (before, edges, _), (after, moved_edges, _) = seen
    expected = (before[2] * signs[..., None]).gather(1, order[..., None].expand_as(before[2]))
    torch.testing.assert_close(after[2], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(after[1], before[1], rtol=1e-10, atol=1e-12)
    columns = (edges[1] * signs[:, None, :, None]).gather(
        2, order[:, None, :, None].expand_as(edges[1])
    )
    torch.testing.assert_close(moved_edges[1], columns, rtol=1e-10, atol=1e-12)


def test_inputs_and_outputs_are_not_exchangeable() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 2)
    model, rows = built(ScaleGMN(**SMALL, readout="all"), space), gaussian(space)
    parts = space.spec.unflatten(rows)
    before = read(model, rows)
    spread = (before - before.mean(0)).square().mean().sqrt()
    for name, axis in [("kernel_net_0.linear.kernel", 1), ("output_linear.kernel", 2)]:
        rolled = space.spec.flatten(dict(parts) | {name: parts[name].roll(1, axis)})
        change = (read(model, rolled) - before).square().mean().sqrt()
        assert change > 1e-3 * spread, name


def perceptron(net: nn.Module, values: Tensor) -> Tensor:
    first, norm, _, last = net.children()
    result: Tensor = last(F.silu(norm(first(values))))
    return result


def test_the_published_network_agrees_with_a_plain_one_edge_by_edge() -> None:
    """One loop per edge: states in a list, messages summed by hand (section 3 of the paper)."""
    sizes = (2, 3, 3, 1)
    space = space_of(Siren(hidden_dim=3, num_layers=3), 2, 1)
    model = built(ScaleGMN(hidden_dim=4, num_layers=3, dropout=0.0), space)
    row = gaussian(space, 1)
    parts = {name: values[0] for name, values in space.spec.unflatten(row).items()}
    layers = ["kernel_net_0.linear", "kernel_net_1.linear", "output_linear"]
    encode = typing.cast(typing.Any, model).encode

    def inv(net: typing.Any, x: Tensor, level: int) -> Tensor:
        if level in (0, 3):
            return x
        return perceptron(net.rho, x) + perceptron(net.rho, -x)

    def eq(net: typing.Any, x: Tensor, level: int) -> Tensor:
        if level in (0, 3):
            return net.gamma(x) * perceptron(net.io[0], x)  # type: ignore[no-any-return]
        return net.gamma(x) * perceptron(net.multiplier, inv(net.canonical, x, level))  # type: ignore[no-any-return]

    one = encode.nodes[0](torch.ones(1, dtype=torch.float64))
    position = encode.positions  # 2 inputs, 2 hidden layers, 1 output
    states = [[one + position[i] for i in range(2)]]
    for level in (1, 2):
        bias = parts[f"{layers[level - 1]}.bias"]
        states.append([encode.nodes[0](b[None]) * position[1 + level] for b in bias])
    states.append([encode.nodes[0](parts["output_linear.bias"]) + position[4]])
    edges = {}
    for level in range(3):
        for i in range(sizes[level]):
            for j in range(sizes[level + 1]):
                weight = parts[f"{layers[level]}.kernel"][i, j]
                vector = encode.edge_positions[i if level == 0 else 1 + level]
                edges[level, i, j] = encode.links[0](weight[None]) * vector
    for place, layer in enumerate(typing.cast(typing.Any, model).layers):
        messages = layer.messages[0]
        updated = []
        for level in range(4):
            row_of = []
            for j in range(sizes[level]):
                total = torch.zeros(4, dtype=torch.float64)
                for i in range(sizes[level - 1]) if level else ():
                    product = messages.state(states[level - 1][i]) * messages.edge(
                        edges[level - 1, i, j]
                    )
                    total = total + eq(messages.net, product, level)
                old = states[level][j]
                row_of.append(eq(layer.update, torch.cat([old, total]), level) + layer.skip(old))
            updated.append(row_of)
        if place < 2:
            multiplier = layer.edge_multipliers[0]
            for (level, i, j), edge in list(edges.items()):
                pair = torch.cat(
                    [
                        inv(multiplier.canonical, states[level][i], level),
                        inv(multiplier.canonical, states[level + 1][j], level + 1),
                    ]
                )
                edges[level, i, j] = layer.edges[0](edge) * perceptron(multiplier.phi, pair)
        states = updated
    expected = perceptron(typing.cast(typing.Any, model).head, states[3][0])

    torch.testing.assert_close(read(model, row)[0], expected, rtol=1e-10, atol=1e-12)


def test_too_few_rounds_to_see_the_first_layer_are_refused() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=5), 2, 1)

    with pytest.raises(TrainingError, match=r"num_layers=4 does not see .*num_layers >= 5"):
        ScaleGMN(num_layers=4).build(space, 10)
    ScaleGMN(num_layers=3, hidden_dim=4, bidirectional=True).build(space, 10)
    ScaleGMN(num_layers=1, hidden_dim=4, readout="all").build(space, 10)


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match="plain values"):
        ScaleGMN().build(space_of_values((8,)), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 0}, r"expected hidden_dim >= 1 \(got 0\)"),
        ({"num_layers": 0}, r"expected num_layers >= 1 \(got 0\)"),
        ({"dropout": 1.0}, r"expected 0 <= dropout < 1 \(got 1.0\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleGMN(**settings)
