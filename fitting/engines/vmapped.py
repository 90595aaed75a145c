"""The generic engine: ``vmap`` of the gradient of one field's loss, any field, any device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting.engines.base import FitProblem
from nefbench.seeding import permutation

# By default MKL picks a kernel by the address of a matrix, so at odd widths a field's bits would
# depend on its place in the block. MKL reads this at its first product: import before computing.
os.environ.setdefault("MKL_CBWR", "AUTO")

_LIVE_BYTES = {"cpu": 1_800_000, "cuda": 512 * 2**20}
"""Size of one hidden activation of a block: on a CPU the few live ones then stay in the cache."""
_LARGEST_BLOCK = 4096
_STEPS_BETWEEN_CHECKS = 20


class VmappedEngine:
    """Eager ``torch.func``: the reference that every faster engine is compared with."""

    name = "vmapped"

    def block_size(self, problem: FitProblem) -> int:
        """Return a power of two such that one hidden activation takes at most 1.8 MB on a CPU."""
        points = problem.config.num_sampled(len(problem.coords))
        per_field = 4 * points * problem.config.field.hidden_dim
        fitting = _LIVE_BYTES[problem.coords.device.type] // per_field
        # At least two: a batch of one takes other library routines, which round differently.
        return min(_LARGEST_BLOCK, max(2, 1 << max(fitting, 1).bit_length() - 1))

    def fit(
        self,
        problem: FitProblem,
        start: Tensor,
        targets: Tensor,
        check_stop: Callable[[], None],
    ) -> Tensor:
        """Fit one block; see ``Engine.fit``."""
        config, optimizer = problem.config, problem.config.optimizer
        rates = config.schedule.rates(optimizer.learning_rate, config.num_steps)
        mask = problem.spec.trainable_mask()
        mask = None if mask is None else mask.to(start.device)
        gradient_of = vmap(grad(_loss_of(problem)), in_dims=(0, None, 0))
        rows = start.clone()
        state = optimizer.start(rows)
        with torch.no_grad():
            for step, rate in enumerate(rates, start=1):
                if step % _STEPS_BETWEEN_CHECKS == 0:
                    check_stop()
                gradient = gradient_of(rows, *_sample(problem, targets, step))
                optimizer.update(rows, gradient, state, step, rate)
                if mask is not None:  # undoes weight decay as well
                    torch.where(mask, rows, start, out=rows)
        return rows


@contextlib.contextmanager
def reproducible_arithmetic() -> Iterator[None]:
    """Compute on one thread with denormal numbers flushed to zero; restore both afterwards.

    One thread makes a block's result independent of the machine's core count (processes share
    the work instead, which is faster at these sizes). Once a field interpolates its signal, Adam's
    second moments fall below 1e-38, where processors are slow. On a GPU products and convolutions
    keep full float32: TF32 costs fields above 35 dB several dB.
    """
    threads = torch.get_num_threads()
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    allowed = products.allow_tf32, convolutions.allow_tf32
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = allowed
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def _loss_of(problem: FitProblem) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def loss(row: Tensor, coords: Tensor, target: Tensor) -> Tensor:
        values = problem.config.field.apply(problem.spec.unflatten(row), coords)
        return (values - target).square().mean()

    return loss


def _sample(problem: FitProblem, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Return this step's coordinates ``[q, d]`` and targets ``[B, q, c]``."""
    count = problem.config.num_sampled(len(problem.coords))
    if count == len(problem.coords):
        return problem.coords, targets
    order = permutation(problem.config.seed, "fit/pixels", len(problem.coords), step)
    chosen = order[:count].to(targets.device)
    return problem.coords[chosen], targets[:, chosen]
