"""A process that runs one contender, pinned to one core or on all of them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fitting.bench.cases import SEED, Case
from fitting.bench.contenders import contender_for
from fitting.bench.peak import measure_peak
from fitting.bench.report import Peak
from fitting.config import FitConfig
from fitting.engines import Block, reproducible_arithmetic
from fitting.executors import Serial, without_sigint
from fitting.fit import run_fit
from fitting.losses import MSE
from nefbench.errors import NefbenchError
from nefbench.fields import evaluate
from nefbench.metrics import psnr
from nefbench.seeding import random_words
from nefbench.signals import GridSignals, Split

USUAL_STEPS = FitConfig().num_steps
"""Steps for which an engine chooses its block: those of a fit, not those of a short timing."""
_PACE_STEPS = 10
_MEGABYTE = 2**20
_PATIENCE_S = 5.0
"""How long a process may take to leave in order."""


class WorkerError(NefbenchError):
    """What went wrong in a worker, in one line."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a contender computes.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        core: The only core it may use; all if None.
        threads: Cores that an engine may keep busy.
    """

    device: str
    core: int | None
    threads: int

    @property
    def environment(self) -> dict[str, str]:
        """Variables that libraries read when they are loaded."""
        variables = {"OMP_NUM_THREADS": "1"}
        if self.device == "cpu":
            variables["JAX_PLATFORMS"] = "cpu"
        else:
            variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if self.core is not None:
            variables["XLA_FLAGS"] = (
                "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            )
        return variables


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a contender is, about: enough to choose how many steps to time.

    Attributes:
        block_size: Fields that the contender fits at once.
        fs_per_s: Field-steps per second of a few steps of a block.
    """

    block_size: int
    fs_per_s: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """Whole fits, one after another: their field-steps, wall time and processor time."""

    field_steps: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """Whole blocks of a long fit.

    Attributes:
        fields: Fields that were fitted.
        seconds: Time they took.
        psnr_db: Of the first fields.
        peak_memory_mb: Most memory held on the GPU; 0 elsewhere.
    """

    fields: int
    seconds: float
    psnr_db: tuple[float, ...]
    peak_memory_mb: float


