from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from fitting import Adam, FitConfig, Meta, Shared, learn_start
from fitting.engines import Block, VmappedEngine, reproducible_arithmetic
from fitting.engines.vmapped import loss_of
from fitting.inits import draw_rows
from fitting.meta_gradients import adapt, outer_gradients
from fitting.meta_learning import Tasks
from fitting.shard import problem_of
from nefbench.errors import ConfigError, SignalError
from nefbench.fields import FieldConfig, RFFNet, Siren
from nefbench.seeding import SHARED_INDEX, Draws
from nefbench.signals import DigitsConfig, GridSignals, ShapeSignals, Signals, Split
from nefbench.signals.base import Values
from nefbench.signals.shapes import PointSamples, Role, ShapeSamples
from nefbench.weights.start_file import StartFile

pytestmark = pytest.mark.usefixtures("one_thread")

FIELD = Siren(hidden_dim=8, omega_0=9.0)
META = Meta(outer_steps=5, tasks_per_step=8)


@pytest.fixture(scope="module")
def digits() -> GridSignals:
    return DigitsConfig(max_signals=300, validation_size=60, test_size=60).open()


def recipe(init: Meta = META, **settings: Any) -> FitConfig:
    return FitConfig(**{"field": FIELD, "init": init, "engine": "vmapped", **settings})


def shared_start(field: FieldConfig, in_dim: int = 2) -> Tensor:
    return draw_rows(field, in_dim, 1, Draws(0, (SHARED_INDEX,)))


def same_bits(first: StartFile, second: StartFile) -> bool:
    def bits(rows: Tensor | None) -> list[int]:
        return [] if rows is None else rows.view(torch.int32).flatten().tolist()

    return (bits(first.params), bits(first.step_sizes)) == (
        bits(second.params),
        bits(second.step_sizes),
    )


@dataclasses.dataclass
class RecordedValues:
    """Values that remember what was read of them."""

    values: Values
    positions: list[list[int]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def read(self, positions: Sequence[int]) -> Tensor:
        self.positions.append(list(positions))
        return self.values.read(positions)


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "reptile"])
def test_tasks_are_training_signals_drawn_by_seed_and_step(
    digits: GridSignals, algorithm: Any
) -> None:
    def drawn(seed: int, outer_steps: int) -> list[list[int]]:
        values = RecordedValues(digits.values)
        signals = dataclasses.replace(digits, values=values)
        meta = Meta(algorithm=algorithm, outer_steps=outer_steps, tasks_per_step=20)
        signals.fingerprint  # noqa: B018 - reads too
        values.positions.clear()
        learn_start(signals, recipe(meta, seed=seed))
        return values.positions

    long = drawn(3, 6)

    assert [len(positions) for positions in long] == [20] * 6
    assert all(0 <= position < 180 for positions in long for position in positions)
    assert len({tuple(positions) for positions in long}) == 6
    assert drawn(3, 2) == long[:2]
    assert drawn(4, 2) != long[:2]


def test_a_step_of_maml_is_adam_along_the_mean_gradient_of_its_tasks(digits: GridSignals) -> None:
    meta = Meta(outer_steps=1, tasks_per_step=8, learn_step_sizes=True).filled_in()
    config = recipe(meta)

    start = learn_start(digits, config)

    tasks = Tasks(digits, config, "cpu")
    problem = tasks.problem(1)
    shared = shared_start(FIELD)
    block = tasks.block(1, problem, shared[0])
    sizes = torch.full_like(shared[0], 1e-2)
    loss = loss_of(FIELD, tasks.spec, problem.loss)
    _, for_params, for_sizes = outer_gradients(
        loss, shared[0], sizes, [(problem.coords, block.targets)] * 3, first_order=False
    )

    # The first step of Adam is 3e-3 g / (|g| + 1e-8); step sizes are multiples of 1e-2.
    def step(gradient: Tensor) -> Tensor:
        return 3e-3 * gradient / (gradient.abs() + 1e-8)

    params = shared[0] - step(for_params.mean(0))
    step_sizes = 1e-2 * (1 - step(1e-2 * for_sizes.mean(0)))
    assert start.step_sizes is not None
    torch.testing.assert_close(start.params[0], params, rtol=0, atol=2e-6)
    torch.testing.assert_close(start.step_sizes[0], step_sizes, rtol=0, atol=2e-8)


