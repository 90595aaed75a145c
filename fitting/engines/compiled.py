"""The generic engine compiled: one optimizer step of a block as one function of flat tensors."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from fitting.config import EngineName
from fitting.engines.base import Block, FitProblem, Missing, Run, WholeFits
from fitting.engines.vmapped import loss_of, reproducible_arithmetic, step_points
from fitting.losses import LossConfig
from fitting.optimizers import OptimizerConfig, State
from nefbench.fields import FieldConfig
from nefbench.spec import ParamSpec

_LIVE_BYTES = {"cpu": 32 * 10**6, "cuda": 4 * 10**9}
"""Size of the hidden activations of a block that a step holds at once."""
_LIVE_ACTIVATIONS = 6
_SMALLEST_BLOCK = 16
"""So many float32 fill the widest vector register, so no loop over a block has a tail: a field's
numbers meet the same instructions wherever it stands."""
_LARGEST_BLOCK = {"cpu": 512, "cuda": 4096}
"""Larger ones gain nothing on a CPU, and shards are padded to whole blocks."""
_STEPS_BETWEEN_CHECKS = 20
_STEPS_KEPT = 64
"""Compiled steps that a process remembers."""
_OPTIONS: dict[str, Any] = {"cpp.threads": 1}
"""The code for a CPU starts no threads, whatever the settings and the environment say."""

Update = Callable[[Tensor, Tensor, State, Tensor, Tensor, Tensor], None]


class CompiledEngine(WholeFits):
    """``torch.compile`` of the generic engine: any field, where there is a C++ compiler.

    Inductor writes the element-wise work of a step as a few loops, so activations travel through
    memory less often. The first step of the first problem on a machine takes some ten seconds to
    compile, that of another problem two or three; the results are kept on disk.
    """

    name: EngineName = "compiled"
    uses_threads = False
    needs_full_blocks = False  # it pads them itself

    @property
    def signature(self) -> str:
        """Torch, which writes the code, and the instruction set that it writes for."""
        return f"torch-{torch.__version__}-{torch.backends.cpu.get_cpu_capability().lower()}"

    def why_not(self, problem: FitProblem) -> str | None:
        """Name what the machine lacks to compile; see ``Engine.why_not``."""
        if problem.coords.device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return Missing("Triton is not installed")
        return _missing_to_compile(os.environ.get("CXX"))

    def block_size(self, problem: FitProblem) -> int:
        """Return a power of two, at least 16, such that six activations fit into the cache.

        On a CPU that is 32 MB: 512 fields of 8x8 points and 32 of 28x28 at width 32. Measured
        with SIREN on one core of a server, half and double the size are equally fast.
        """
        device = problem.coords.device.type
        activation = 4 * problem.num_sampled * problem.config.field.hidden_dim
        fitting = _LIVE_BYTES[device] // (_LIVE_ACTIVATIONS * activation)
        power = 1 << max(fitting, 1).bit_length() - 1
        return min(_LARGEST_BLOCK[device], max(_SMALLEST_BLOCK, power))

    def prepare(self, problem: FitProblem) -> None:
        """Compile the step for blocks on the problem's points, or load it from disk."""
        with reproducible_arithmetic(), torch.no_grad():  # as in a fit: the code depends on it
            _compiled(
                _step_of(problem, self.block_size(problem), has_own_points=problem.has_own_points)
            )

    def start(self, problem: FitProblem, block: Block) -> Run:
        """Begin to fit one block; see ``Engine.start``.

        Inside, every block is cut and padded to ``block_size``, for which there is compiled code.
        """
        return _CompiledRun(problem, block, self.block_size(problem))


class _CompiledRun(Run):
    """Chunks of the size for which there is code; those without an active field are skipped."""

    def __init__(self, problem: FitProblem, block: Block, size: int) -> None:
        super().__init__(problem, block)
        optimizer, rates = problem.config.optimizer, enumerate(problem.rates(), start=1)
        table = torch.tensor([optimizer.scalars(step, rate) for step, rate in rates])
        self._scalars = table.to(block.start)
        self._size = size
        self._chunks = [
            _Chunk(problem, _cut(block, first, size), size)
            for first in range(0, len(block.start), size)
        ]

    @torch.no_grad()
    def _take(self, steps: range, threads: int, check_stop: Callable[[], None]) -> None:
        del threads  # one: processes share the work
        for chunk, active in zip(self._chunks, self._active.split(self._size), strict=True):
            if not active.any():
                continue
            for step in range(steps.start + 1, steps.stop + 1):
                if step % _STEPS_BETWEEN_CHECKS == 0:
                    check_stop()
                chunk.take(step, self._scalars[step - 1])

    def _current_rows(self) -> Tensor:
        return torch.cat([chunk.rows for chunk in self._chunks])[: len(self._active)]


