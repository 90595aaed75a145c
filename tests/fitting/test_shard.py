from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting import SGD, AdamW, FitConfig, Random, Shared
from fitting.shard import Shard, fit_shard, metric_names, plan_shards
from nefbench.errors import Interrupted, SignalError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren
from nefbench.signals import Signals, Split, signals_from_array
from nefbench.signals.base import ArrayValues, Values
from nefbench.weights.parts import FieldRows, concatenate

pytestmark = pytest.mark.usefixtures("one_thread")


def make_signals(count: int = 9, *, shape: tuple[int, ...] = (5, 4, 1)) -> Signals:
    draw = np.random.default_rng(0)
    indices = torch.from_numpy(draw.permutation(1000)[:count])
    return signals_from_array(draw.random((count, *shape)), draw.integers(0, 3, count),
                              class_names=("a", "b", "c"), indices=indices)  # fmt: skip


def chosen(signals: Signals, positions: Sequence[int]) -> Signals:
    """Some of the signals, scaled and numbered as before."""
    picked = list(positions)
    assert signals.labels is not None
    return dataclasses.replace(
        signals,
        values=ArrayValues(signals.values.read(range(len(signals)))[picked]),
        indices=signals.indices[picked],
        labels=signals.labels[picked],
        splits=(Split("train", 0, len(picked)),),
    )


def all_of(signals: Signals) -> Shard:
    return Shard("train", 0, len(signals))


def assert_same_fields(first: FieldRows, second: FieldRows) -> None:
    def bits(values: Tensor) -> Tensor:
        assert values.dtype == torch.float32
        return values.view(torch.int32)

    assert torch.equal(bits(first.weights), bits(second.weights))
    assert torch.equal(first.signal_index, second.signal_index)
    assert torch.equal(first.init_seed, second.init_seed)
    assert torch.equal(bits(first.loss), bits(second.loss))
    assert first.status == second.status
    assert first.labels is not None
    assert second.labels is not None
    assert torch.equal(first.labels, second.labels)
    assert list(first.quality) == list(second.quality)
    for name, values in first.quality.items():
        assert torch.equal(bits(values), bits(second.quality[name]))


def select(rows: FieldRows, positions: Sequence[int]) -> FieldRows:
    return concatenate([rows.select(torch.arange(len(rows)) == p) for p in positions])


# Planning


def test_every_split_is_cut_into_ranges_of_at_most_so_many_fields() -> None:
    signals = signals_from_array(
        np.random.default_rng(0).random((12, 3, 3, 1)),
        splits=[("train", 7), ("validation", 2), ("test", 3)],
    )

    assert plan_shards(signals, 3) == [
        Shard("train", 0, 3),
        Shard("train", 3, 6),
        Shard("train", 6, 7),
        Shard("validation", 7, 9),
        Shard("test", 9, 12),
    ]
    assert plan_shards(signals, 1000) == [
        Shard("train", 0, 7),
        Shard("validation", 7, 9),
        Shard("test", 9, 12),
    ]


def test_only_images_have_a_structural_similarity() -> None:
    assert metric_names(make_signals()) == ("psnr_db", "mse", "ssim")
    assert metric_names(make_signals(shape=(3, 3, 3, 1))) == ("psnr_db", "mse")
    assert metric_names(make_signals(shape=(7, 1))) == ("psnr_db", "mse")


# The same bits however the work is cut

RECIPES = [
    FitConfig(field=Siren(hidden_dim=7), init=Random(), num_steps=6, seed=3),
    FitConfig(field=Siren(hidden_dim=4), num_steps=6, pixel_fraction=0.35),
    FitConfig(field=MLP(hidden_dim=11), init=Random(), optimizer=SGD(), num_steps=6),
    FitConfig(
        field=RFFNet(hidden_dim=6, learnable_coefficients=False), init=Random(),
        optimizer=AdamW(), num_steps=6,
    ),
    FitConfig(field=FourierNet(hidden_dim=5, num_filters=2), init=Random(), num_steps=6),
    FitConfig(field=GaborNet(hidden_dim=5, num_filters=2), init=Random(), num_steps=6),
]  # fmt: skip


@pytest.mark.parametrize("config", RECIPES, ids=lambda config: config.field.kind)
def test_the_size_of_a_block_does_not_change_a_bit(config: FitConfig) -> None:
    signals = make_signals()
    reference = fit_shard(signals, config, all_of(signals))

    for block_size in (2, 3, 7, 64):
        rows = fit_shard(signals, config, all_of(signals), block_size=block_size)
        assert_same_fields(rows, reference)

    assert len(reference.weights.unique(dim=0)) == len(signals), "or equality is easy"


