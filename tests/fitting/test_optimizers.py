from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting import SGD, AdaBelief, Adam, AdamW, LearnedSGD, OptimizerConfig
from nefbench.errors import DatasetFormatError
from nefbench.fields import Siren
from nefbench.weights.start_file import StartFile, checksum_of, write_start_file

STEPS, SIZE = 50, 31


def quadratic() -> tuple[Tensor, Callable[[Tensor, int], Tensor]]:
    """A start and the noisy gradient of a quadratic, float64; the same on every call."""
    draw = torch.Generator().manual_seed(3)
    curvature = 0.1 + torch.rand(SIZE, generator=draw, dtype=torch.float64)
    optimum = torch.randn(SIZE, generator=draw, dtype=torch.float64)
    noise = torch.randn(STEPS + 1, SIZE, generator=draw, dtype=torch.float64)
    noise[:, 0] = 0  # one weight without noise, one without any gradient
    curvature[1] = 0
    noise[:, 1] = 0
    start = torch.randn(SIZE, generator=draw, dtype=torch.float64)
    return start, lambda rows, step: curvature * (rows - optimum) + 0.1 * noise[step]


def fit(optimizer: OptimizerConfig, rates: Iterable[float]) -> Tensor:
    start, gradient = quadratic()
    rows = start[None].clone()
    state = optimizer.start(rows)
    for step, rate in enumerate(rates, start=1):
        optimizer.update(rows, gradient(rows, step), state, optimizer.scalars(step, rate))
    return rows[0]


def fit_with_torch(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], rates: Iterable[float]
) -> Tensor:
    start, gradient = quadratic()
    rows = torch.nn.Parameter(start.clone())
    optimizer = make([rows])
    for step, rate in enumerate(rates, start=1):
        optimizer.param_groups[0]["lr"] = rate
        rows.grad = gradient(rows.detach(), step)
        optimizer.step()
    return rows.detach()


CASES = [
    (Adam(learning_rate=0.05), lambda p: torch.optim.Adam(p)),
    (
        Adam(learning_rate=0.05, betas=(0.5, 0.9), eps=0.01),
        lambda p: torch.optim.Adam(p, betas=(0.5, 0.9), eps=0.01),
    ),
    (
        Adam(learning_rate=0.05, betas=(0.0, 0.99)),
        lambda p: torch.optim.Adam(p, betas=(0.0, 0.99)),
    ),
    (AdamW(learning_rate=0.05), lambda p: torch.optim.AdamW(p, weight_decay=1e-3)),
    (
        AdamW(learning_rate=0.05, betas=(0.7, 0.95), eps=1e-3, weight_decay=0.5),
        lambda p: torch.optim.AdamW(p, betas=(0.7, 0.95), eps=1e-3, weight_decay=0.5),
    ),
    (SGD(learning_rate=0.05), lambda p: torch.optim.SGD(p, momentum=0.9)),
    (SGD(learning_rate=0.05, momentum=0.0), lambda p: torch.optim.SGD(p)),
]


@pytest.mark.parametrize(
    ("optimizer", "make"), CASES, ids=[f"{case[0].kind}-{i}" for i, case in enumerate(CASES)]
)
def test_fifty_steps_are_those_of_torch(
    optimizer: OptimizerConfig,
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    rates = [0.05 * (1 - 0.01 * step) for step in range(STEPS)]

    rows = fit(optimizer, rates)

    assert (rows - quadratic()[0]).abs().max() > 0.5, "the weights moved"
    torch.testing.assert_close(rows, fit_with_torch(make, rates), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eps", [1e-16, 1e-8, 1e-2])
def test_adabelief_follows_its_equations(eps: float) -> None:
    beta1, beta2 = 0.8, 0.97
    rates = [0.05 * (1 - 0.01 * step) for step in range(STEPS)]
    start, gradient = quadratic()

    # m <- b1 m + (1 - b1) g;  s <- b2 s + (1 - b2) (g - m)^2 + eps
    # w <- w - rate m^ / (sqrt(s^) + eps), both moments divided by 1 - b^t
    w, m, s = start.numpy().copy(), np.zeros(SIZE), np.zeros(SIZE)
    for t, rate in enumerate(rates, start=1):
        g = gradient(torch.from_numpy(w), t).numpy()
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        w = w - rate * (m / (1 - beta1**t)) / (np.sqrt(s / (1 - beta2**t)) + eps)

    rows = fit(AdaBelief(betas=(beta1, beta2), eps=eps), rates)
    np.testing.assert_allclose(rows.numpy(), w, rtol=1e-12, atol=1e-12)


def test_the_first_step_of_adam_is_the_learning_rate_along_the_sign() -> None:
    rows = torch.tensor([[1.0, 1.0, 1.0]])
    optimizer = Adam()

    gradient = torch.tensor([[5.0, -1e-3, 0.0]])
    optimizer.update(rows, gradient, optimizer.start(rows), optimizer.scalars(1, 0.25))

    # m^ = g and v^ = g^2: every step is 0.25 g / |g|, up to eps = 1e-8.
    torch.testing.assert_close(rows, torch.tensor([[0.75, 1.25, 1.0]]), rtol=0, atol=1e-5)


def test_momentum_adds_up_as_worked_out_by_hand() -> None:
    rows = torch.zeros(1, 1)
    optimizer = SGD(momentum=0.5)
    state = optimizer.start(rows)

    for step in (1, 2, 3):
        optimizer.update(rows, torch.ones(1, 1), state, optimizer.scalars(step, 0.1))

    # Velocities 1, 1.5, 1.75; their sum times 0.1.
    torch.testing.assert_close(rows, torch.tensor([[-0.425]]))


def test_weight_decay_shrinks_a_weight_without_gradient() -> None:
    rows = torch.full((1, 2), 2.0)
    optimizer = AdamW(weight_decay=0.5)

    optimizer.update(rows, torch.zeros(1, 2), optimizer.start(rows), optimizer.scalars(1, 0.1))

    torch.testing.assert_close(rows, torch.full((1, 2), 1.9))  # 2 (1 - 0.1 x 0.5)


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(), SGD(), AdaBelief()])
def test_a_stack_of_fields_moves_bit_for_bit_as_each_would_alone(
    optimizer: OptimizerConfig,
) -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(5, 37, generator=draw)
    gradients = torch.randn(10, 5, 37, generator=draw) * 10 ** torch.linspace(-12, 3, 37)

    def run(which: slice) -> Tensor:
        rows = start[which].clone()
        state = optimizer.start(rows)
        for step in range(10):
            scalars = optimizer.scalars(step + 1, 1e-2)
            optimizer.update(rows, gradients[step, which], state, scalars)
        return rows

    together = run(slice(None))
    alone = torch.cat([run(slice(i, i + 1)) for i in range(5)])
    assert not torch.equal(together, start)
    assert torch.equal(together.view(torch.int32), alone.view(torch.int32))


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(), SGD(), AdaBelief()])
def test_an_update_leaves_the_gradient_alone(optimizer: OptimizerConfig) -> None:
    rows, gradient = torch.zeros(2, 3), torch.full((2, 3), 0.5)

    optimizer.update(rows, gradient, optimizer.start(rows), optimizer.scalars(1, 0.1))

    assert torch.equal(gradient, torch.full((2, 3), 0.5))
    assert (rows < 0).all()


