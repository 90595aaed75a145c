from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fitting import SGD, AdamW, FitConfig, Random, Shared, WarmupCosine
from fitting.engines import Block, FitProblem, VmappedEngine, reproducible_arithmetic
from nefbench.errors import Interrupted
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws, permutation
from nefbench.signals import grid_coords

pytestmark = pytest.mark.usefixtures("one_thread")

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=4),
    Siren(hidden_dim=4, preset="paper"),
    FourierNet(hidden_dim=4, num_filters=3),
    GaborNet(hidden_dim=4, num_filters=2, input_scale=4.0),
    RFFNet(hidden_dim=6),
    MLP(hidden_dim=5),
    ShapeNet(hidden_dim=5),
]


def make_problem(
    config: FitConfig, *, grid_shape: tuple[int, ...] = (5, 4), channels: int = 1
) -> FitProblem:
    spec = config.field.spec(len(grid_shape), channels)
    return FitProblem(config, spec, grid_coords(grid_shape), channels)


def start_of(problem: FitProblem, count: int) -> Tensor:
    config, in_dim = problem.config, problem.coords.shape[1]
    out_dim = problem.spec.tensors[-1].shape[-1]
    return config.init.rows(config.field, in_dim, out_dim, Draws(config.seed, tuple(range(count))))


def targets_of(problem: FitProblem, count: int) -> Tensor:
    channels = problem.spec.tensors[-1].shape[-1]
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, len(problem.coords), channels, generator=draw)


def fit(problem: FitProblem, start: Tensor, targets: Tensor) -> Tensor:
    with reproducible_arithmetic():
        return VmappedEngine().fit(problem, Block(start, targets))


def chosen_points(problem: FitProblem, step: int) -> Tensor:
    """Grid points in the loss of one step, as the reference says."""
    config, size = problem.config, len(problem.coords)
    count = config.num_sampled(size)
    if count == size:
        return torch.arange(size)
    return permutation(config.seed, "fit/pixels", size, step)[:count]


def gradient_of(problem: FitProblem, row: Tensor, target: Tensor, step: int) -> Tensor:
    chosen = chosen_points(problem, step)
    weights = row.clone().requires_grad_()
    params = problem.spec.unflatten(weights)
    values = problem.config.field.apply(params, problem.coords.double()[chosen])
    (values - target[chosen]).square().mean().backward()
    assert weights.grad is not None
    return weights.grad


def fit_slowly(problem: FitProblem, start: Tensor, targets: Tensor) -> Tensor:
    """One field after another in float64, with torch's own Adam."""
    rows = []
    for row, target in zip(start.double(), targets.double(), strict=True):
        weights = torch.nn.Parameter(row.clone())
        optimizer = torch.optim.Adam([weights], lr=problem.config.optimizer.learning_rate)
        for step in range(1, problem.config.num_steps + 1):
            weights.grad = gradient_of(problem, weights.detach(), target, step)
            optimizer.step()
        rows.append(weights.detach())
    return torch.stack(rows)


def assert_same_bits(first: Tensor, second: Tensor) -> None:
    assert torch.equal(first.view(torch.int32), second.view(torch.int32))


# Against a slow reference