@pytest.mark.parametrize("config", RECIPES[:2], ids=lambda config: config.field.kind)
def test_where_the_shards_are_cut_does_not_change_a_bit(config: FitConfig) -> None:
    signals = make_signals()
    whole = fit_shard(signals, config, all_of(signals), block_size=4)

    for cuts in ([0, 9], [0, 1, 9], [0, 4, 5, 9], range(10)):
        pieces = [
            fit_shard(signals, config, Shard("train", start, stop), block_size=4)
            for start, stop in itertools.pairwise(cuts)
        ]
        assert_same_fields(concatenate(pieces), whole)


@pytest.mark.parametrize("config", RECIPES[:3], ids=lambda config: config.field.kind)
@pytest.mark.parametrize("positions", [[4], [8, 2, 5], [6, 0, 1, 8, 3, 2]])
def test_which_other_signals_are_fitted_does_not_change_a_bit(
    config: FitConfig, positions: list[int]
) -> None:
    signals = make_signals()
    whole = fit_shard(signals, config, all_of(signals))
    subset = chosen(signals, positions)

    rows = fit_shard(subset, config, all_of(subset))

    assert_same_fields(rows, select(whole, positions))


@dataclasses.dataclass
class RecordedValues:
    """Values that remember what was read, and on how many threads torch was about to compute."""

    inner: Values
    positions: list[list[int]] = dataclasses.field(default_factory=list)
    threads: list[int] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, positions: Sequence[int]) -> Tensor:
        self.positions.append(list(positions))
        self.threads.append(torch.get_num_threads())
        return self.inner.read(positions)


def test_the_number_of_threads_does_not_change_a_bit_and_is_restored() -> None:
    signals = make_signals(shape=(8, 8, 1))
    values = RecordedValues(signals.values)
    signals = dataclasses.replace(signals, values=values)
    config = FitConfig(field=Siren(hidden_dim=8), num_steps=5)
    results = []

    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(fit_shard(signals, config, all_of(signals)))
        assert torch.get_num_threads() == threads

    assert_same_fields(results[0], results[1])
    assert values.threads == [1, 1], "at this size two threads might agree by chance"


def test_threads_are_restored_after_a_failure_too() -> None:
    signals = make_signals()
    broken = dataclasses.replace(signals, values=ArrayValues(torch.full((9, 20, 1), torch.nan)))
    torch.set_num_threads(2)

    with pytest.raises(SignalError, match="NaN or infinite"):
        fit_shard(broken, FitConfig(num_steps=1), all_of(broken))

    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("seed", [1, 2**63 - 1])
def test_another_seed_gives_other_fields(seed: int) -> None:
    signals = make_signals(2)
    config = FitConfig(field=Siren(hidden_dim=4), num_steps=2)

    first = fit_shard(signals, config, all_of(signals))
    second = fit_shard(signals, dataclasses.replace(config, seed=seed), all_of(signals))

    assert not (first.weights == second.weights).all(1).any()
    assert second.init_seed.tolist() == [seed, seed]


# What a row says


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_and_quality_are_those_of_the_final_weights(channels: int) -> None:
    signals = dataclasses.replace(make_signals(4, shape=(5, 4, channels)), std=(2.0,) * channels)
    field: FieldConfig = Siren(hidden_dim=4, omega_0=5.0)
    config = FitConfig(field=field, num_steps=10, pixel_fraction=0.5)

    rows = fit_shard(signals, config, all_of(signals), block_size=3)

    spec = field.spec(2, channels)
    truth = signals.values.read(range(4)).double()
    mean, std = torch.tensor(signals.mean).double(), torch.tensor(signals.std).double()
    overshoot = 0.0
    for i, row in enumerate(rows.weights.double()):
        output = field.apply(spec.unflatten(row), signals.coords.double())
        loss = (output - (truth[i] - mean) / std).square().mean()
        raw = output * std + mean
        overshoot = max(overshoot, float(raw.max() - 1), float(-raw.min()))
        error = (raw.clamp(0, 1) - truth[i]).square().mean()
        # float32 with phases of some radians
        assert float(rows.loss[i]) == pytest.approx(float(loss), rel=1e-4)
        assert float(rows.quality["mse"][i]) == pytest.approx(float(error), rel=1e-4)
        psnr = -10 * float(torch.log10(error))
        assert float(rows.quality["psnr_db"][i]) == pytest.approx(psnr, abs=1e-3)
    assert overshoot > 0.1, "or clipping is not seen"
    assert list(rows.quality) == ["psnr_db", "mse", "ssim"]
    assert rows.quality["ssim"].abs().max() <= 1


