"""The fused CPU engine: a core fits one field at a time, all steps inside its cache."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fitting.config import EngineName
from fitting.engines.base import Block, FitProblem, Missing, sampled_points, why_not_padded
from fitting.losses import MSE
from nefbench.fields import MLP, FourierNet, RFFNet, Siren

_FAMILIES = (Siren, RFFNet, FourierNet, MLP)
_BLOCK_WORK = 1e11
"""Multiply-adds of a block, about a second: how often progress is reported."""
_EVALUATION_BYTES = 16e6
"""Hidden activations of a block when its quality is measured."""
_LAUNCH_WORK = 5e9
"""Multiply-adds of one call into a kernel: how soon a request to stop is heard."""
_TASK_WORK = 1e9
"""Multiply-adds below which fields are handed to a thread together."""
_LARGEST_BLOCK = 1024
_POLL_SECONDS = 0.1


class FusedEngine:
    """Whole-fit kernels written for the problem at hand; fields are computed one by one."""

    name: EngineName = "fused"
    uses_threads = True
    needs_full_blocks = False

    @property
    def signature(self) -> str:
        """Library and vector registers, which decide the order of additions."""
        from fitting.engines.fused import compiler

        lanes = compiler.host_machine().lanes
        return f"llvmlite-{version('llvmlite')} float32x{lanes}"

    def why_not(self, problem: FitProblem) -> str | None:
        """See ``Engine.why_not``."""
        config = problem.config
        if problem.coords.device.type != "cpu":
            return f"it computes on the CPU, not on {problem.coords.device.type}"
        if problem.coords.dtype != torch.float32:
            return f"it computes in float32, not in {problem.coords.dtype}"
        if not isinstance(config.field, _FAMILIES):
            return f"it has no kernel for {config.field.kind}"
        refusal = why_not_padded(config.optimizer)
        if refusal is not None:
            return refusal
        if find_spec("llvmlite") is None:
            return Missing("llvmlite is not installed (pip install 'nefbench[fused]')")
        from fitting.engines.fused import compiler

        return compiler.why_not_here()

    def block_size(self, problem: FitProblem) -> int:
        """Return a power of two: about a second of work, and quick to evaluate after it."""
        fields = _BLOCK_WORK / _work(problem, problem.config.num_steps)
        activation = 4 * problem.num_points * problem.config.field.hidden_dim
        fields = int(min(fields, _EVALUATION_BYTES / activation, _LARGEST_BLOCK))
        return 1 << max(4, fields.bit_length() - 1)

    def prepare(self, problem: FitProblem) -> None:
        """Compile the kernel of the problem, or load it from the disk."""
        _plan_of(problem)

    def fit(
        self,
        problem: FitProblem,
        block: Block,
        *,
        threads: int = 1,
        check_stop: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Fit one block; see ``Engine.fit``."""
        run = _Run(problem, block)
        stop = threading.Event()
        num_fields = len(block.start)
        together = int(_TASK_WORK / _work(problem, problem.config.num_steps))
        size = max(1, min(together, num_fields // (4 * threads)))
        with ThreadPoolExecutor(threads) as pool:
            pending: set[Future[None]] = {
                pool.submit(run.fit_fields, first, min(first + size, num_fields), stop)
                for first in range(0, num_fields, size)
            }
            try:
                while pending:
                    check_stop()
                    done, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
            finally:
                stop.set()
        return run.rows()


def _work(problem: FitProblem, num_steps: int) -> float:
    """Multiply-adds of one field, about: three products with every weight at every point."""
    return 3.0 * problem.spec.num_params * problem.num_sampled * num_steps


@dataclass(frozen=True)
class _Plan:
    """A compiled kernel with the sizes of its arrays."""

    program: Any
    kernel: Any


def _plan_of(problem: FitProblem) -> _Plan:
    config = problem.config
    return compiled_plan(
        config.field,
        dataclasses.replace(config.optimizer, learning_rate=1.0),  # one of the scalars
        problem.loss,
        problem.coords.shape[1],
        problem.out_dim,
        problem.num_sampled,
        problem.is_sampled,
    )


@lru_cache(maxsize=256)
def compiled_plan(
    field: Any,
    optimizer: Any,
    loss: Any,
    in_dim: int,
    out_dim: int,
    num_points: int,
    is_sampled: bool,
) -> _Plan:
    """Write and compile the kernel for everything that it depends on."""
    from fitting.engines.fused import compiler, kernel, networks

    network = networks.describe(field, field.spec(in_dim, out_dim))
    assert network is not None, "why_not was asked"
    program = kernel.Program(
        network,
        optimizer,
        loss,
        in_dim,
        out_dim,
        num_points,
        is_sampled,
        len(optimizer.scalars(1, 1.0)),
    )
    source = str(kernel.emit(program, compiler.host_machine(), compiler.host_triple()))
    return _Plan(program, compiler.compile_kernel(source, kernel.NAME, kernel.NUM_POINTERS))


class _Run:
    """The arrays of one block while it is fitted."""

    def __init__(self, problem: FitProblem, block: Block) -> None:
        plan = _plan_of(problem)
        self._program, self._kernel = plan.program, plan.kernel
        self._num_steps = problem.config.num_steps
        self._launch = max(1, int(_LAUNCH_WORK / _work(problem, 1)))
        program = self._program
        self._layout = program.network.layout
        coords = problem.coords[None] if block.coords is None else block.coords
        if program.is_sampled:
            samples = _sampled_points(
                problem.config.seed, problem.num_points, problem.num_sampled, self._num_steps
            )
            self._samples = _padded(samples, program.padded_points)
            self._coords, self._targets = coords.contiguous(), block.targets.contiguous()
        else:
            self._samples = torch.zeros(0, dtype=torch.int32)
            self._coords = _padded(coords, program.padded_points)
            self._targets = _padded(block.targets, program.padded_points)
        # d(mean)/d(value): squares bring a factor of two.
        slope = (2.0 if isinstance(problem.loss, MSE) else 1.0) / (
            program.num_points * program.out_dim
        )
        self._factors = torch.zeros(program.padded_points, program.out_dim)
        self._factors[: program.num_points] = slope
        optimizer = problem.config.optimizer
        scalars = [optimizer.scalars(i, rate) for i, rate in enumerate(problem.rates(), start=1)]
        self._scalars = torch.tensor(scalars, dtype=torch.float64).float().contiguous()
        self._start = block.start
        self._weights = self._layout.pack(block.start)
        self._state = torch.zeros(len(block.start), program.num_states * self._layout.size)

    def fit_fields(self, first: int, last: int, stop: threading.Event) -> None:
        """Fit a range of fields, one after the other; leave early when asked to."""
        scratch = torch.zeros(self._program.scratch_size)
        for field in range(first, last):
            for step in range(0, self._num_steps, self._launch):
                if stop.is_set():
                    return
                own = field if len(self._coords) > 1 else 0
                arrays = (
                    self._weights[field],
                    self._state[field],
                    scratch,
                    self._coords[own],
                    self._targets[field],
                    self._factors,
                    self._samples[step:],
                    self._scalars[step:],
                )
                count = min(self._launch, self._num_steps - step)
                self._kernel([array.data_ptr() for array in arrays], count)

    def rows(self) -> Tensor:
        """Fitted rows ``[B, P]``."""
        rows: Tensor = self._layout.unpack(self._weights)
        return rows


@lru_cache(maxsize=1)
def _sampled_points(seed: int, num_points: int, num_sampled: int, num_steps: int) -> Tensor:
    """Points of every step, ``[S, q]``; all blocks of a fit share them."""
    steps = range(1, num_steps + 1)
    samples = (sampled_points(seed, num_points, num_sampled, step) for step in steps)
    return torch.stack([sample.to(torch.int32) for sample in samples])


def _padded(values: Tensor, size: int) -> Tensor:
    """Repeat the first of axis 1 at its end until it is ``size`` long."""
    missing = size - values.shape[1]
    if not missing:
        return values.contiguous()
    return torch.cat([values, values[:, :1].expand(-1, missing, *values.shape[2:])], dim=1)