@pytest.mark.parametrize("num_steps", [1, 10])
@pytest.mark.parametrize("fraction", [1.0, 0.3])
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.kind}-{field.hidden_dim}")
def test_every_field_ends_where_slow_fitting_in_float64_ends(
    field: FieldConfig, fraction: float, num_steps: int
) -> None:
    config = FitConfig(
        field=field, init=Random(), num_steps=num_steps, pixel_fraction=fraction, seed=1
    )
    problem = make_problem(config, channels=3)
    start, targets = start_of(problem, 3), targets_of(problem, 3)

    rows = fit(problem, start, targets)

    expected = fit_slowly(problem, start, targets)
    # float32 over ten Adam steps: 1e-5 of the length of a row (some 5e-7 in fact).
    error = (rows - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 1e-5
    moved = (expected - start).norm(dim=1) / expected.norm(dim=1)
    assert moved.min() > 1e-4 * num_steps, "or the tolerance would prove nothing"


def test_there_are_exactly_as_many_steps_as_asked_for_each_with_its_own_rate() -> None:
    schedule = WarmupCosine(warmup_steps=2, start_rate=0.01, end_rate=0.02)
    optimizer = SGD(learning_rate=0.2, momentum=0.0)
    config = FitConfig(
        field=Siren(hidden_dim=4, omega_0=5.0),
        optimizer=optimizer,
        schedule=schedule,
        num_steps=3,
        pixel_fraction=0.5,
    )
    problem = make_problem(config)
    start, targets = start_of(problem, 2), targets_of(problem, 2)

    rows = fit(problem, start, targets)

    # Half-way up the warm-up: 0.01 + 0.19 / 2; then the peak.
    by_hand = start.double()
    visited = [by_hand]
    for step, rate in enumerate([0.01, 0.105, 0.2], start=1):
        gradients = [
            gradient_of(problem, row, target, step)
            for row, target in zip(by_hand, targets.double(), strict=True)
        ]
        by_hand = by_hand - rate * torch.stack(gradients)
        visited.append(by_hand)
    torch.testing.assert_close(rows.double(), visited[3], rtol=0, atol=1e-6)
    assert (visited[3] - visited[2]).abs().max() > 1e-2


def test_the_start_and_the_targets_are_not_changed() -> None:
    problem = make_problem(FitConfig(field=Siren(hidden_dim=4), num_steps=2))
    start, targets = start_of(problem, 2), targets_of(problem, 2)
    before = start.clone(), targets.clone()

    rows = fit(problem, start, targets)

    assert_same_bits(start, before[0])
    assert_same_bits(targets, before[1])
    assert rows.dtype == torch.float32
    assert not rows.requires_grad


# Pixel subsampling


def influential_points(num_steps: int, row: int) -> set[int]:
    """Points whose target matters for the result: one field per point, each with that one off."""
    config = FitConfig(
        field=Siren(hidden_dim=4, omega_0=5.0), init=Random(), optimizer=SGD(), seed=5,
        num_steps=num_steps, pixel_fraction=0.27,
    )  # fmt: skip
    problem = make_problem(config)
    size = len(problem.coords)
    start = start_of(problem, row + 1)[row:].repeat(size + 1, 1)
    targets = targets_of(problem, row + 1)[row:].repeat(size + 1, 1, 1)
    targets[torch.arange(size), torch.arange(size)] += 1.0

    rows = fit(problem, start, targets)

    return {point for point in range(size) if not torch.equal(rows[point], rows[size])}


def test_a_step_uses_exactly_its_share_of_the_points_the_same_for_all_fields() -> None:
    expected = set(permutation(5, "fit/pixels", 20, 1)[:5].tolist())  # floor(0.27 x 20) = 5

    assert influential_points(1, row=0) == expected
    assert influential_points(1, row=3) == expected


def test_the_next_step_uses_other_points() -> None:
    first = influential_points(1, row=0)
    both = influential_points(2, row=0)

    assert both == first | set(permutation(5, "fit/pixels", 20, 2)[:5].tolist())
    assert len(both) > len(first)


# Frozen tensors


def test_frozen_coefficients_keep_their_bits_even_under_weight_decay() -> None:
    field = RFFNet(hidden_dim=6, learnable_coefficients=False)
    config = FitConfig(
        field=field, init=Random(), optimizer=AdamW(learning_rate=0.1, weight_decay=0.5),
        num_steps=8,
    )  # fmt: skip
    problem = make_problem(config)
    start = start_of(problem, 3)

    rows = fit(problem, start, targets_of(problem, 3))

    for name, place in problem.spec.slices().items():
        if name == "encoding.coefficients.kernel":
            assert_same_bits(rows[:, place], start[:, place])
        else:
            assert not torch.equal(rows[:, place], start[:, place]), name


def test_learnable_coefficients_move() -> None:
    problem = make_problem(FitConfig(field=RFFNet(hidden_dim=6), num_steps=2))
    start = start_of(problem, 2)
    place = problem.spec.slices()["encoding.coefficients.kernel"]

    rows = fit(problem, start, targets_of(problem, 2))

    assert not (rows[:, place] == start[:, place]).any()


# Fields do not notice each other


@pytest.mark.parametrize("optimizer", [SGD(learning_rate=0.5), AdamW(weight_decay=0.1)])
def test_a_field_that_overflows_leaves_the_bits_of_its_neighbours_alone(
    optimizer: SGD | AdamW,
) -> None:
    config = FitConfig(field=MLP(hidden_dim=5), init=Random(), optimizer=optimizer, num_steps=10)
    problem = make_problem(config)
    start, targets = start_of(problem, 4), targets_of(problem, 4)
    undisturbed = fit(problem, start, targets)
    wild = start.clone()
    wild[1] = 1e30

    rows = fit(problem, wild, targets)

    assert not rows[1].isfinite().all()
    assert undisturbed.isfinite().all()
    assert_same_bits(rows[[0, 2, 3]], undisturbed[[0, 2, 3]])


@pytest.mark.parametrize(
    ("field", "grid_shape"),
    [
        (MLP(hidden_dim=11), (5, 4)),
        (Siren(hidden_dim=7), (7, 5)),
        (FourierNet(hidden_dim=5), (7, 5)),
        (GaborNet(hidden_dim=5, num_filters=2), (7, 5)),
        (RFFNet(hidden_dim=10), (8, 8)),
        (ShapeNet(hidden_dim=7), (7, 5)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_the_place_in_the_block_does_not_change_a_bit(
    field: FieldConfig, grid_shape: tuple[int, int]
) -> None:
    """Odd widths: matrices then start at all kinds of addresses, by which MKL picks its kernels.

    Only if something multiplied matrices before ``fitting`` was imported can this fail.
    """
    problem = make_problem(
        FitConfig(field=field, init=Shared(), num_steps=5), grid_shape=grid_shape, channels=3
    )
    start, target = start_of(problem, 7), targets_of(problem, 1)

    rows = fit(problem, start, target.repeat(7, 1, 1))

    assert not torch.equal(rows, start)
    assert_same_bits(rows, rows[:1].repeat(7, 1))


# Stopping


def test_a_request_to_stop_abandons_the_block() -> None:
    problem = make_problem(FitConfig(field=Siren(hidden_dim=2), num_steps=1000))
    calls = []

    def stop_at_the_third_call() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        VmappedEngine().fit(
            problem,
            Block(start_of(problem, 2), targets_of(problem, 2)),
            check_stop=stop_at_the_third_call,
        )


# The size of a block


@pytest.mark.parametrize(
    ("grid_shape", "hidden_dim", "fraction", "expected"),
    [
        ((8, 8), 32, 1.0, 128),  # 8,192 bytes per field: 219 fit into 1.8 MB
        ((28, 28), 32, 1.0, 16),  # 100,352 bytes: 17
        ((28, 28), 32, 0.25, 64),  # a quarter of that: 71
        ((28, 28), 64, 1.0, 8),
        ((2, 2), 2, 1.0, 4096),  # never more
        ((1000, 1000), 64, 1.0, 2),  # never fewer
    ],
)
def test_a_block_is_the_power_of_two_whose_activations_stay_in_the_cache(
    grid_shape: tuple[int, int], hidden_dim: int, fraction: float, expected: int
) -> None:
    config = FitConfig(field=Siren(hidden_dim=hidden_dim), pixel_fraction=fraction)

    assert VmappedEngine().block_size(make_problem(config, grid_shape=grid_shape)) == expected


# Arithmetic


@pytest.mark.parametrize("threads", [1, 2])
def test_arithmetic_is_restored_afterwards_whatever_happens(threads: int) -> None:
    before = torch.get_num_threads()
    denormal = torch.tensor([1e-40])
    inside = []

    def compute_and_fail() -> None:
        with reproducible_arithmetic():
            inside.append((torch.get_num_threads(), float(denormal * 1.0)))
            raise ZeroDivisionError

    try:
        torch.set_num_threads(threads)
        with pytest.raises(ZeroDivisionError):
            compute_and_fail()

        assert inside == [(1, 0.0)]
        assert torch.get_num_threads() == threads
        assert math.isclose(float(denormal * 1.0), 1e-40, rel_tol=1e-4)
    finally:
        torch.set_num_threads(before)
