"""Run shards one after another in this process, or side by side in worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from fitting.config import FitConfig
from fitting.engines import FitProblem, choose_engine
from fitting.plan import Shard
from fitting.shard import fit_shard_series, problem_of
from nefbench.errors import ConfigError, Interrupted, NefbenchError
from nefbench.signals import Signals
from nefbench.weights.parts import FieldRows

_POLL_SECONDS = 0.2
_WORK_WORTH_STARTING_WORKERS = 3e10
"""Products of points and weights, some 10 s: workers take seconds to start."""


@dataclass(frozen=True)
class ShardJob:
    """What every worker needs; pickled once per worker.

    Attributes:
        signals: What to fit.
        config: The recipe.
        steps: Numbers of steps after which rows are kept, ascending; the last is the recipe's.
        device: Where to compute.
        store: Called in the worker with a finished shard, its rows by ``steps``; what it returns
            travels back.
    """

    signals: Signals
    config: FitConfig
    steps: tuple[int, ...]
    device: str
    store: Callable[[Shard, tuple[FieldRows, ...]], Any]

    @property
    def problem(self) -> FitProblem:
        """What all shards have in common."""
        return problem_of(self.signals, self.config, self.device)

    def run(
        self,
        shard: Shard,
        threads: int,
        on_fields: Callable[[int], None],
        check_stop: Callable[[], None] = lambda: None,
    ) -> Any:
        """Fit a shard on that many cores and store it."""
        series = fit_shard_series(
            self.signals,
            self.config,
            shard,
            self.steps,
            device=self.device,
            threads=threads,
            on_fields=on_fields,
            check_stop=check_stop,
        )
        return self.store(shard, series)


class Executor(Protocol):
    """Runs shards; the results are the same whichever executor runs them."""

    def run(
        self, job: ShardJob, shards: Sequence[Shard], on_fields: Callable[[int], None]
    ) -> Iterator[Any]:
        """Yield what ``job.store`` returned for every shard, in order of completion."""


@dataclass(frozen=True)
class Serial:
    """One shard after another in this process; an engine that can uses several cores.

    Attributes:
        threads: Most cores; all that this process may use if None.
    """

    threads: int | None = None

    def run(
        self, job: ShardJob, shards: Sequence[Shard], on_fields: Callable[[int], None]
    ) -> Iterator[Any]:
        """Yield every shard's result in order."""
        for shard in shards:
            yield job.run(shard, self.threads or count_cores(), on_fields)


@dataclass(frozen=True)
class Processes:
    """Shards side by side in worker processes of this machine.

    Attributes:
        count: Worker processes.
    """

    count: int

    def run(
        self, job: ShardJob, shards: Sequence[Shard], on_fields: Callable[[int], None]
    ) -> Iterator[Any]:
        """Yield every shard's result in order of completion.

        Raises:
            NefbenchError: If a worker was killed from outside.
        """
        if not shards:
            return
        context = multiprocessing.get_context("spawn")
        stop, finished = context.Event(), context.Value("q", 0)
        reported = 0
        pool = ProcessPoolExecutor(
            min(self.count, len(shards)), context, _start_worker, (job, stop, finished)
        )
        try:
            with without_sigint():  # workers start here and inherit it until they are ready
                pending = {pool.submit(_run_in_worker, shard) for shard in shards}
            while pending:
                done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                so_far = finished.value  # once: workers go on counting meanwhile
                on_fields(so_far - reported)
                reported = so_far
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise NefbenchError(
                "a worker process was killed, perhaps for want of memory; finished parts are "
                "saved: run the same command again, with fewer workers if it happens again"
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Automatic:
    """This process where its engine keeps all cores busy, else a process per core where it pays."""

    def run(
        self, job: ShardJob, shards: Sequence[Shard], on_fields: Callable[[int], None]
    ) -> Iterator[Any]:
        """Yield what the chosen executor yields."""
        return self.choose(job, shards).run(job, shards, on_fields)

    def choose(self, job: ShardJob, shards: Sequence[Shard]) -> Executor:
        """Return the executor for this work."""
        problem, cores = job.problem, count_cores()
        alone = choose_engine(job.config.engine, problem).uses_threads or job.device != "cpu"
        num_fields = sum(shard.stop - shard.start for shard in shards)
        per_step = problem.num_sampled * problem.spec.num_params
        work = float(num_fields * job.config.num_steps * per_step)
        if alone or cores == 1 or work < _WORK_WORTH_STARTING_WORKERS:
            return Serial()
        return Processes(cores)


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_executor(text: str) -> Executor:
    """Read ``auto``, ``serial`` or ``processes:N``.

    Raises:
        ConfigError: On anything else.
    """
    if text in ("auto", "serial"):
        return Automatic() if text == "auto" else Serial()
    match = re.fullmatch(r"processes:([1-9]\d*)", text)
    if match is None:
        raise ConfigError(f"executor: expected 'auto', 'serial' or 'processes:N' (got {text!r})")
    return Processes(int(match[1]))


@contextlib.contextmanager
def without_sigint() -> Iterator[None]:
    """Hold Ctrl-C back, where the system can: a worker that is starting would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """State of a worker process, set once when it starts."""

    job: ShardJob
    stop: Any
    finished: Any

    @classmethod
    def check_stop(cls) -> None:
        if cls.stop.is_set():
            raise Interrupted("stopped by the main process")

    @classmethod
    def on_fields(cls, count: int) -> None:
        with cls.finished.get_lock():
            cls.finished.value += count


def _start_worker(job: ShardJob, stop: Any, finished: Any) -> None:
    # Ctrl-C reaches the whole process group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    _Worker.job, _Worker.stop, _Worker.finished = job, stop, finished


def exit_with_parent() -> None:
    """End this process when the main one is gone; a pool's workers would wait for it for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker"
    parent.join()
    os._exit(1)


def _run_in_worker(shard: Shard) -> Any:
    return _Worker.job.run(shard, 1, _Worker.on_fields, _Worker.check_stop)