class Bench:
    """The methods that a worker answers to; everything runs in the worker's process."""

    def __init__(self, contender: str, place: Place) -> None:
        self._name = contender
        self._place = place

    def ready(self) -> None:
        """Answer once all libraries are loaded."""

    def peak(self) -> Peak:
        """Measure the peak where this worker runs."""
        return measure_peak(self._place.device, self._place.threads)

    def prepare(self, case: Case) -> float:
        """Return the seconds that compiling takes, or loading from the cache on disk."""
        problem = case.problem(USUAL_STEPS, self._place.device)
        contender = contender_for(self._name, problem)
        seconds, _ = self._timed(lambda: contender.prepare(problem))
        return seconds

    def check(self, case: Case, num_fields: int, num_steps: int) -> float:
        """Return the mean loss of the first fields after some steps."""
        block = case.block(num_fields, self._place.device)
        rows = self._fit(case, block, num_steps)
        problem = case.problem(num_steps, self._place.device)
        with torch.no_grad():
            values = evaluate(case.field, problem.spec, rows, problem.coords)
            return float(MSE().value(values, block.targets).mean())

    def pace(self, case: Case) -> Pace:
        """Warm up, then time a few steps of one block."""
        size = self._block_size(case)
        block = case.block(size, self._place.device)
        self._fit(case, block, 2)
        seconds, _ = self._timed(lambda: self._fit(case, block, _PACE_STEPS))
        return Pace(block_size=size, fs_per_s=size * _PACE_STEPS / seconds)

    def time(self, case: Case, num_fields: int | None, num_steps: int, least_s: float) -> Run:
        """Fit again and again until ``least_s`` seconds have passed, in whole fits.

        Args:
            case: What to fit.
            num_fields: Cut into the contender's blocks; one block if None.
            num_steps: Of every fit.
            least_s: Wall time.
        """
        size = self._block_size(case)
        whole = case.block(num_fields or size, self._place.device)
        blocks = [
            Block(start, target)
            for start, target in zip(
                whole.start.split(size), whole.targets.split(size), strict=True
            )
        ]
        count, wall, cpu = 0, 0.0, time.process_time()
        while wall < least_s:
            for block in blocks:
                seconds, _ = self._timed(functools.partial(self._fit, case, block, num_steps))
                wall += seconds
            count += len(whole.start) * num_steps
        return Run(field_steps=count, wall_s=wall, cpu_s=time.process_time() - cpu)

    def job(
        self, case: Case, num_fields: int, num_steps: int, seconds: float, quality_fields: int
    ) -> Job:
        """Fit as many whole blocks of a long fit as take about ``seconds``, one at least."""
        device = self._place.device
        size = min(self._block_size(case), num_fields)
        problem = case.problem(num_steps, device)
        block = case.block(size, device)
        self._fit(case, block, max(1, num_steps // 50))  # warm
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats(device)
        taken, rows = self._timed(lambda: self._fit(case, block, num_steps))
        blocks = min(-(-num_fields // size), max(1, int(seconds / taken)))
        for _ in range(blocks - 1):
            more, _ = self._timed(lambda: self._fit(case, block, num_steps))
            taken += more
        with torch.no_grad():
            rows, targets = rows[:quality_fields], block.targets[:quality_fields]
            low, high = targets.amin(1, keepdim=True), targets.amax(1, keepdim=True)
            values = evaluate(case.field, problem.spec, rows, problem.coords)
            quality = psnr((targets - low) / (high - low), (values - low) / (high - low))
        held = torch.cuda.max_memory_allocated(device) / _MEGABYTE if device != "cpu" else 0.0
        return Job(
            fields=blocks * size,
            seconds=taken,
            psnr_db=tuple(quality.tolist()),
            peak_memory_mb=held,
        )

    def memory(self, case: Case, num_fields: int) -> float:
        """Return the peak memory in MB of this process after ``run_fit`` of one step."""
        with tempfile.TemporaryDirectory() as folder:
            config = FitConfig(field=case.field, num_steps=1, engine=self._name, seed=SEED)  # type: ignore[arg-type]
            signals = drawn_signals(num_fields, case.side)
            run_fit(signals, config, Path(folder) / "out", executor=Serial())
        return peak_resident_mb()

    def _block_size(self, case: Case) -> int:
        problem = case.problem(USUAL_STEPS, self._place.device)
        return contender_for(self._name, problem).block_size(problem)

    def _fit(self, case: Case, block: Block, num_steps: int) -> Tensor:
        problem = case.problem(num_steps, self._place.device)
        contender = contender_for(self._name, problem)
        return contender.fit(problem, block, threads=self._place.threads)

    def _timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds between two quiet moments of the device, and the result."""
        if self._place.device == "cpu":
            begin = time.perf_counter()
            result = work()
            return time.perf_counter() - begin, result
        with torch.cuda.device(self._place.device):
            first = torch.cuda.Event(enable_timing=True)
            last = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            first.record()
            result = work()
            # Waits for streams that are not torch's own, as JAX's, before the last event.
            torch.cuda.synchronize()
            last.record()
            last.synchronize()
            return first.elapsed_time(last) / 1000, result


class Worker:
    """The main process's end of a worker; use as a context."""

    def __init__(self, contender: str, place: Place, caches: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, contender, place), daemon=True)
        environment = {
            **place.environment,
            "XDG_CACHE_HOME": str(caches),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
        }
        with _changed_environment(environment), without_sigint():
            self._process.start()
        theirs.close()
        self._is_idle = True

    def __enter__(self) -> Worker:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the process, whatever it is doing."""
        self._connection.close()
        if self._is_idle:  # it leaves by itself and tidies up
            self._process.join(_PATIENCE_S)
        self._process.terminate()
        self._process.join(_PATIENCE_S)
        self._process.kill()
        self._process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method of ``Bench`` in the worker.

        Raises:
            WorkerError: If it raised, or the process died.
        """
        self._is_idle = False
        try:
            self._connection.send((method, arguments))
            is_fine, result = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join()
            raise WorkerError(f"its process died (exit code {self._process.exitcode})") from error
        self._is_idle = True
        if not is_fine:
            raise WorkerError(result)
        return result


def serve(connection: Connection, contender: str, place: Place) -> None:
    """Answer calls until the main process is gone."""
    # Ctrl-C reaches the whole process group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # in order, with all exit handlers
    if place.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {place.core})
    bench = Bench(contender, place)
    with contextlib.suppress(EOFError, BrokenPipeError), reproducible_arithmetic():
        while True:
            method, arguments = connection.recv()
            connection.send(_answer(bench, method, arguments))


def _answer(bench: Bench, method: str, arguments: Sequence[Any]) -> tuple[bool, Any]:
    try:
        return True, getattr(bench, method)(*arguments)
    except Exception as error:  # a broken contender must not cost the others their numbers
        lines = str(error).split("\n")
        return False, f"{type(error).__name__}: {lines[0]}"[:200]


@dataclass(frozen=True)
class DrawnValues:
    """Noise images, made when they are read: only the fit takes memory."""

    count: int
    num_points: int

    def __len__(self) -> int:
        return self.count

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return values ``[n, Q, 1]`` in [0, 1]."""
        words = random_words(SEED, "bench/noise", list(positions), self.num_points)
        return torch.from_numpy(words.astype("float32") / 2**32)[..., None]


def drawn_signals(count: int, side: int) -> GridSignals:
    """Return signals that take no memory."""
    return GridSignals(
        name="noise",
        source="drawn",
        grid_shape=(side, side),
        values=DrawnValues(count, side**2),
        indices=torch.arange(count),
        splits=(Split("train", 0, count),),
        mean=(0.5,),
        std=(0.3,),
    )


def peak_resident_mb() -> float:
    """Return the most memory that this process held at any time, in MB."""
    try:
        # getrusage counts what the parent held when it started this process as well.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except OSError:
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (_MEGABYTE if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def _changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables that a process started here inherits; restore them afterwards."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
