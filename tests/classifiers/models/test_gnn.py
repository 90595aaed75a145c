from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.graph import Topology, depth_of, topology_of
from classifiers.models.gnn import (
    GNN,
    GraphNetwork,
    GraphStep,
    arrows_of,
    mean_of,
    node_kinds,
)
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from studies.recipes import load_classifier_config

SMALL: dict[str, Any] = {"hidden_dim": 8, "node_mlp_dims": (16, 12), "edge_mlp_dims": (14, 10)}
R1 = space_of(Siren(hidden_dim=32, num_layers=3), 2, 1)
R3 = space_of(Siren(hidden_dim=32, num_layers=3), 2, 3)
FAMILIES: list[FieldConfig] = [
    Siren(hidden_dim=3, num_layers=4),
    FourierNet(hidden_dim=3, num_filters=3),
    GaborNet(hidden_dim=3, num_filters=2),
    RFFNet(hidden_dim=6, num_layers=3),
    ShapeNet(hidden_dim=3, num_blocks=2, block="shortcut"),  # one set with edges to itself
    ShapeNet(hidden_dim=3, num_blocks=2, block="residual"),
]
VARIANTS = [
    {},
    {"reverse_edges": True},
    {"residual": False},
    {"reverse_edges": True, "residual": False},
]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def network(config: GNN, space: WeightSpace, num_outputs: int = 4) -> GraphNetwork:
    """In float64, with biases that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = config.build(space, num_outputs).double()
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter.data.normal_(0, 0.3)
    return built


def random_batch(space: WeightSpace, num_fields: int = 3) -> FieldBatch:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(num_fields, space.num_params, generator=generator, dtype=torch.float64)
    return FieldBatch(torch.full_like(rows, torch.nan), rows)  # it reads normalised weights alone


def plain_logits(built: GraphNetwork, config: GNN, space: WeightSpace, row: Tensor) -> Tensor:
    """One field, one node and one edge at a time, from the tensors of the field."""
    topology = built.topology
    starts = [place.start for place in topology.slices()]
    tensors = space.spec.unflatten(row)
    views = {t.name: tensors[t.name].reshape(t.symmetry_shape) for t in space.spec.tensors}

    def padded(values: list[Tensor], width: int) -> Tensor:
        zeros = [torch.zeros((), dtype=row.dtype)] * (width - len(values))
        return torch.stack([*values, *zeros])

    nodes, kind = [], 0
    for number, group in enumerate(topology.sets):
        for unit in range(group.size):
            biases = padded([views[name][unit] for name, _ in group.features], topology.node_dim)
            nodes.append(built.encode_nodes(biases) + built.node_embedding.weight[kind])
            last = unit == group.size - 1
            kind += last or not 0 < number < len(topology.sets) - 1
    edges: list[tuple[int, int, Tensor]] = []
    for backwards in [False, True] if config.reverse_edges else [False]:
        for number, block in enumerate(topology.blocks):
            for i in range(topology.sets[block.source].size):
                for j in range(topology.sets[block.target].size):
                    weights = padded(
                        [
                            views[name][i, j] if channel is None else views[name][channel, i, j]
                            for name, channel in block.features
                        ],
                        topology.edge_dim,
                    )
                    ends = starts[block.source] + i, starts[block.target] + j
                    encode = built.encode_reverse_edges if backwards else built.encode_edges
                    feature = encode(weights)
                    if built.edge_embedding is not None:
                        place = number + backwards * len(topology.blocks)
                        feature = feature + built.edge_embedding.weight[place]
                    edges.append((*(ends[::-1] if backwards else ends), feature))
    for step in built.steps:
        messages = [step.edge_mlp(torch.cat([nodes[i], nodes[j], e])) for i, j, e in edges]
        changes = []
        for place, node in enumerate(nodes):
            entering = [m for (_, j, _), m in zip(edges, messages, strict=True) if j == place]
            mean = torch.stack(entering).mean(0) if entering else torch.zeros_like(node)
            changes.append(step.node_mlp(torch.cat([node, mean])))
        keep = float(config.residual)
        nodes = [keep * node + change for node, change in zip(nodes, changes, strict=True)]
        edges = [
            (i, j, keep * e + m) for (i, j, e), m in zip(edges, messages, strict=True)
        ]  # fmt: skip
    logits: Tensor = built.readout(torch.cat(nodes[-topology.sets[-1].size :]))
    return logits


@pytest.mark.parametrize("field", FAMILIES, ids=lambda field: field.kind)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "+".join(variant) or "default")
def test_logits_agree_with_one_node_and_one_edge_at_a_time(
    field: FieldConfig, variant: dict[str, bool]
) -> None:
    config = GNN(**SMALL, **variant)
    space = space_of(field, 2, 2)
    built = network(config, space)
    batch = random_batch(space, 2)

    with torch.no_grad():
        logits = built(batch)
        expected = torch.stack(
            [plain_logits(built, config, space, row) for row in batch.normalised]
        )

    assert float((logits[0] - logits[1]).abs().max()) > 1e-3  # not a constant
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_the_default_has_the_published_widths_and_1256138_parameters() -> None:
    # A step: edges 192-256-256-64 = 49408 + 65792 + 16448 = 131648,
    # nodes 128-256-256-256-64 = 33024 + 2 * 65792 + 16448 = 181056; four of them.
    # Encoders 64 and 128; vectors for 2 inputs, 2 hidden sets, 1 output = 5 * 64.
    # Readout 64-64-10 = 4160 + 650.
    assert count(GNN().build(R1, 10)) == 4 * (131_648 + 181_056) + 192 + 320 + 4_810 == 1_256_138
    # two outputs more: 2 * 64 vectors, readout 192-64
    assert count(GNN().build(R3, 10)) == 1_256_138 + 128 + 2 * 64 * 64
    # reverse edges have an encoder of their own
    assert count(GNN(reverse_edges=True).build(R1, 10)) == 1_256_138 + 128


@pytest.mark.parametrize(
    ("preset", "num_parameters"),
    [("gnn", 1_256_138), ("gnn-500k", 494_458), ("gnn-1200k", 1_197_618), ("gnn-1500k", 1_491_498)],
)
def test_presets_have_the_sizes_that_they_state(preset: str, num_parameters: int) -> None:
    config = load_classifier_config(preset)

    assert isinstance(config.model, GNN)
    assert count(config.model.build(R1, 10)) == num_parameters
    assert (config.learning_rate, config.weight_decay, config.amsgrad) == (1e-3, 5e-4, True)
    assert (config.warmup_steps, config.gradient_clip, config.batch_size) == (1000, 10.0, 128)


def test_blocks_have_vectors_only_where_they_hold_different_things() -> None:
    siren = GNN(**SMALL).build(R1, 4)
    fourier = GNN(**SMALL).build(space_of(FourierNet(hidden_dim=4, num_filters=2), 2, 1), 4)

    assert siren.edge_embedding is None
    assert fourier.edge_embedding is not None
    assert fourier.edge_embedding.weight.shape == (4, 8)  # x-g0, x-g1, g0-g1, g1-y


def test_a_message_is_the_mean_of_all_edges_that_enter_a_node() -> None:
    topology = topology_of(space_of(FourierNet(hidden_dim=2, num_filters=2), 1, 1))
    arrows = arrows_of(topology, reverse_edges=False)
    # into g1 (set 2): from the one input, and from the two units of g0
    messages = [
        torch.full((1, topology.sets[a.source].size, topology.sets[a.target].size, 1), 9.0)
        for a in arrows
    ]
    messages[1] = torch.tensor([[1.0, 2.0]]).reshape(1, 1, 2, 1)
    messages[2] = torch.tensor([[3.0, 5.0], [8.0, 11.0]]).reshape(1, 2, 2, 1)

    # (1 + 3 + 8) / 3 = 4 and (2 + 5 + 11) / 3 = 6
    mean = mean_of([values.sum(dim=1) for values in messages], arrows, topology, 2)
    assert mean is not None
    assert mean.flatten().tolist() == [4.0, 6.0]
    assert mean_of([], [], topology, 0) is None  # inputs hear nothing


def test_reversed_edges_swap_source_and_target() -> None:
    topology = topology_of(space_of(Siren(hidden_dim=2, num_layers=2), 1, 1))

    assert arrows_of(topology, reverse_edges=True) == (
        (0, 0, 1, False), (1, 1, 2, False), (0, 1, 0, True), (1, 2, 1, True),
    )  # fmt: skip


def test_every_input_every_hidden_set_and_every_output_is_a_kind_of_nodes() -> None:
    topology = topology_of(space_of(Siren(hidden_dim=3, num_layers=3), 2, 2))

    assert node_kinds(topology).tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 4, 5]


@pytest.mark.parametrize("field", FAMILIES, ids=lambda field: field.kind)
def test_a_step_commutes_with_permutations_of_units(field: FieldConfig) -> None:
    space = space_of(field, 2, 2)
    topology = topology_of(space)
    arrows = arrows_of(topology, reverse_edges=True)
    step = GraphStep(GNN(**SMALL)).double()
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    nodes = draw(2, topology.num_nodes, 8)
    edges = [draw(2, topology.sets[a.source].size, topology.sets[a.target].size, 8) for a in arrows]
    orders = [
        torch.randperm(group.size, generator=generator)
        if group.is_hidden
        else torch.arange(group.size)
        for group in topology.sets
    ]

    with torch.no_grad():
        after = step(nodes, edges, arrows, topology)
        moved = step(*reordered(nodes, edges, orders, topology), arrows, topology)

    expected_nodes, expected_edges = reordered(*after, orders, topology)
    torch.testing.assert_close(moved[0], expected_nodes, rtol=1e-12, atol=1e-12)
    for values, expected in zip(moved[1], expected_edges, strict=True):
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def reordered(
    nodes: Tensor, edges: list[Tensor], orders: list[Tensor], topology: Topology
) -> tuple[Tensor, list[Tensor]]:
    places = topology.slices()
    parts = [nodes[:, place][:, order] for place, order in zip(places, orders, strict=True)]
    return torch.cat(parts, dim=1), [
        values[:, orders[arrow.source]][:, :, orders[arrow.target]]
        for arrow, values in zip(arrows_of(topology, reverse_edges=True), edges, strict=True)
    ]


@pytest.mark.parametrize("axis", ["inputs", "outputs"])
def test_exchanging_inputs_or_outputs_changes_the_logits(axis: str) -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 2)
    batch = random_batch(space)
    parts = space.spec.unflatten(batch.normalised)
    for tensor in space.spec.tensors:
        if axis == "inputs" and len(tensor.axes) == 2 and tensor.axes[0] is None:
            parts[tensor.name] = parts[tensor.name].flip(-2)
        if axis == "outputs" and tensor.axes[-1] is None:
            parts[tensor.name] = parts[tensor.name].flip(-1)
    built = network(GNN(**SMALL), space)

    with torch.no_grad():
        change = built(FieldBatch(batch.weights, space.spec.flatten(parts))) - built(batch)

    assert float(change.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("field", "depth"),
    [
        (Siren(hidden_dim=2, num_layers=2), 2),
        (Siren(hidden_dim=2, num_layers=6), 6),
        (FourierNet(hidden_dim=2, num_filters=4), 5),
        (RFFNet(hidden_dim=4, num_layers=5), 6),  # the coefficients are a layer of edges
        (ShapeNet(hidden_dim=2, num_blocks=7, block="shortcut"), 2),  # all in one set
        (ShapeNet(hidden_dim=2, num_blocks=7, block="residual"), 3),
    ],
)
def test_there_are_enough_steps_for_every_weight_to_reach_the_outputs(
    field: FieldConfig, depth: int
) -> None:
    space = space_of(field, 2, 1)
    built = network(GNN(**SMALL), space)
    rows = random_batch(space).normalised.requires_grad_()

    built(FieldBatch(rows, rows)).square().sum().backward()

    assert depth_of(built.topology) == depth
    assert len(built.steps) == max(4, depth)
    assert rows.grad is not None
    for name, place in space.spec.slices().items():
        assert float(rows.grad[:, place].abs().max()) > 1e-6, name


def test_an_early_weight_is_heard_at_the_outputs_of_a_fresh_network() -> None:
    # Ten million times less with the library's default draw.
    space = space_of(Siren(hidden_dim=4, num_layers=4), 2, 1)
    torch.manual_seed(0)
    built = GNN(hidden_dim=16, node_mlp_dims=(64,) * 3, edge_mlp_dims=(64,) * 2).build(space, 3)
    rows = random_batch(space, 16).normalised.float().requires_grad_()

    built(FieldBatch(rows, rows)).sum().backward()

    assert rows.grad is not None
    parts = space.spec.unflatten(rows.grad)
    early = parts["kernel_net_0.linear.kernel"].square().mean().sqrt()
    late = parts["output_linear.kernel"].square().mean().sqrt()
    assert float(early / late) > 1e-3


def test_too_few_steps_are_refused_with_the_number_that_is_needed() -> None:
    space = space_of(Siren(hidden_dim=2, num_layers=6), 2, 1)

    assert len(GNN(num_steps=6).build(space, 2).steps) == 6
    with pytest.raises(
        TrainingError, match=r"'gnn' with num_steps=5 .* of siren fields .*reads .*num_steps >= 6"
    ):
        GNN(num_steps=5).build(space, 2)


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match="plain values are read by the model 'mlp'"):
        GNN().build(space_of_values((6,)), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 0}, r"expected hidden_dim >= 1 \(got 0\)"),
        ({"node_mlp_dims": ()}, "expected node_mlp_dims of one or more widths >= 1"),
        ({"edge_mlp_dims": (8, 0)}, r"expected edge_mlp_dims .*\(got \(8, 0\)\)"),
        ({"num_steps": 0}, r"expected num_steps >= 1 \(got 0\)"),
    ],
)
def test_sizes_below_one_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GNN(**settings)  # type: ignore[arg-type]