def test_a_step_of_reptile_goes_towards_the_mean_of_the_engines_rows(digits: GridSignals) -> None:
    meta = Meta(
        algorithm="reptile", outer_steps=2, tasks_per_step=8, inner_steps=3,
        outer_learning_rate=0.25,
    )  # fmt: skip
    config = recipe(meta, optimizer=Adam(learning_rate=5e-3))

    start = learn_start(digits, config)

    params = shared_start(FIELD)[0]
    tasks = Tasks(digits, config, "cpu")
    with reproducible_arithmetic():
        for step in (1, 2):
            block = tasks.block(step, tasks.problem(step), params)
            problem = problem_of(digits, dataclasses.replace(config, num_steps=3))
            rows = VmappedEngine().fit(problem, Block(params.expand(8, -1), block.targets))
            params = 0.75 * params + 0.25 * rows.mean(0)
    torch.testing.assert_close(start.params[0], params, rtol=0, atol=1e-6)
    assert start.step_sizes is None


def loss_after_two_steps(
    signals: GridSignals, field: FieldConfig, params: Tensor, sizes: Tensor
) -> float:
    """Mean loss of the test signals after two steps of gradient descent."""
    problem = problem_of(signals, FitConfig(field=field))
    loss = loss_of(field, problem.spec, problem.loss)
    coords = problem.coords

    def of_task(targets: Tensor) -> Tensor:
        return loss(adapt(loss, params, sizes, [(coords, targets)] * 2), coords, targets)

    test = signals.splits[2]
    return float(vmap(of_task)(signals.targets(range(test.start, test.stop))).mean())


@pytest.mark.parametrize(
    ("meta", "most"),
    [
        (Meta(outer_steps=120), 0.25),
        (Meta(outer_steps=120, learn_step_sizes=True), 0.25),
        (Meta(algorithm="fomaml", outer_steps=120), 0.4),
        (Meta(algorithm="reptile", outer_steps=100), 0.4),
    ],
    ids=["maml", "step-sizes", "fomaml", "reptile"],
)
def test_a_learned_start_is_better_for_signals_that_it_has_not_seen(
    digits: GridSignals, meta: Meta, most: float
) -> None:
    losses: list[float] = []
    field = Siren(hidden_dim=16, omega_0=9.0)

    start = learn_start(
        digits, recipe(meta, field=field), on_step=lambda _, __, loss: losses.append(loss)
    )

    rates = torch.full_like(start.params[0], 1e-2)
    before = loss_after_two_steps(digits, field, shared_start(field)[0], rates)
    sizes = rates if start.step_sizes is None else start.step_sizes[0]
    after = loss_after_two_steps(digits, field, start.params[0], sizes)
    assert after < most * before
    assert len(losses) == meta.outer_steps
    assert losses[-1] < losses[0]


EVERY_KIND = pytest.mark.parametrize(
    "meta",
    [META, dataclasses.replace(META, algorithm="fomaml", learn_step_sizes=True),
     Meta(algorithm="reptile", outer_steps=5, tasks_per_step=8)],
    ids=["maml", "fomaml", "reptile"],
)  # fmt: skip


@EVERY_KIND
@pytest.mark.parametrize("settings", [{}, {"pixel_fraction": 0.3}], ids=["all", "sampled"])
def test_the_start_is_the_same_bits_again_and_on_any_number_of_cores(
    digits: GridSignals, meta: Meta, settings: dict[str, Any]
) -> None:
    config = recipe(meta, **settings)
    start = learn_start(digits, config)

    assert same_bits(start, learn_start(digits, config))
    torch.set_num_threads(2)
    assert same_bits(start, learn_start(digits, config, threads=2))
    assert torch.get_num_threads() == 2


@EVERY_KIND
@pytest.mark.parametrize("block_size", [2, 3, 8])
def test_the_start_does_not_depend_on_how_the_tasks_are_cut(
    digits: GridSignals, meta: Meta, block_size: int
) -> None:
    config = recipe(meta)

    start, cut = learn_start(digits, config), learn_start(digits, config, block_size=block_size)

    # Other routines round differently; five steps of 3e-3 move the weights 1,000 times as far.
    torch.testing.assert_close(cut.params, start.params, rtol=0, atol=1e-5)
    assert (start.params - shared_start(FIELD)).abs().max() > 1e-2


class Stopped(Exception):  # noqa: N818 - a signal of the test
    pass


