from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting import SGD, Adam, AdamW, FitConfig, Random, Shared
from fitting.config import EngineName
from fitting.plan import Shard
from fitting.quality import metric_names
from fitting.shard import fit_shard, problem_of
from nefbench.errors import ConfigError, Interrupted, SignalError
from nefbench.fields import (
    MLP,
    FieldConfig,
    FourierNet,
    GaborNet,
    RFFNet,
    ShapeNet,
    Siren,
    evaluate,
)
from nefbench.seeding import Draws
from nefbench.signals import GridSignals, ShapeSignals, Split, signals_from_array
from nefbench.signals.base import ArrayValues, Values
from nefbench.signals.shapes import (
    DISTANCE_SCALE,
    PointSamples,
    Quantity,
    Role,
    ShapeSamples,
)
from nefbench.signals.views import Views, view_of
from nefbench.weights.parts import FieldRows, concatenate

pytestmark = pytest.mark.usefixtures("one_thread")


def make_signals(count: int = 9, *, shape: tuple[int, ...] = (5, 4, 1)) -> GridSignals:
    draw = np.random.default_rng(0)
    indices = torch.from_numpy(draw.permutation(1000)[:count])
    return signals_from_array(draw.random((count, *shape)), draw.integers(0, 3, count),
                              class_names=("a", "b", "c"), indices=indices)  # fmt: skip


def chosen(signals: GridSignals, positions: Sequence[int]) -> GridSignals:
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


def all_of(signals: GridSignals) -> Shard:
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
    FitConfig(field=ShapeNet(hidden_dim=5, num_blocks=1), init=Random(), num_steps=6),
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
    assert list(rows.quality) == list(metric_names(signals))
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


def test_a_field_a_little_worse_than_its_start_is_a_field_of_few_steps() -> None:
    signals = make_signals(3)
    start, config = (
        FitConfig(
            field=MLP(hidden_dim=4), optimizer=SGD(learning_rate=rate), init=Shared(), num_steps=1
        )
        for rate in (1e-12, 6)
    )

    before = fit_shard(signals, start, all_of(signals)).loss
    rows = fit_shard(signals, config, all_of(signals))

    assert (rows.loss > 1.1 * before).all()
    assert (rows.loss < 10 * before).all()
    assert rows.status == ("ok",) * 3


def test_a_field_much_worse_than_its_start_is_diverged_though_its_weights_are_finite() -> None:
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


# Stopping at a quality


@pytest.mark.parametrize("engine", ["vmapped", "fused", "compiled"])
def test_a_field_stops_at_the_first_check_that_finds_the_quality_asked_for(
    engine: EngineName,
) -> None:
    if engine != "vmapped":
        pytest.importorskip("llvmlite")
    signals = make_signals(6, shape=(4, 4, 1))
    field = Siren(hidden_dim=8, omega_0=9.0)
    fixed = FitConfig(field=field, init=Random(), num_steps=60, engine=engine)
    psnr = torch.stack(
        [
            fit_shard(signals, dataclasses.replace(fixed, num_steps=step), all_of(signals))
            .quality["psnr_db"]
            for step in range(10, 61, 10)
        ]
    )  # fmt: skip
    target = float(psnr[2].sort().values[2:4].mean())  # half of them get there in 30 steps
    config = dataclasses.replace(fixed, until_psnr=target)

    rows = fit_shard(signals, config, all_of(signals), block_size=4)

    reached = psnr >= target
    expected = [(int(hits.nonzero()[0]) + 1) * 10 if hits.any() else 60 for hits in reached.T]
    assert rows.provenance["num_steps"].tolist() == expected
    assert len(set(expected)) > 1, "or nothing was told apart"
    for step in set(expected):
        alone = fit_shard(signals, dataclasses.replace(fixed, num_steps=step), all_of(signals))
        these = [i for i, taken in enumerate(expected) if taken == step]
        assert_same_fields(select(rows, these), select(alone, these))


def test_without_a_target_every_field_takes_every_step() -> None:
    signals = make_signals(3)

    rows = fit_shard(signals, FitConfig(num_steps=13), all_of(signals))

    assert rows.provenance["num_steps"].tolist() == [13] * 3


# Refits and views


def test_a_refit_is_a_fit_with_the_next_seed() -> None:
    signals = make_signals()
    config = FitConfig(field=Siren(hidden_dim=4), init=Random(), num_steps=4, seed=5, num_refits=3)

    rows = fit_shard(signals, config, Shard("train", 9 + 9 + 2, 9 + 9 + 6, offset=18, refit=2))

    once = dataclasses.replace(config, seed=7, num_refits=1)
    assert_same_fields(rows, fit_shard(signals, once, Shard("train", 2, 6)))
    assert rows.init_seed.tolist() == [7] * 4


