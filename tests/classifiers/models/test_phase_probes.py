from __future__ import annotations

import typing

import pytest
import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.phase_probes import PhaseProbes, ProbesNetwork
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, RFFNet, Siren, evaluate
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

FIELDS = [
    Siren(hidden_dim=5, num_layers=2, omega_0=3.0),
    Siren(hidden_dim=4, num_layers=3, omega_0=9.0),
    Siren(hidden_dim=4, num_layers=4, omega_0=2.0, preset="paper"),
]
SETTINGS: list[dict[str, typing.Any]] = [{}, {"mixing_rank": 3}, {"unit_dim": 0}]


def small(**settings: typing.Any) -> PhaseProbes:
    return PhaseProbes(
        **{"num_channels": 6, "unit_dim": 5, "hidden_dims": (8,), "dropout": 0.0} | settings
    )


def built(config: PhaseProbes, space: WeightSpace) -> ProbesNetwork:
    torch.manual_seed(0)
    model = config.build(space, 4).double()
    assert isinstance(model, ProbesNetwork)
    return model


def gaussian(space: WeightSpace, num_fields: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_fields, space.num_params, dtype=torch.float64, generator=generator)


def read(model: nn.Module, rows: Tensor) -> Tensor:
    outputs: Tensor = model(FieldBatch(rows, torch.full_like(rows, torch.nan)))
    return outputs


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_no_symmetry_of_a_siren_changes_the_outputs(
    field: Siren, settings: dict[str, typing.Any], mode: str
) -> None:
    space = space_of(field, 2, 3)
    model, rows = built(small(**settings), space), gaussian(space)
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


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_without_mixing_channels_are_values_of_the_field_at_the_learned_points(
    field: Siren,
) -> None:
    space = space_of(field, 3, 2, half_side=0.5)
    model, rows = built(small(), space), gaussian(space)

    even, odd, bias = model.messages(rows)

    expected = evaluate(field, space.spec, rows, model.inputs)
    torch.testing.assert_close(
        (even + odd).sum(2).flatten(1) + bias, expected.flatten(1), rtol=1e-9, atol=1e-9
    )
    assert model.inputs.abs().max() <= 0.5


def test_messages_agree_with_sums_over_single_units() -> None:
    space = space_of(FIELDS[2], 2, 1)
    model, rows = built(small(mixing_rank=2), space), gaussian(space, 1)
    split = model._split.spec.unflatten(model._split.split(rows)[0])

    states = [model.inputs @ split["kernel_net_0"][:, k] for k in range(4)]
    for layer, name in enumerate(["kernel_net_1", "kernel_net_2"]):
        cosine, sine = split[f"{name}.cosine"], split[f"{name}.sine"]
        received = [
            sum(states[k].cos() * cosine[k, m] + states[k].sin() * sine[k, m] for k in range(4))
            for m in range(4)
        ]
        mixing = model.mixing[layer]
        states = [x + mixing.up @ (mixing.down @ x) for x in received]  # type: ignore[operator]
    even, odd, _ = model.messages(rows)

    for m in range(4):
        cosine, sine = split["output_linear.cosine"][m], split["output_linear.sine"][m]
        torch.testing.assert_close(even[0, :, m, 0], states[m].cos() * cosine)
        torch.testing.assert_close(odd[0, :, m, 0], states[m].sin() * sine)


def test_the_set_of_units_tells_fields_of_one_function_apart() -> None:
    # A unit whose frequency is 0 adds a constant: moved to the bias, the function is the same.
    space = space_of(Siren(hidden_dim=2, num_layers=2, omega_0=1.0), 1, 1)
    values = {
        "kernel_net_0.linear.bias": [[0.5, 0.7]] * 2,
        "kernel_net_0.linear.kernel": [[[2.0, 0.0]]] * 2,
        "output_linear.kernel": [[[1.0], [3.0]], [[1.0], [0.0]]],
    }
    parts = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    constant = 3 * torch.tensor(0.7, dtype=torch.float64).sin()
    parts["output_linear.bias"] = torch.stack([torch.zeros(1).double(), constant[None]])
    rows = space.spec.flatten(parts)

    of_sums = built(small(unit_dim=0), space).eval()
    of_units = built(small(), space).eval()

    torch.testing.assert_close(*read(of_sums, rows), rtol=1e-10, atol=1e-12)
    assert (read(of_units, rows)[0] - read(of_units, rows)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_parameter_and_every_weight_counts(settings: dict[str, typing.Any]) -> None:
    space = space_of(FIELDS[2], 2, 3)
    model, rows = built(small(**settings), space), gaussian(space).requires_grad_()

    read(model, rows).square().sum().backward()

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert rows.grad is not None
    for name, place in space.spec.slices().items():
        assert rows.grad[:, place].any(), name


def test_parameters_are_few() -> None:
    model = PhaseProbes().build(space_of(Siren(hidden_dim=32, num_layers=3), 2, 1), 10)

    # points 128*2; units 256*32+32, 32*32+32; head (128+32)*256+256, 256*256+256, 256*10+10
    expected = 256 + 8_224 + 1_056 + 41_216 + 65_792 + 2_570
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("field", [FourierNet(), RFFNet()], ids=lambda field: field.kind)
def test_other_families_are_refused(field: FieldConfig) -> None:
    with pytest.raises(TrainingError, match=rf"'phase-probes' reads .* siren \(got {field.kind}"):
        PhaseProbes().build(space_of(field, 2, 1), 10)


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"siren \(got plain values\)"):
        PhaseProbes().build(space_of_values((8,)), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_channels": 0}, r"expected num_channels >= 1 \(got 0\)"),
        ({"mixing_rank": -1}, r"expected mixing_rank >= 0 \(got -1\)"),
        ({"unit_dim": -1}, r"expected unit_dim >= 0 \(got -1\)"),
        ({"hidden_dims": (8, 0)}, r"expected hidden_dims >= 1 \(got \(8, 0\)\)"),
        ({"dropout": 1.0}, r"expected 0 <= dropout < 1 \(got 1.0\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**settings)
