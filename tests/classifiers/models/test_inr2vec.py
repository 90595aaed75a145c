from __future__ import annotations

import typing

import pytest
import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.inr2vec import Inr2Vec, RowEncoder
from classifiers.space import WeightSpace, space_of
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element


def network_of(space: WeightSpace, **settings: typing.Any) -> RowEncoder:
    defaults = {"encoder_dims": (6, 6), "embedding_dim": 32, "classifier_dims": (8,)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Inr2Vec(**(defaults | {"dropout": 0.0} | settings)).build(space, 5).double()
    assert isinstance(network, RowEncoder)
    return network


def rows_of(space: WeightSpace, num_fields: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_fields, space.num_params, dtype=torch.float64, generator=generator)


def read(network: nn.Module, rows: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network(FieldBatch(torch.full_like(rows, torch.nan), rows))
    return outputs


def test_the_published_network_has_the_parameters_of_a_hand_count() -> None:
    space = space_of(Siren(hidden_dim=512, num_layers=6), 3, 1)
    model = Inr2Vec(layers="hidden")

    counted = sum(p.numel() for p in model.build(space, 40).parameters())

    encoder = 512 * 512 + 512 + 512 * 512 + 512 + 512 * 1024 + 1024 + 2 * (1024 * 1024 + 1024)
    norms = 2 * (512 + 512 + 1024 + 1024 + 512 + 256)
    assert counted == encoder + norms + 1024 * 512 + 512 + 512 * 256 + 256 + 256 * 40 + 40


def test_hidden_maps_give_a_row_per_neuron_and_a_row_of_biases() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=4), 2, 3)
    network = network_of(space, layers="hidden")
    rows = rows_of(space)
    parts = space.spec.unflatten(rows)

    stacked = network.stacked(rows)

    expected = [
        parts["kernel_net_1.linear.bias"][:, None],
        parts["kernel_net_1.linear.kernel"].mT,
        parts["kernel_net_2.linear.bias"][:, None],
        parts["kernel_net_2.linear.kernel"].mT,
    ]
    assert torch.equal(stacked, torch.cat(expected, dim=1))
    assert network.role_vectors is None


def test_rows_of_all_maps_are_padded_and_told_apart() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 3)
    network = network_of(space)
    rows = rows_of(space)
    parts = space.spec.unflatten(rows)

    stacked = network.stacked(rows)

    first = parts["kernel_net_0.linear.kernel"].mT
    assert torch.equal(stacked[:, 1:5], torch.cat([first, torch.zeros_like(first)], dim=-1))
    assert torch.equal(stacked[:, 10, :3], parts["output_linear.bias"])
    assert torch.equal(stacked[:, 11:], parts["output_linear.kernel"].mT)
    # bias and kernel of three maps; the last kernel has a role per output
    assert network.roles.tolist() == [0, *[1] * 4, 2, *[3] * 4, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("field", "num_rows", "longest"),
    [
        (RFFNet(hidden_dim=6, num_layers=3), 3 + (1 + 6) * 2 + 1 + 3, 6),
        (FourierNet(hidden_dim=4, num_filters=3), (1 + 4) * 3 + (1 + 4) * 2 + 1 + 3, 4),
        (GaborNet(hidden_dim=4, num_filters=2), (1 + 4 + 1 + 4) * 2 + (1 + 4) + 1 + 3, 4),
        (ShapeNet(hidden_dim=4, num_blocks=1), (1 + 4) * 3 + 1 + 3, 4),
    ],
)
def test_every_number_of_a_row_is_read(field: FieldConfig, num_rows: int, longest: int) -> None:
    space = space_of(field, 2, 3)
    rows = rows_of(space)

    stacked = network_of(space).stacked(rows)

    assert stacked.shape == (4, num_rows, longest)
    found = stacked.flatten(1)
    found = found[:, (found != 0).all(0)]  # without padding
    assert torch.equal(found.sort(1).values, rows.sort(1).values)


def test_rows_of_more_kinds_than_published_are_told_apart_among_hidden_maps_too() -> None:
    # filters add a second vector per layer
    space = space_of(FourierNet(hidden_dim=4, num_filters=3), 2, 3)

    network = network_of(space, layers="hidden")

    assert network.role_vectors is not None
    assert network.role_vectors.weight.shape == (6, 6)  # of two layers: bias, kernel and phase


def test_logits_agree_with_a_row_by_row_computation() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 3)
    network = network_of(space)
    rows = rows_of(space)
    network(FieldBatch(rows, rows))  # running statistics
    network.eval()

    expected = []
    for stacked in network.stacked(rows):
        encoded = []
        for role, row in zip(network.roles, stacked, strict=True):
            assert network.role_vectors is not None
            hidden = network.first(row) + network.role_vectors.weight[role]
            encoded.append(network.encoder(hidden[None])[0])
        expected.append(network.classifier(torch.stack(encoded).max(0).values[None])[0])

    torch.testing.assert_close(read(network, rows), torch.stack(expected), rtol=0, atol=1e-12)


def test_permuted_neurons_are_other_inputs() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 3)
    network = network_of(space).eval()
    rows = rows_of(space)
    element = random_element(space.spec, Draws(0, tuple(range(4))), ["permutation"])

    outputs = read(network, rows)
    change = (read(network, act(space.spec, rows, element)) - outputs).norm()

    assert Inr2Vec().symmetries(space) == frozenset()
    assert change > 0.1 * (outputs - outputs.mean(0)).norm()  # as of another field


def test_fields_without_a_hidden_map_are_refused_where_only_such_are_read() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=2), 2, 1)

    with pytest.raises(TrainingError, match="model 'inr2vec' with layers 'hidden' reads fields"):
        Inr2Vec(layers="hidden").build(space, 10)
    assert read(network_of(space), rows_of(space)).shape == (4, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_dims": ()}, r"expected one or more encoder_dims >= 1 \(got \(\)\)"),
        ({"classifier_dims": (0,)}, "expected classifier_dims >= 1"),
        ({"embedding_dim": 0}, "expected embedding_dim >= 1"),
        ({"dropout": 1.0}, "expected 0 <= dropout < 1"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Inr2Vec(**settings)
