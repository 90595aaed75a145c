from __future__ import annotations

import typing

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.phase_gmn import PhaseGMN, PhaseNetwork, parts_of
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, RFFNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

FIELDS = [
    Siren(hidden_dim=5, num_layers=2, omega_0=3.0),
    Siren(hidden_dim=4, num_layers=3, omega_0=9.0),
    Siren(hidden_dim=4, num_layers=4, omega_0=2.0, preset="paper"),
]
ROUNDS = [1, 2, 3]


def small(**settings: typing.Any) -> PhaseGMN:
    return PhaseGMN(**{"hidden_dim": 6, "head_dims": (8,), "dropout": 0.0} | settings)


def built(config: PhaseGMN, space: WeightSpace) -> PhaseNetwork:
    torch.manual_seed(0)
    model = config.build(space, 4).double()
    assert isinstance(model, PhaseNetwork)
    return model


def gaussian(space: WeightSpace, num_fields: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_fields, space.num_params, dtype=torch.float64, generator=generator)


def read(model: nn.Module, rows: Tensor) -> Tensor:
    outputs: Tensor = model(FieldBatch(rows, torch.full_like(rows, torch.nan)))
    return outputs


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("num_rounds", ROUNDS)
@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_no_symmetry_of_a_siren_changes_the_outputs(
    field: Siren, num_rounds: int, mode: str
) -> None:
    space = space_of(field, 2, 3)
    model, rows = built(small(num_rounds=num_rounds), space), gaussian(space)
    read(model, rows)
    model.train(mode == "train")
    kinds = sorted(small().symmetries(space))
    assert kinds == ["permutation", "phase", "sign"]
    with torch.no_grad():
        before = read(model, rows)

        for chosen in [*([kind] for kind in kinds), kinds]:
            element = random_element(space.spec, Draws(1, tuple(range(6))), chosen, max_phase=80)
            after = read(model, act(space.spec, rows, element))
            assert (after - before).abs().max() <= 1e-9 * before.square().mean().sqrt()
    assert (before - before.mean(0)).square().mean().sqrt() > 1e-2


def test_odd_and_even_parts_are_those_of_one_perceptron() -> None:
    generator = torch.Generator().manual_seed(1)
    odd, even = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator)

    states, mirrored = parts_of(odd, even), parts_of(-odd, even)

    assert torch.equal(mirrored.odd, -states.odd)
    assert torch.equal(mirrored.even, states.even)
    both = torch.cat(states, dim=-1).square().mean(-1) * 2
    torch.testing.assert_close(both, torch.ones_like(both), rtol=0, atol=0.1)
    joined = (states.odd + states.even) / 2
    activated = F.gelu(even + odd)
    # one factor per unit is between them
    torch.testing.assert_close(joined * activated[..., :1], activated * joined[..., :1])


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_outputs_agree_with_sums_over_single_units_and_edges(field: Siren) -> None:
    space = space_of(field, 3, 2)
    model, rows = built(small(num_rounds=2), space).eval(), gaussian(space, 1)
    slow = _SlowNetwork(model, space, rows[0])

    expected = slow.read()

    torch.testing.assert_close(read(model, rows)[0], expected, rtol=1e-10, atol=1e-10)


