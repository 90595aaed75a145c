from __future__ import annotations

import typing

import pytest
import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.probegen import ProbeGen, Probes
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element, symmetry_kinds

FAMILIES: tuple[FieldConfig, ...] = (
    Siren(hidden_dim=4, omega_0=5.0),
    FourierNet(hidden_dim=4, num_filters=3),
    GaborNet(hidden_dim=4, num_filters=2, input_scale=4.0),
    RFFNet(hidden_dim=4, std=0.5),
    MLP(hidden_dim=4),
    ShapeNet(hidden_dim=4, omega_0=5.0),
)


def network_of(space: WeightSpace, **settings: typing.Any) -> Probes:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ProbeGen(**({"num_probes": 6, "hidden_dims": (8,)} | settings)).build(space, 5)
    assert isinstance(network, Probes)
    return network.double()


def starts(space: WeightSpace, num_fields: int = 3) -> Tensor:
    assert space.field is not None
    draws = Draws(0, tuple(range(num_fields)))
    return space.spec.flatten(space.field.init(space.in_dim, space.out_dim, draws)).double()


def read(network: nn.Module, rows: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network(FieldBatch(rows, torch.full_like(rows, torch.nan)))
    return outputs


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        # 64 latents of 32, 32*32+32, 32*2+2
        ("linear", 2_048 + 1_056 + 66),
        ("none", 64 * 2),
    ],
)
@pytest.mark.parametrize("out_dim", [1, 3])
def test_parameter_counts_agree_with_hand_counts(
    generator: typing.Literal["linear", "none"], expected: int, out_dim: int
) -> None:
    network = ProbeGen(generator=generator).build(space_of(Siren(), 2, out_dim), 10)

    # six maps: 64c*256+256, four of 256*256+256, 256*10+10
    head = 64 * out_dim * 256 + 256 + 4 * 65_792 + 2_570
    assert sum(p.numel() for p in network.parameters()) == expected + head


@pytest.mark.parametrize("field", FAMILIES, ids=lambda field: field.kind)
def test_logits_are_those_of_each_field_evaluated_alone(field: FieldConfig) -> None:
    space = space_of(field, 2, 3)
    network = network_of(space)
    rows = starts(space)

    alone = []
    for row in rows:
        values = field.apply(space.spec.unflatten(row), network.coords())
        alone.append(network.head(values.flatten()))

    torch.testing.assert_close(read(network, rows), torch.stack(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("field", FAMILIES, ids=lambda field: field.kind)
def test_no_symmetry_of_the_field_is_seen(field: FieldConfig) -> None:
    space = space_of(field, 2, 3)
    network = network_of(space)
    rows = starts(space)
    element = random_element(space.spec, Draws(1, tuple(range(len(rows)))), max_phase=5)

    assert ProbeGen().symmetries(space) == set(symmetry_kinds(space.spec))
    torch.testing.assert_close(
        read(network, act(space.spec, rows, element)), read(network, rows), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("generator", ["linear", "none"])
def test_probes_are_learned_and_scaled_to_the_cube_of_the_fields(
    generator: typing.Literal["linear", "none"],
) -> None:
    small = network_of(space_of(Siren(), 3, 1, half_side=0.5), generator=generator)
    large = network_of(space_of(Siren(), 3, 1, half_side=2.0), generator=generator)
    rows = starts(space_of(Siren(), 3, 1))

    large(FieldBatch(rows, rows)).square().sum().backward()

    torch.testing.assert_close(large.coords(), 4 * small.coords())
    assert large.coords().shape == (6, 3)
    assert large.latents.grad is not None
    assert float(large.latents.grad.abs().min()) > 0


def test_vanilla_probes_start_all_over_the_cube() -> None:
    network = ProbeGen(generator="none", num_probes=2_000).build(
        space_of(Siren(), 2, 1, half_side=0.5), 10
    )
    assert isinstance(network, Probes)
    coords = network.coords().detach()

    assert 0.49 < float(coords.abs().max()) <= 0.5
    # uniform: std = 0.5 / sqrt(3) = 0.2887, standard error 0.002 on 4,000 numbers
    assert float(coords.std()) == pytest.approx(0.2887, abs=0.01)


def test_between_latents_and_coordinates_all_is_linear() -> None:
    network = network_of(space_of(Siren(), 2, 1))
    latents = network.latents.detach()
    with torch.no_grad():
        one, other = network.generator(latents), network.generator(latents.flip(0))
        middle = network.generator((latents + latents.flip(0)) / 2)

    torch.testing.assert_close(middle, (one + other) / 2, rtol=0, atol=1e-12)


def test_fields_are_evaluated_in_single_precision_under_autocast() -> None:
    space = space_of(Siren(hidden_dim=8, omega_0=30.0), 2, 1)
    network = network_of(space).float()
    network.head = nn.Sequential()  # the values themselves
    rows = starts(space).float()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = read(network, rows)

    assert torch.equal(under, read(network, rows))


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"model 'probegen' evaluates fields.*plain values"):
        ProbeGen().build(space_of_values((8,)), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_probes": 0}, r"expected num_probes >= 1 \(got 0\)"),
        ({"latent_dim": 0}, "expected latent_dim >= 1"),
        ({"hidden_dims": (0,)}, "expected hidden_dims >= 1"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeGen(**settings)