@EVERY_KIND
def test_learning_that_was_stopped_goes_on_to_the_same_bits(
    digits: GridSignals, tmp_path: Path, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fitting.meta_learning._STEPS_BETWEEN_CHECKPOINTS", 2)
    config, checkpoint = recipe(meta), tmp_path / ".checkpoint.npz"

    def stop(step: int, num_steps: int, loss: float) -> None:
        del num_steps, loss
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        learn_start(digits, config, checkpoint=checkpoint, on_step=stop)
    steps: list[int] = []
    start = learn_start(
        digits, config, checkpoint=checkpoint, on_step=lambda step, *_: steps.append(step)
    )

    assert steps == [3, 4, 5]
    assert same_bits(start, learn_start(digits, config))


def test_the_checkpoint_of_another_recipe_or_a_damaged_one_is_passed_over(
    digits: GridSignals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fitting.meta_learning._STEPS_BETWEEN_CHECKPOINTS", 2)
    checkpoint = tmp_path / ".checkpoint.npz"
    learn_start(digits, recipe(seed=1), checkpoint=checkpoint)

    def steps_of(config: FitConfig) -> list[int]:
        steps: list[int] = []
        learn_start(
            digits, config, checkpoint=checkpoint, on_step=lambda step, *_: steps.append(step)
        )
        return steps

    assert steps_of(recipe(seed=1)) == [5]
    assert steps_of(recipe(seed=2)) == [1, 2, 3, 4, 5]
    assert not caplog.messages
    checkpoint.write_bytes(checkpoint.read_bytes()[:300])
    assert steps_of(recipe(seed=2)) == [1, 2, 3, 4, 5]
    assert "is damaged; the start is learned from the beginning" in caplog.messages[0]


@EVERY_KIND
def test_frozen_weights_stay_as_they_were_drawn(digits: GridSignals, meta: Meta) -> None:
    field = RFFNet(hidden_dim=8, learnable_coefficients=False)
    mask = field.spec(2, 1).trainable_mask()
    assert mask is not None

    start = learn_start(digits, recipe(meta, field=field))

    shared = shared_start(field)
    assert torch.equal(start.params[:, ~mask], shared[:, ~mask])
    assert (start.params != shared)[:, mask].float().mean() > 0.5
    if start.step_sizes is not None:
        assert (start.step_sizes[:, ~mask] == 0).all()
        assert (start.step_sizes[:, mask] > 0).all()


def test_every_outer_step_draws_pixels_of_its_own(digits: GridSignals) -> None:
    tasks = Tasks(digits, recipe(pixel_fraction=0.3), "cpu")

    draws = [tuple(tasks.problem(t).sample(k).tolist()) for t in (1, 2, 3) for k in (1, 2, 3)]

    assert {len(draw) for draw in draws} == {19}
    assert len(set(draws)) == 9


@pytest.mark.parametrize(
    ("meta", "settings", "remedy"),
    [
        (Meta(inner_learning_rate=1e6), {}, "init.inner_learning_rate"),
        (Meta(outer_learning_rate=1e30), {}, "init.outer_learning_rate (now 1e+30)"),
        (Meta(algorithm="reptile"), {"optimizer": Adam(learning_rate=1e38)},
         "optimizer.learning_rate"),
    ],
)  # fmt: skip
def test_learning_that_diverges_says_what_to_lower(
    digits: GridSignals, meta: Meta, settings: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigError, match="meta-learning diverged in outer step") as error:
        learn_start(digits, recipe(meta, **settings))
    assert remedy in str(error.value)


def test_only_a_meta_start_is_learned_and_only_from_training_signals(digits: GridSignals) -> None:
    with pytest.raises(ConfigError, match="expected kind 'meta' to learn a start"):
        learn_start(digits, FitConfig(field=FIELD, init=Shared()))

    untrained: Signals = dataclasses.replace(digits, splits=(Split("test", 0, 300),))
    with pytest.raises(SignalError, match="no train split"):
        learn_start(untrained, recipe())


@dataclasses.dataclass
class Balls:
    """Balls of radius 0.2 to 0.5 around the origin."""

    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        del role
        points = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) * 1.1 - 0.55
        radius = 0.2 + 0.3 * torch.tensor([p / self.count for p in positions])[:, None]
        inside = (points.norm(dim=1) < radius).float()
        samples = PointSamples(points.repeat(len(positions), 1, 1), inside)
        return ShapeSamples(samples, samples)


def test_a_start_for_shapes_is_learned_from_their_own_points() -> None:
    shapes = ShapeSignals(
        name="balls", source="formula", indices=torch.arange(12),
        splits=(Split("train", 0, 8), Split("test", 8, 12)), shapes=Balls(12),
    )  # fmt: skip
    meta = Meta(outer_steps=60, tasks_per_step=4, outer_learning_rate=3e-3)
    losses: list[float] = []

    start = learn_start(
        shapes,
        recipe(meta, points_per_step=64),
        on_step=lambda _, __, loss: losses.append(loss),
    )

    assert start.in_dim == 3
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert same_bits(start, learn_start(shapes, recipe(meta, points_per_step=64), block_size=2))