class _SlowNetwork:
    """The network written down unit by unit and edge by edge for one field."""

    def __init__(self, model: PhaseNetwork, space: WeightSpace, row: Tensor) -> None:
        assert isinstance(space.field, Siren)
        self.model: typing.Any = model
        self.space, self.width = space, space.field.hidden_dim
        omega = space.field.omega_0
        bias_factor = 1.0 if space.field.preset == "paper" else omega
        parts = space.spec.unflatten(row)
        self.num_layers = space.field.num_layers - 1
        layers = [f"kernel_net_{i}.linear" for i in range(self.num_layers)]
        first = parts[f"{layers[0]}.kernel"] * omega
        self.sizes = [self.size(first)]
        self.first = first / self.sizes[0]
        self.sine, self.cosine = [], []
        for before, after in zip(layers, [*layers[1:], "output_linear"], strict=True):
            kernel = parts[f"{after}.kernel"] * (1.0 if after == "output_linear" else omega)
            phase = parts[f"{before}.bias"][:, None] * bias_factor
            sine, cosine = phase.cos() * kernel, phase.sin() * kernel
            size = self.size(torch.cat([sine, cosine]))
            self.sizes.append(size)
            self.sine.append(sine / size)
            self.cosine.append(cosine / size)
        self.bias = parts["output_linear.bias"]

    @staticmethod
    def size(values: Tensor) -> Tensor:
        return (sum(value**2 for value in values.flatten()) / values.numel() + 1e-12) ** 0.5

    @staticmethod
    def parts(odd: Tensor, even: Tensor) -> tuple[Tensor, Tensor]:
        plus, minus = F.gelu(even + odd), F.gelu(even - odd)
        odd, even = plus - minus, plus + minus
        size = (torch.cat([odd, even]).square().sum() / len(odd) + 1e-3).sqrt()
        return odd / size, even / size

    def forth(self, layer: int, unit: int, inputs: Tensor) -> Tensor:
        """Sum what enters a unit of a hidden layer, or of the outputs."""
        if layer == 0:
            total = sum(self.first[i, unit] * x for i, x in enumerate(inputs))
            return total / self.space.in_dim**0.5
        total = torch.zeros(6, dtype=torch.float64)
        for k, (odd, even) in enumerate(self.hidden[layer - 1]):
            total = total + self.sine[layer - 1][k, unit] * odd
            total = total + self.cosine[layer - 1][k, unit] * even
        return total / (2 * self.width) ** 0.5

    def update(self, layer: int, update: typing.Any, messages: list[tuple[Tensor, Tensor]]) -> None:
        for k, (odd, even) in enumerate(list(self.hidden[layer])):
            more = self.parts(
                update.odd.weight @ odd + messages[k][0],
                update.even.weight @ even + messages[k][1] + update.bias,
            )
            self.hidden[layer][k] = (odd + more[0], even + more[1])

    def read(self) -> Tensor:
        model, units = self.model, range(self.width)
        inputs = model.inputs
        self.hidden: list[list[tuple[Tensor, Tensor]]] = []
        for layer in range(self.num_layers):
            messages = [self.forth(layer, m, inputs) for m in units]
            if layer > 0:
                messages = [model.maps[layer - 1].weight @ message for message in messages]
            self.hidden.append([self.parts(message, model.biases[layer]) for message in messages])
        outputs = model.outputs + self.bias[:, None] * model.output_bias
        for each in model.rounds:
            received = [
                outputs[m] + self.forth(self.num_layers, m, inputs)
                for m in range(self.space.out_dim)
            ]
            outputs = torch.stack([x + each.outputs.perceptron(x) for x in received])
            senders = list(outputs)
            for layer in reversed(range(self.num_layers)):
                mapped = [(each.back[layer].weight @ sender).split(6) for sender in senders]
                count = len(senders) ** 0.5
                messages_back = []
                for k in units:
                    odd = sum(self.sine[layer][k, m] * x for m, (x, _) in enumerate(mapped))
                    even = sum(self.cosine[layer][k, m] * x for m, (_, x) in enumerate(mapped))
                    messages_back.append((odd / count, even / count))
                self.update(layer, each.back_updates[layer], messages_back)
                senders = [odd for odd, _ in self.hidden[layer]]
            if each.inputs is not None:
                received = [
                    inputs[i] + sum(self.first[i, k] * senders[k] for k in units) / self.width**0.5
                    for i in range(self.space.in_dim)
                ]
                inputs = torch.stack([x + each.inputs.perceptron(x) for x in received])
                for layer in range(self.num_layers):
                    weight = each.forth[layer].weight
                    sums = [weight @ self.forth(layer, m, inputs) for m in units]
                    none = torch.zeros(6, dtype=torch.float64)
                    self.update(
                        layer, each.forth_updates[layer], [(message, none) for message in sums]
                    )
        means = [
            sum(even for _, even in self.hidden[layer]) / self.width
            for layer in range(self.num_layers)
        ]
        summary = torch.stack([*(size.log() for size in self.sizes), *self.bias])
        joined = torch.cat([*means, outputs.flatten(), summary])
        logits: Tensor = model.head(model.norm(joined[None]))[0]
        return logits