class _Chunk:
    """As many fields as the code is for: those of a block, and copies of the first of them."""

    def __init__(self, problem: FitProblem, block: Block, size: int) -> None:
        self._problem, self._block, self._size = problem, block, size
        # Where steps draw from many points, only what they draw is padded.
        self._all_points = None if problem.is_sampled else self._points(step=1)
        self._start = self._padded(block.start)
        self.rows, self._state = self._start.clone(), problem.config.optimizer.start(self._start)
        with torch.no_grad():
            code = _step_of(problem, size, has_own_points=block.coords is not None)
            self._update = _compiled(code)

    def take(self, step: int, scalars: Tensor) -> None:
        """Run one step, counted from 1."""
        points = self._all_points or self._points(step)
        self._update(self.rows, self._start, self._state, scalars, *points)

    def _points(self, step: int) -> tuple[Tensor, Tensor]:
        coords, targets = step_points(self._problem, self._block, step)
        if self._block.coords is not None:
            coords = self._padded(coords)
        return coords, self._padded(targets)

    def _padded(self, values: Tensor) -> Tensor:
        """Return a copy with the first field at its end until there are enough."""
        copies = values[:1].expand(self._size - len(values), *values.shape[1:])
        return torch.cat([values, copies])


def _cut(block: Block, first: int, size: int) -> Block:
    """Return up to ``size`` fields from ``first`` on."""
    places = slice(first, first + size)
    coords = None if block.coords is None else block.coords[places]
    return Block(block.start[places], block.targets[places], coords)


@dataclass(frozen=True)
class _Step:
    """What the code of a step depends on: problems that share it share the code."""

    field: FieldConfig
    spec: ParamSpec
    loss: LossConfig
    optimizer: OptimizerConfig
    block_size: int
    coords_shape: tuple[int, ...]
    out_dim: int
    device: torch.device


def _step_of(problem: FitProblem, block_size: int, *, has_own_points: bool) -> _Step:
    config = problem.config
    shape = (problem.num_sampled, problem.coords.shape[1])
    return _Step(
        field=config.field,
        spec=problem.spec,
        loss=problem.loss,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=1.0),  # one of the scalars
        block_size=block_size,
        coords_shape=(block_size, *shape) if has_own_points else shape,
        out_dim=problem.out_dim,
        device=problem.coords.device,
    )


@functools.lru_cache(maxsize=_STEPS_KEPT)
def _compiled(step: _Step) -> Update:
    """Compile a step by running it once on zeros; the rules of arithmetic are the caller's."""
    mask = step.spec.trainable_mask()
    mask = None if mask is None else mask.to(step.device)
    in_dims = (0, 0 if len(step.coords_shape) == 3 else None, 0)
    gradient_of = vmap(grad(loss_of(step.field, step.spec, step.loss)), in_dims=in_dims)

    def update(
        rows: Tensor, start: Tensor, state: State, scalars: Tensor, coords: Tensor, targets: Tensor
    ) -> None:
        gradient = gradient_of(rows, coords, targets)
        step.optimizer.update(rows, gradient, state, scalars.unbind())
        if mask is not None:  # undoes weight decay as well
            rows.copy_(torch.where(mask, rows, start))

    compiled: Update = torch.compile(
        _with_own_code(update), fullgraph=True, dynamic=False, options=_OPTIONS
    )
    rows = torch.zeros(step.block_size, step.spec.num_params, device=step.device)
    state = step.optimizer.start(rows)
    scalars = torch.tensor(step.optimizer.scalars(1, step.optimizer.learning_rate)).to(rows)
    coords = torch.zeros(step.coords_shape, device=step.device)
    num_points = step.coords_shape[-2]
    targets = torch.zeros(step.block_size, num_points, step.out_dim, device=step.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecated functions, advice on TF32
        compiled(rows, rows.clone(), state, scalars, coords, targets)
    return compiled


def _with_own_code(closure: Any) -> Any:
    """Return the same closure with a code object of its own.

    Dynamo keeps what it compiled by code object and gives up at the ninth version of one; all
    closures made in one place share theirs.
    """
    code = closure.__code__.replace()
    return types.FunctionType(
        code, closure.__globals__, closure.__name__, None, closure.__closure__
    )


@functools.cache
def _missing_to_compile(compiler: str | None) -> Missing | None:
    """Try, once per process, the compiler that inductor would take on an empty extension module."""
    if sys.platform == "win32":
        return Missing("on Windows it is not supported")
    compiler = compiler or ("clang++" if sys.platform == "darwin" else "g++")
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]  # there torch brings its own
    headers = "#include <Python.h>\n" + "#include <omp.h>\n" * len(openmp)
    command = [
        compiler, "-x", "c++", "-fsyntax-only", *openmp, f"-I{sysconfig.get_path('include')}", "-",
    ]  # fmt: skip
    try:
        subprocess.run(command, input=headers, text=True, capture_output=True, check=True)
    except OSError:
        return Missing(f"there is no C++ compiler ({compiler})")
    except subprocess.CalledProcessError:
        return Missing(f"the C++ compiler ({compiler}) lacks the headers of Python or OpenMP")
    return None
