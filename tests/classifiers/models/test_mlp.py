from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from classifiers import MLP
from classifiers.batch import FieldBatch
from classifiers.space import space_of_values


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_published_baseline_has_42762_parameters() -> None:
    baseline = MLP(hidden_dims=(32,) * 5, activation="relu", batch_norm=True, dropout=0.0)

    # 1185*32+32 = 37952, four times 32*32+32 = 4224, four norms of 2*32 = 256, 32*10+10 = 330
    assert (
        count(baseline.build(space_of_values((1185,)), 10)) == 37_952 + 4_224 + 256 + 330 == 42_762
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (MLP(hidden_dims=()), 25),  # 4*5+5
        (MLP(hidden_dims=(3,)), 35),  # 4*3+3 = 15, 3*5+5 = 20
        (MLP(hidden_dims=(3, 2)), 38),  # 15, 3*2+2 = 8, 2*5+5 = 15
        (MLP(hidden_dims=(3, 2), batch_norm=True), 42),  # the second hidden map only: + 2*2
        (MLP(hidden_dims=(3,), batch_norm=True), 35),
    ],
)
def test_parameter_counts_agree_with_hand_counts(model: MLP, expected: int) -> None:
    assert count(model.build(space_of_values((4,)), 5)) == expected


def test_the_default_is_the_strong_setting() -> None:
    # 1185*1024+1024, 1024*512+512, 512*256+256, 256*10+10
    assert count(MLP().build(space_of_values((1185,)), 10)) == 1_214_464 + 524_800 + 131_328 + 2_570


def test_batch_norm_sits_between_every_hidden_map_but_the_first_and_its_activation() -> None:
    model = MLP(hidden_dims=(4, 4, 4), activation="gelu", batch_norm=True, dropout=0.5)

    layers = [type(layer) for layer in model.build(space_of_values((2,)), 3).children()]

    assert layers == [
        nn.Linear, nn.GELU, nn.Dropout,
        nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Dropout,
        nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Dropout,
        nn.Linear,
    ]  # fmt: skip


def test_without_batch_norm_and_dropout_only_maps_and_activations_are_left() -> None:
    model = MLP(hidden_dims=(4, 4), activation="relu", batch_norm=False, dropout=0.0)

    layers = [type(layer) for layer in model.build(space_of_values((2,)), 3).children()]

    assert layers == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def test_the_share_of_dropped_units_is_the_configured_one() -> None:
    layers = list(MLP(hidden_dims=(4,), dropout=0.25).build(space_of_values((2,)), 3).children())

    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        # hidden = (1*1 + 2*1, 1*(-2) + 2*0) = (3, -2); relu (3, 0)
        ("relu", [3.0, 6.5]),
        # gelu(-2) = -2 * Phi(-2) with Phi(-2) = 0.02275013
        ("gelu", [3 * 0.9986501 - 2 * 0.02275013, 2 * 3 * 0.9986501 + 0.5]),
    ],
)
def test_logits_agree_with_a_hand_computation(activation: str, expected: list[float]) -> None:
    model = MLP(hidden_dims=(2,), activation=activation, dropout=0.0).build(
        space_of_values((2,)), 2
    )  # type: ignore[arg-type]
    first, _, last = model.children()
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    first.weight.data = torch.tensor([[1.0, 1.0], [-2.0, 0.0]])
    first.bias.data = torch.zeros(2)
    last.weight.data = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    last.bias.data = torch.tensor([0.0, 0.5])

    batch = FieldBatch(torch.full((1, 2), torch.nan), torch.tensor([[1.0, 2.0]]))
    logits = model(batch)  # the weights as they are stored are none of its business

    torch.testing.assert_close(logits, torch.tensor([expected]), rtol=1e-5, atol=1e-5)


def test_a_hidden_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected hidden_dims >= 1 \(got \(8, 0\)\)"):
        MLP(hidden_dims=(8, 0))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, math.nan])
def test_dropping_a_share_outside_the_unit_interval_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= dropout < 1"):
        MLP(dropout=dropout)