@pytest.mark.parametrize("num_rounds", ROUNDS)
@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_every_parameter_and_every_weight_counts(field: Siren, num_rounds: int) -> None:
    space = space_of(field, 2, 3)
    model, rows = built(small(num_rounds=num_rounds), space), gaussian(space).requires_grad_()

    read(model, rows).square().sum().backward()

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-12, name
    assert rows.grad is not None
    for name, place in space.spec.slices().items():
        assert rows.grad[:, place].any(), name


def test_outputs_are_smooth_where_a_phase_passes_half_a_period() -> None:
    # Another branch of the phase is another representative: nothing may jump on the way.
    space = space_of(Siren(hidden_dim=3, num_layers=3, omega_0=1.0), 2, 1)
    model, rows = built(small(), space).eval(), gaussian(space, 1).repeat(201, 1)
    place = space.spec.slices()["kernel_net_0.linear.bias"].start
    rows[:, place] = torch.linspace(0, 2 * torch.pi, 201, dtype=torch.float64)

    outputs = read(model, rows)

    torch.testing.assert_close(outputs[0], outputs[-1], rtol=1e-9, atol=1e-9)
    second = (outputs[2:] - 2 * outputs[1:-1] + outputs[:-2]).abs().max()
    assert second < 0.02 * (outputs.max(0).values - outputs.min(0).values).max()


def test_fields_without_weights_are_read() -> None:
    space = space_of(FIELDS[1], 2, 1)
    model = built(small(), space).eval()

    assert read(model, torch.zeros(2, space.num_params, dtype=torch.float64)).isfinite().all()


def test_it_learns_how_large_the_first_frequencies_are() -> None:
    space = space_of(FIELDS[1], 2, 1)
    rows = gaussian(space, 64)
    first = rows[:, space.spec.slices()["kernel_net_0.linear.kernel"]].square().mean(1)
    labels = (first > first.median()).long()
    model = built(small(hidden_dim=16), space).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(read(model, rows.float()), labels)
        loss.backward()
        optimizer.step()

    assert loss < 0.2
    with torch.no_grad():
        accuracy = (read(model.eval(), rows.float()).argmax(1) == labels).double().mean()
    assert accuracy > 0.95


def test_parameters_are_as_many_as_said() -> None:
    model = PhaseGMN().build(space_of(Siren(hidden_dim=32, num_layers=3), 2, 1), 10)

    dim = 96
    vectors = 2 * dim + 2 * dim + 2 * dim  # inputs; outputs and their bias; two layers
    of_round = 2 * (dim**2 + dim) + 2 * 2 * dim**2 + 2 * (2 * dim**2 + dim)
    width = 3 * dim + 4
    head = 2 * width + (width * 256 + 256) + (256 * 10 + 10)
    expected = vectors + dim**2 + of_round + head
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == 180_498


@pytest.mark.parametrize("field", [FourierNet(), RFFNet()], ids=lambda field: field.kind)
def test_other_families_are_refused(field: FieldConfig) -> None:
    with pytest.raises(TrainingError, match=rf"'phase-gmn' reads .* siren \(got {field.kind}"):
        PhaseGMN().build(space_of(field, 2, 1), 10)


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"siren \(got plain values\)"):
        PhaseGMN().build(space_of_values((8,)), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 0}, r"expected hidden_dim >= 1 \(got 0\)"),
        ({"num_rounds": 0}, r"expected num_rounds >= 1 \(got 0\)"),
        ({"head_dims": (8, 0)}, r"expected head_dims >= 1 \(got \(8, 0\)\)"),
        ({"dropout": 1.0}, r"expected 0 <= dropout < 1 \(got 1.0\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)