def test_a_view_is_fitted_to_the_changed_image_from_its_own_start() -> None:
    signals = make_signals(shape=(6, 6, 1))
    views = Views(count=3, rotation=20.0, crop=0.7)
    config = FitConfig(field=Siren(hidden_dim=4), init=Random(), num_steps=4, seed=5, views=views)

    rows = fit_shard(signals, config, Shard("train", 9, 18, offset=9, view=1))

    raw = signals.values.read(range(9))
    changed = view_of(raw, (6, 6), views, seed=5, indices=signals.indices.tolist(), view=1)
    assert (changed - raw).abs().flatten(1).amax(1).min() > 0.01
    start = Random().rows(config.field, 2, 1, Draws(5, tuple(signals.indices.tolist()), 1))
    plain = Random().rows(config.field, 2, 1, Draws(5, tuple(signals.indices.tolist())))
    assert not (start == plain).all(1).any()
    still = dataclasses.replace(config, optimizer=SGD(learning_rate=1e-12), num_steps=1)
    begun = fit_shard(signals, still, Shard("train", 9, 18, offset=9, view=1))
    torch.testing.assert_close(begun.weights, start, rtol=0, atol=1e-6)
    assert rows.provenance["view"].tolist() == [1] * 9
    reference = dataclasses.replace(signals, values=ArrayValues(changed))
    spec = config.field.spec(2, 1)
    output = evaluate(config.field, spec, rows.weights, signals.coords)
    error = (signals.denormalise(output).clamp(0, 1) - changed).square().mean((1, 2))
    torch.testing.assert_close(rows.quality["mse"], error, rtol=1e-4, atol=1e-7)
    shared = dataclasses.replace(config, init=Shared())
    changed_rows = fit_shard(signals, shared, Shard("train", 9, 18, offset=9, view=1))
    expected = fit_shard(reference, shared, all_of(reference))
    assert torch.equal(changed_rows.weights, expected.weights)


def test_views_of_something_else_than_images_are_refused() -> None:
    signals = make_signals(shape=(7, 1))
    config = FitConfig(num_steps=1, views=Views(count=2, flip=True))

    with pytest.raises(SignalError, match="views are made of images"):
        fit_shard(signals, config, all_of(signals))


# Shapes


@dataclasses.dataclass
class Balls:
    """Balls around the origin."""

    radii: list[float]
    quantity: Quantity = "occupancy"
    reads: list[tuple[list[int], Role]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.radii)

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        self.reads.append((list(positions), role))
        generator = torch.Generator().manual_seed(1 if role == "fit" else 2)

        radius = torch.tensor([self.radii[i] for i in positions])[:, None]

        def samples(points: Tensor) -> PointSamples:
            distance = points.norm(dim=2) - radius
            inside = (distance < 0).float()
            return PointSamples(points, inside if self.quantity == "occupancy" else distance)

        uniform = torch.rand(2000, 3, generator=generator) * 1.1 - 0.55
        way = torch.nn.functional.normalize(torch.randn(1000, 3, generator=generator), dim=1)
        height = radius + 0.05 * torch.randn(1000, generator=generator)
        return ShapeSamples(
            samples(uniform.repeat(len(positions), 1, 1)), samples(way * height[..., None])
        )


def make_shapes(quantity: Quantity = "occupancy") -> ShapeSignals:
    return ShapeSignals(
        name="balls", source="formula", indices=torch.tensor([7, 3, 5]),
        splits=(Split("train", 0, 3),), shapes=Balls([0.3, 0.4, 0.5], quantity),
        quantity=quantity, std=(1.0 if quantity == "occupancy" else DISTANCE_SCALE,),
    )  # fmt: skip


SHAPE_FIT = FitConfig(
    field=Siren(hidden_dim=24, omega_0=10.0), num_steps=150, points_per_step=128,
    optimizer=Adam(learning_rate=5e-3),
)  # fmt: skip


@pytest.mark.parametrize("quantity", ["occupancy", "signed-distance"])
def test_shapes_are_fitted_to_their_own_points(quantity: Quantity) -> None:
    signals = make_shapes(quantity)

    rows = fit_shard(signals, SHAPE_FIT, Shard("train", 0, 3), block_size=2)

    assert rows.status == ("ok",) * 3
    assert rows.quality["iou_uniform"].min() > 0.85
    assert rows.quality["iou_ratio"].sub(1).abs().max() < 0.1
    if quantity == "signed-distance":
        assert rows.quality["mae"].max() < 0.02


def test_the_size_of_a_block_does_not_change_a_bit_of_a_shape() -> None:
    signals = make_shapes()
    config = dataclasses.replace(SHAPE_FIT, num_steps=5)
    whole = fit_shard(signals, config, Shard("train", 0, 3))

    pieces = [fit_shard(signals, config, Shard("train", i, i + 1), block_size=2) for i in range(3)]

    joined = concatenate(pieces)
    assert torch.equal(joined.weights, whole.weights)
    assert torch.equal(joined.loss, whole.loss)
    assert all(torch.equal(v, whole.quality[k]) for k, v in joined.quality.items())


def test_a_step_sees_as_many_points_inside_as_outside() -> None:
    problem = problem_of(make_shapes(), SHAPE_FIT)
    pool = make_shapes().pool([0, 2], 0, [size for size, _ in problem.drawing.ranges])

    for step in (1, 2, 300):
        targets = pool.targets[:, problem.sample(step), 0]
        assert targets.sum(1).tolist() == [64, 64]
        assert bool((targets[:, :64] == 0).all()), "outside first"


def test_shapes_have_neither_pixels_nor_psnr() -> None:
    for settings, message in (
        ({"until_psnr": 30.0}, "until_psnr: shapes have no PSNR"),
        ({"pixel_fraction": 0.5}, "pixel_fraction: shapes have no pixels"),
    ):
        config = dataclasses.replace(SHAPE_FIT, **settings)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=message):
            fit_shard(make_shapes(), config, Shard("train", 0, 3))


def test_points_of_shapes_are_read_once_per_block_and_role() -> None:
    signals = make_shapes()

    fit_shard(signals, dataclasses.replace(SHAPE_FIT, num_steps=2), Shard("train", 0, 3),
              block_size=2)  # fmt: skip

    assert isinstance(signals.shapes, Balls)
    assert signals.shapes.reads == [
        ([0, 1], "fit"), ([0, 1], "held-out"), ([2], "fit"), ([2], "held-out"),
    ]  # fmt: skip


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
