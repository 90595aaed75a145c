from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classifiers import (
    MLP,
    Augmentation,
    ClassifierConfig,
    Examples,
    load_classifier,
    train_on_examples,
)
from classifiers.augmentation import Augmenter
from classifiers.examples import LabelledRows
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench import fields
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, RFFNet, Siren, evaluate
from nefbench.weights.symmetries import symmetry_kinds

pytestmark = pytest.mark.usefixtures("one_thread")

SIREN = space_of(Siren(hidden_dim=5, num_layers=3, omega_0=2.0), 2, 1)


def rows_of(space: WeightSpace, count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, space.num_params, generator=generator) / 2


def augmenter(space: WeightSpace, seed: int = 0, **settings: Any) -> Augmenter:
    return Augmenter(Augmentation(**settings), space, seed)


def values(space: WeightSpace, rows: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
    assert space.field is not None
    return evaluate(space.field, space.spec, rows, coords)


EVERYTHING: dict[str, Any] = {
    "gauge": ("permutation", "sign", "phase"), "translation": 0.3, "rotation": 30.0, "scale": 0.2,
    "flip": True, "dropout": 0.1, "quantile_dropout": 0.2,
}  # fmt: skip


def test_nothing_is_changed_unless_it_is_asked_for() -> None:
    rows = rows_of(SIREN)

    assert torch.equal(augmenter(SIREN).rows(rows, torch.arange(12), 1), rows)


@pytest.mark.parametrize(
    "field", [Siren(hidden_dim=4), FourierNet(hidden_dim=4), RFFNet(hidden_dim=4),
              fields.MLP(hidden_dim=4)],
)  # fmt: skip
def test_gauge_transformations_change_the_weights_and_not_the_function(field: FieldConfig) -> None:
    space = space_of(field, 2, 1)
    rows = rows_of(space).double() / 5
    coords = torch.rand(20, 2, dtype=torch.float64) * 2 - 1

    moved = augmenter(space, gauge=symmetry_kinds(space.spec)).rows(rows, torch.arange(12), 1)

    assert bool((moved != rows).any(1).all())
    torch.testing.assert_close(
        values(space, moved, coords), values(space, rows, coords), rtol=1e-6, atol=1e-6
    )


def test_the_order_and_number_of_rows_do_not_change_what_is_drawn() -> None:
    rows = rows_of(SIREN)
    augment = augmenter(SIREN, **EVERYTHING)

    together = augment.rows(rows, torch.arange(12), 3)
    alone = torch.cat([augment.rows(rows, torch.tensor([i]), 3) for i in range(12)])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(alone, together)  # products of other batches may round differently
    torch.testing.assert_close(augment.rows(rows, order, 3), together[order])


def test_every_row_epoch_and_seed_has_draws_of_its_own() -> None:
    same = rows_of(SIREN, 1).expand(6, -1)
    positions = torch.arange(6)

    seen = torch.cat(
        [
            augmenter(SIREN, seed, **EVERYTHING).rows(same, positions, epoch)
            for seed in (0, 1)
            for epoch in (1, 2)
        ]
    )

    assert len(seen.unique(dim=0)) == 24


def test_a_translation_moves_the_function_by_at_most_its_share_of_half_the_side() -> None:
    space = dataclasses.replace(SIREN, half_side=0.5)
    rows = rows_of(space, 1).double().expand(200, -1)
    coords = torch.rand(5, 2, dtype=torch.float64)

    moved = augmenter(space, translation=0.4).rows(rows, torch.arange(200), 1)

    kernel, bias = "kernel_net_0.linear.kernel", "kernel_net_0.linear.bias"
    before, after = space.spec.unflatten(rows), space.spec.unflatten(moved)
    assert torch.equal(before[kernel], after[kernel])
    # b' = b + t W: two unknowns per row, five units
    shift = torch.linalg.lstsq(before[kernel][0].T, (after[bias] - before[bias]).T).solution.T
    assert 0.15 < float(shift.abs().max()) <= 0.2  # 0.4 * 0.5
    torch.testing.assert_close(
        values(space, moved, coords)[7], values(space, rows, coords + shift[7])[7]
    )


def test_rotation_scale_and_flip_give_the_matrices_they_are_named_after() -> None:
    rows = rows_of(SIREN, 1).double().expand(400, -1)
    before = SIREN.spec.unflatten(rows)["kernel_net_0.linear.kernel"]

    def matrices(**settings: Any) -> torch.Tensor:
        moved = augmenter(SIREN, **settings).rows(rows, torch.arange(400), 1)
        kernel = SIREN.spec.unflatten(moved)["kernel_net_0.linear.kernel"]
        return kernel @ torch.linalg.pinv(before)

    turned = matrices(rotation=30.0)
    angle = torch.atan2(turned[:, 0, 1], turned[:, 0, 0]).rad2deg()
    assert 29 < float(angle.abs().max()) <= 30.001
    torch.testing.assert_close(turned @ turned.mT, torch.eye(2).double().expand_as(turned))
    scaled = matrices(scale=0.2)[:, 0, 0]
    assert 0.8 <= float(scaled.min()) < 0.81
    assert 1.19 < float(scaled.max()) <= 1.2
    flipped = matrices(flip=True)
    torch.testing.assert_close(flipped[:, 1, 1], torch.ones(400).double())
    # 400 fair coins: four standard deviations are 40
    assert 160 < int((flipped[:, 0, 0] < 0).sum()) < 240


def test_rotations_in_three_dimensions_are_rotations_by_at_most_the_angle() -> None:
    space = space_of(Siren(hidden_dim=5, num_layers=3), 3, 1)
    rows = rows_of(space, 1).double().expand(300, -1)
    moved = augmenter(space, rotation=20.0).rows(rows, torch.arange(300), 1)

    name = "kernel_net_0.linear.kernel"
    before, after = space.spec.unflatten(rows)[name], space.spec.unflatten(moved)[name]
    turn = after @ torch.linalg.pinv(before)

    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).double().expand_as(turn))
    assert bool((torch.linalg.det(turn) > 0).all())
    angle = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos().rad2deg()
    assert 19 < float(angle.max()) <= 20.001


