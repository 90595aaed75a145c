"""The fused CPU engine: a core fits one field at a time, all steps inside its cache."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fitting.config import EngineName
from fitting.engines.base import Block, FitProblem, Missing, Run, WholeFits, why_not_in_kernel
from fitting.losses import MSE
from fitting.sampling import Sampling
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
_TABLE_BYTES = 2**20
"""Size of a table of sampled points."""
_TABLE_STEPS = 256
"""Steps in a table at most: drawing them may take a millisecond each."""
_TABLES_KEPT = 32
"""If these hold all points of a fit, its blocks draw them once; otherwise each block does."""


class FusedEngine(WholeFits):
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
        refusal = why_not_in_kernel(config.optimizer)
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

    def start(self, problem: FitProblem, block: Block) -> Run:
        """Begin to fit one block; see ``Engine.start``."""
        return FusedRun(problem, block)


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


class FusedRun(Run):
    """The arrays of one block while it is fitted; threads share them, never a field."""

    def __init__(self, problem: FitProblem, block: Block) -> None:
        super().__init__(problem, block)
        plan = _plan_of(problem)
        self._program, self._kernel = plan.program, plan.kernel
        self._drawing = problem.drawing
        self._work = _work(problem, 1)
        program = self._program
        self._layout = program.network.layout
        coords = problem.coords[None] if block.coords is None else block.coords
        if program.is_sampled:  # the kernel looks them up: all may be many, none is copied
            self._coords, self._targets = coords.contiguous(), block.targets.contiguous()
        else:
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
        self._weights = self._layout.pack(block.start)
        self._state = torch.zeros(len(block.start), program.num_states * self._layout.size)

    def _take(self, steps: range, threads: int, check_stop: Callable[[], None]) -> None:
        fields = self._active.nonzero().flatten().tolist()
        stop = threading.Event()
        with ThreadPoolExecutor(threads) as pool:
            try:
                while steps:
                    check_stop()
                    here, samples = self._next_samples(steps)
                    together = int(_TASK_WORK / (self._work * len(here)))
                    size = max(1, min(together, len(fields) // (4 * threads)))
                    pending: set[Future[None]] = {
                        pool.submit(self.fit_fields, fields[i : i + size], here, samples, stop)
                        for i in range(0, len(fields), size)
                    }
                    while pending:
                        check_stop()
                        done, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
                        for future in done:
                            future.result()
                    steps = range(here.stop, steps.stop)
            finally:
                stop.set()

    def _next_samples(self, steps: range) -> tuple[range, Tensor]:
        """Return the first of the steps, and their points if they are sampled."""
        if not self._program.is_sampled:
            return steps, torch.zeros(0, dtype=torch.int32)
        width = self._program.padded_points
        length = max(1, min(_TABLE_STEPS, _TABLE_BYTES // (4 * width)))
        first = steps.start // length * length
        table = _table(self._drawing, width, first, min(first + length, self._num_steps))
        here = range(steps.start, min(first + length, steps.stop))
        return here, table[here.start - first :]

    def fit_fields(
        self, fields: Sequence[int], steps: range, samples: Tensor, stop: threading.Event
    ) -> None:
        """Run some steps of some fields, one field after the other; leave early when asked to."""
        scratch = torch.zeros(self._program.scratch_size)
        launch = max(1, int(_LAUNCH_WORK / self._work))
        weights, state = _address_of(self._weights), _address_of(self._state)
        coords, targets = _address_of(self._coords), _address_of(self._targets)
        points, scalars = _address_of(samples), _address_of(self._scalars)
        for field in fields:
            for first in range(steps.start, steps.stop, launch):
                if stop.is_set():
                    return
                pointers = [
                    weights(field),
                    state(field),
                    scratch.data_ptr(),
                    coords(field),
                    targets(field),
                    self._factors.data_ptr(),
                    points(first - steps.start),
                    scalars(first),
                ]
                self._kernel(pointers, min(launch, steps.stop - first))

    def _current_rows(self) -> Tensor:
        rows: Tensor = self._layout.unpack(self._weights)
        return rows


@lru_cache(maxsize=_TABLES_KEPT)
def _table(sampling: Sampling, width: int, start: int, stop: int) -> Tensor:
    """Points of some steps, counted from 0, padded to ``[S, width]``; all fields share them."""
    samples = (sampling.points(step + 1).to(torch.int32) for step in range(start, stop))
    return _padded(torch.stack(list(samples)), width)


def _address_of(array: Tensor) -> Callable[[int], int]:
    """Return a function that says where an entry of axis 0 begins; a single one is everybody's.

    Launches may be short: views of tensors would take as long.
    """
    start = array.data_ptr()
    size = array.stride(0) * array.element_size() if len(array) > 1 else 0
    return lambda entry: start + entry * size


def _padded(values: Tensor, size: int) -> Tensor:
    """Repeat the first of axis 1 at its end until it is ``size`` long."""
    missing = size - values.shape[1]
    if not missing:
        return values.contiguous()
    return torch.cat([values, values[:, :1].expand(-1, missing, *values.shape[2:])], dim=1)