@pytest.mark.parametrize("make", [Adam, AdamW, SGD, AdaBelief])
@pytest.mark.parametrize("rate", [0.0, -1e-3, math.inf, math.nan])
def test_a_learning_rate_must_be_positive_and_finite(
    make: Callable[..., OptimizerConfig], rate: float
) -> None:
    with pytest.raises(ValueError, match="expected learning_rate > 0"):
        make(learning_rate=rate)


@pytest.mark.parametrize("make", [Adam, AdamW, AdaBelief])
@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan)])
def test_betas_must_lie_below_one(
    make: Callable[..., OptimizerConfig], betas: tuple[float, float]
) -> None:
    with pytest.raises(ValueError, match=r"expected betas in \[0, 1\)"):
        make(betas=betas)


@pytest.mark.parametrize("make", [Adam, AdamW, AdaBelief])
@pytest.mark.parametrize("eps", [-1e-8, math.inf, math.nan])
def test_eps_must_not_be_negative(make: Callable[..., OptimizerConfig], eps: float) -> None:
    with pytest.raises(ValueError, match="expected eps >= 0"):
        make(eps=eps)


@pytest.mark.parametrize("decay", [-1e-3, math.inf, math.nan])
def test_weight_decay_must_not_be_negative(decay: float) -> None:
    with pytest.raises(ValueError, match="expected weight_decay >= 0"):
        AdamW(weight_decay=decay)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_momentum_must_lie_below_one(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"expected momentum in \[0, 1\)"):
        SGD(momentum=momentum)


def test_learned_rates_are_applied_weight_by_weight(tmp_path: Path) -> None:
    field = Siren(hidden_dim=1, num_layers=2)  # 1 -> 1 -> 1: four weights
    path, sizes = tmp_path / "start.npz", torch.tensor([[0.5, 0.0, 1.0, -2.0]])
    write_start_file(path, StartFile(field, 1, 1, torch.zeros(1, 4), sizes))
    gradient = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 3.0, 0.0, 1.0]])

    for sha256 in (None, checksum_of(path)):
        optimizer = LearnedSGD(path=path, sha256=sha256)
        rows = torch.ones(2, 4)
        state = optimizer.start(rows)
        for step in (1, 2):
            optimizer.update(rows, gradient, state, optimizer.scalars(step, 0.25))

        # Twice -0.25 x size x gradient.
        expected = [[0.75, 1.0, 0.5, 2.0], [0.5, 1.0, 1.0, 2.0]]
        assert rows.tolist() == expected
    assert torch.equal(state[0], sizes)
    assert gradient.sum() == 10


def test_learned_rates_need_a_file_that_has_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="come from a start file"):
        LearnedSGD().start(torch.zeros(1, 4))
    with pytest.raises(DatasetFormatError, match="no such start file"):
        LearnedSGD(path=tmp_path / "none.npz").start(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="expected learning_rate > 0"):
        LearnedSGD(learning_rate=0.0)
    with pytest.raises(ValueError, match="sha256 is that of a file"):
        LearnedSGD(sha256="0" * 64)
