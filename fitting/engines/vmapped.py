"""The generic engine: ``vmap`` of the gradient of one field's loss, any field, any device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting.config import EngineName
from fitting.engines.base import Block, FitProblem, Run, WholeFits
from fitting.losses import LossConfig
from nefbench.fields import FieldConfig
from nefbench.spec import ParamSpec

# By default MKL picks a kernel by the address of a matrix, so at odd widths a field's bits would
# depend on its place in the block. MKL reads this at its first product: import before computing.
os.environ.setdefault("MKL_CBWR", "AUTO")

_LIVE_BYTES = {"cpu": 1_800_000, "cuda": 512 * 2**20}
"""Size of one hidden activation of a block: on a CPU the few live ones then stay in the cache."""
_LARGEST_BLOCK = 4096
_STEPS_BETWEEN_CHECKS = 20


class VmappedEngine(WholeFits):
    """Eager ``torch.func``: the reference that every faster engine is compared with."""

    name: EngineName = "vmapped"
    signature = f"torch-{torch.__version__}"
    uses_threads = False
    needs_full_blocks = True  # libraries take other routines for other numbers of matrices

    def why_not(self, problem: FitProblem) -> str | None:
        """Nothing is too much for it; see ``Engine.why_not``."""
        del problem
        return None

    def block_size(self, problem: FitProblem) -> int:
        """Return a power of two such that one hidden activation takes at most 1.8 MB on a CPU."""
        per_field = 4 * problem.num_sampled * problem.config.field.hidden_dim
        fitting = _LIVE_BYTES[problem.coords.device.type] // per_field
        # At least two: a batch of one takes other library routines, which round differently.
        return min(_LARGEST_BLOCK, max(2, 1 << max(fitting, 1).bit_length() - 1))

    def prepare(self, problem: FitProblem) -> None:
        """Do nothing: there is nothing to compile."""

    def start(self, problem: FitProblem, block: Block) -> Run:
        """Begin to fit one block; see ``Engine.start``."""
        return _VmappedRun(problem, block)


class _VmappedRun(Run):
    """Steps of the whole block: frozen fields cost as much as active ones, for the same bits."""

    def __init__(self, problem: FitProblem, block: Block) -> None:
        super().__init__(problem, block)
        self._problem, self._block = problem, block
        mask = problem.spec.trainable_mask()
        self._mask = None if mask is None else mask.to(block.start.device)
        loss = loss_of(problem.config.field, problem.spec, problem.loss)
        in_dims = (0, None if block.coords is None else 0, 0)
        self._gradient_of = vmap(grad(loss), in_dims=in_dims)
        self._rates = problem.rates()
        self._rows = block.start.clone()
        self._state = problem.config.optimizer.start(self._rows)

    @torch.no_grad()
    def _take(self, steps: range, threads: int, check_stop: Callable[[], None]) -> None:
        del threads  # one: the bits would depend on it
        optimizer, rows = self._problem.config.optimizer, self._rows
        for step in range(steps.start + 1, steps.stop + 1):
            if step % _STEPS_BETWEEN_CHECKS == 0:
                check_stop()
            gradient = self._gradient_of(rows, *step_points(self._problem, self._block, step))
            scalars = optimizer.scalars(step, self._rates[step - 1])
            optimizer.update(rows, gradient, self._state, scalars)
            if self._mask is not None:  # undoes weight decay as well
                torch.where(self._mask, rows, self._block.start, out=rows)

    def _current_rows(self) -> Tensor:
        return self._rows


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
    flushed = bool(torch.tensor([2e-39]).mul(0.5).eq(0))
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = allowed
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(threads)


def loss_of(
    field: FieldConfig, spec: ParamSpec, loss: LossConfig
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return one field's loss as a function of its row ``[P]``, points and targets."""

    def loss_of_row(row: Tensor, coords: Tensor, targets: Tensor) -> Tensor:
        return loss.value(field.apply(spec.unflatten(row), coords), targets)

    return loss_of_row


def step_points(problem: FitProblem, block: Block, step: int) -> tuple[Tensor, Tensor]:
    """Return this step's coordinates ``[q, d]`` or ``[B, q, d]`` and targets ``[B, q, c]``."""
    coords = problem.coords if block.coords is None else block.coords
    if not problem.is_sampled:
        return coords, block.targets
    chosen = problem.sample(step).to(coords.device)
    return coords.index_select(-2, chosen), block.targets.index_select(1, chosen)