def test_dropout_sets_its_share_of_the_weights_to_zero() -> None:
    space = space_of_values((1000,))
    rows = torch.ones(50, 1000)

    kept = augmenter(space, dropout=0.1).rows(rows, torch.arange(50), 1)

    # 50000 draws: four standard deviations of the share are 4 * sqrt(0.09 / 50000)
    assert float((kept == 0).float().mean()) == pytest.approx(0.1, abs=0.0054)
    assert set(kept.unique().tolist()) == {0.0, 1.0}


def test_quantile_dropout_drops_the_smallest_of_every_tensor() -> None:
    rows = rows_of(SIREN, 40)

    kept = augmenter(SIREN, quantile_dropout=0.6).rows(rows, torch.arange(40), 1)

    shares = []
    for before, after in zip(
        SIREN.spec.unflatten(rows).values(), SIREN.spec.unflatten(kept).values(), strict=True
    ):
        for old, new in zip(before.flatten(1), after.flatten(1), strict=True):
            is_dropped = new == 0
            assert torch.equal(new[~is_dropped], old[~is_dropped])
            if is_dropped.any() and not is_dropped.all():
                assert old[is_dropped].abs().max() <= old[~is_dropped].abs().min()
            if len(old) == 25:
                shares.append(float(is_dropped.float().mean()))
    assert max(shares) <= 0.6
    assert max(shares) > 0.45
    assert min(shares) < 0.15