def test_a_row_names_its_signal_its_seed_and_its_class() -> None:
    signals = make_signals()
    assert signals.labels is not None

    rows = fit_shard(signals, FitConfig(num_steps=1, seed=8), Shard("train", 2, 7), block_size=3)

    assert len(rows) == 5
    assert torch.equal(rows.signal_index, signals.indices[2:7])
    assert rows.labels is not None
    assert torch.equal(rows.labels, signals.labels[2:7])
    assert rows.init_seed.tolist() == [8] * 5
    assert rows.status == ("ok",) * 5


def test_signals_without_labels_give_rows_without_labels() -> None:
    signals = dataclasses.replace(make_signals(2), labels=None, class_names=())

    assert fit_shard(signals, FitConfig(num_steps=1), all_of(signals)).labels is None


# Divergence


def test_a_field_that_overflows_is_diverged_and_keeps_its_row() -> None:
    signals = make_signals(3)
    config = FitConfig(
        field=MLP(hidden_dim=4), optimizer=SGD(learning_rate=1e6), init=Shared(), num_steps=20
    )

    rows = fit_shard(signals, config, all_of(signals))

    assert rows.status == ("diverged",) * 3
    assert not rows.weights.isfinite().all(1).any()


def test_a_field_worse_than_its_start_is_diverged_though_its_weights_are_finite() -> None:
    signals = make_signals(3)
    config = FitConfig(
        field=MLP(hidden_dim=4), optimizer=SGD(learning_rate=100.0), init=Shared(), num_steps=1
    )

    rows = fit_shard(signals, config, all_of(signals))

    assert rows.weights.isfinite().all()
    assert rows.loss.isfinite().all()
    assert rows.status == ("diverged",) * 3


def test_a_field_with_an_infinite_loss_is_diverged_though_its_weights_are_finite() -> None:
    signals = make_signals(3)
    values = signals.values.read(range(3))
    values[1] = 1e30  # its square overflows, and Adam then takes steps of zero
    signals = dataclasses.replace(signals, values=ArrayValues(values))

    rows = fit_shard(signals, FitConfig(field=MLP(hidden_dim=4), num_steps=2), all_of(signals))

    assert rows.weights.isfinite().all()
    assert rows.status == ("ok", "diverged", "ok")


def test_a_diverging_field_leaves_its_neighbours_alone() -> None:
    signals = make_signals()
    optimizer = SGD(learning_rate=1e-3)
    config = FitConfig(field=Siren(hidden_dim=7), init=Random(), optimizer=optimizer, num_steps=6)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    alone = chosen(signals, others)
    values = signals.values.read(range(9))
    values[4] = 1e30
    wild = dataclasses.replace(signals, values=ArrayValues(values))

    rows = fit_shard(wild, config, all_of(wild))

    assert rows.status[4] == "diverged"
    assert_same_fields(select(rows, others), fit_shard(alone, config, all_of(alone)))
    assert set(rows.status[:4] + rows.status[5:]) == {"ok"}


# Reading


def test_every_signal_is_read_once_and_nothing_is_read_to_fill_a_block() -> None:
    signals = make_signals()
    values = RecordedValues(signals.values)
    recorded = dataclasses.replace(signals, values=values)

    fit_shard(recorded, FitConfig(num_steps=1), Shard("train", 1, 9), block_size=3)

    assert values.positions == [[1, 2, 3], [4, 5, 6], [7, 8]]


# Progress and stopping


def test_finished_fields_are_reported_block_by_block() -> None:
    signals = make_signals()
    reported: list[int] = []

    fit_shard(signals, FitConfig(num_steps=1), Shard("train", 1, 9), block_size=3,
              on_fields=reported.append)  # fmt: skip

    assert reported == [3, 3, 2]


def test_a_request_to_stop_abandons_the_shard() -> None:
    signals = make_signals(2)

    def stop() -> None:
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        fit_shard(signals, FitConfig(field=Siren(hidden_dim=2), num_steps=40), all_of(signals),
                  check_stop=stop)  # fmt: skip