def test_partners_and_shares_are_drawn_from_all_rows_and_the_beta_distribution() -> None:
    augment = augmenter(SIREN, mixup=2.0)

    partners, shares = augment.partners(torch.arange(4000), 50, 1)

    assert partners.unique().tolist() == list(range(50))
    # Beta(2, 2): mean 1/2, variance 1 / (4 (2 * 2 + 1)) = 1/20
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(shares.var()) == pytest.approx(0.05, rel=0.1)
    again, _ = augment.partners(torch.tensor([17]), 50, 1)
    assert again == partners[17]


def toy_examples() -> Examples:
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for name, size in (("train", 40), ("validation", 10), ("test", 10)):
        rows = torch.randn(size, SIREN.num_params, generator=generator)
        splits[name] = LabelledRows(rows, torch.arange(size) % 2)
    return Examples("toy", SIREN, ("a", "b"), splits, 0, "d")


def test_mixed_labels_give_the_loss_of_mixed_rows(tmp_path: Path) -> None:
    config = ClassifierConfig(
        model=MLP(hidden_dims=()), learning_rate=1e-12, weight_decay=0.0, num_epochs=1,
        batch_size=40, seeds=(5,), augmentation=Augmentation(mixup=0.5),
    )  # fmt: skip
    toy = toy_examples()

    report = train_on_examples(toy, config, tmp_path)

    # A single batch, almost no learning: the loss is that of the saved network.
    classifier = load_classifier(tmp_path / "classifier-seed5.pt")
    train = toy.splits["train"]
    partners, shares = Augmenter(config.augmentation, SIREN, 5).partners(torch.arange(40), 40, 1)
    mixed = shares[:, None] * train.rows + (1 - shares[:, None]) * train.rows[partners]
    log_shares = classifier.logits(mixed).double().log_softmax(1).numpy()
    own, other = train.labels.numpy(), train.labels[partners].numpy()
    share, index = shares.double().numpy(), np.arange(40)
    loss = -(share * log_shares[index, own] + (1 - share) * log_shares[index, other]).mean()
    assert report.results[0].epochs[0].loss == pytest.approx(loss, rel=1e-5)


def test_validation_and_test_see_the_rows_as_they_are() -> None:
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "num_epochs": 2, "seeds": (0,)}
    model = MLP(hidden_dims=())

    plain = train_on_examples(toy_examples(), ClassifierConfig(model=model, **still)).results[0]
    changed = train_on_examples(
        toy_examples(),
        ClassifierConfig(model=model, augmentation=Augmentation(**EVERYTHING, mixup=1.0), **still),
    ).results[0]

    assert changed.epochs[0].loss != plain.epochs[0].loss
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy", "calibration"):
        assert getattr(changed, name) == getattr(plain, name), name


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (SIREN, {"gauge": ("scale",)},
         "augmentation.gauge: siren fields with 2 inputs and 1 outputs have no symmetry 'scale'; "
         "they have permutation, sign, phase"),
        (SIREN, {"gauge": ("permutations",)}, "have no symmetry 'permutations'; did you mean 'per"),
        (space_of_values((4,)), {"gauge": ("sign",)}, "plain values have no symmetry 'sign'; they "
         "have none"),
        (space_of_values((4,)), {"flip": True}, "plain values have no coordinates to move"),
        (space_of(Siren(), 1, 1), {"rotation": 5.0}, "expected fields of 2 or 3 dimensions (got"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_the_rows_is_refused_at_the_start(
    space: WeightSpace, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        augmenter(space, **settings)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"translation": -0.1}, "expected translation >= 0"),
        ({"rotation": 181.0}, "expected 0 <= rotation <= 180 degrees"),
        ({"scale": 1.0}, "expected 0 <= scale < 1"),
        ({"dropout": 1.0}, "expected 0 <= dropout < 1"),
        ({"quantile_dropout": -0.1}, "expected 0 <= quantile_dropout < 1"),
        ({"mixup": 0.0}, "expected mixup > 0"),
        ({"gauge": ("sign", "sign")}, "expected kinds in gauge that differ"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)
