"""Run a study: fill its queue, let workers empty it, collect what they found."""

from __future__ import annotations

import logging
import math
import multiprocessing
import re
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from fitting.executors import Executor, exit_with_parent, without_sigint
from nefbench import files
from nefbench.energy import EnergyMeter
from nefbench.errors import ConfigError, Interrupted, NefbenchError
from studies.design import StudyConfig
from studies.queue import (
    LOST,
    Watch,
    Worker,
    counted,
    fill_queue,
    may_run_here,
    put_back,
    take,
)
from studies.results import ERROR, RunCost, TrialResult, keep_run, results_of
from studies.storage import JOURNAL_NAME, open_storage, open_study
from studies.store import KEY_DIGITS, Store
from studies.trial import Setting, What, run_trial

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_KEY = re.compile(rf"\b[0-9a-f]{{{KEY_DIGITS}}}\b")
_MOST_DEATHS = 20
"""Worker processes that may be killed before the study gives up."""

OnTrials = Callable[[int, int, int], None]
"""Told ``(trials finished, trials in all, trials failed)``."""


@dataclass(frozen=True)
class StudyReport:
    """State of a study after one call.

    Attributes:
        config: The study.
        results: Of all finished trials, ordered by what was done.
        num_trials: In all.
        num_pruned: Stopped because they were not worth finishing.
        causes: What went wrong, and in how many trials.
        seconds: Wall time of this call.
    """

    config: StudyConfig
    results: tuple[TrialResult, ...]
    num_trials: int
    num_pruned: int
    causes: dict[str, int]
    seconds: float


def run_study(
    config: StudyConfig,
    out: Path | str,
    *,
    store: Path | str | None = None,
    storage: str | None = None,
    workers: int = 1,
    device: str = "cpu",
    executor: Executor | None = None,
    on_trials: OnTrials = lambda *_: None,
    on_progress: What = lambda *_: None,
) -> StudyReport:
    """Run what is left of a study.

    The same call continues a study that was stopped, and helps one that runs elsewhere: on other
    machines with the same storage, each with a ``store`` of its own or a shared one.

    Args:
        config: The study.
        out: Folder of the study.
        store: Folder of datasets and trainings, shared with other studies; ``out/store`` if None.
        storage: Path of a journal or address of a database; a journal in ``out`` if None.
        workers: Processes; with one, trials run in this process.
        device: Where to compute.
        executor: Where shards run, with one worker.
        on_trials: Told of finished trials.
        on_progress: Told what the trial of the only worker is doing.

    Raises:
        ConfigError: If the storage holds another study, or one begun by other code.
        SignalError: If a source cannot be opened.
        Interrupted: On Ctrl-C; what was finished is kept.
    """
    begin = time.perf_counter()
    folder = Path(out)
    place = storage or str(folder / JOURNAL_NAME)
    home = Path(store) if store is not None else folder / "store"
    if home.exists() and not home.is_dir():
        raise ConfigError(f"the store {home} is no folder; choose another with --store")
    for source in config.sources.values():
        source.open()
    meter = EnergyMeter()
    study = open_study(config, open_storage(place))
    total = fill_queue(study, config)
    watch = Watch(folder / "workers")
    count = _Count(study, total, on_trials, meter)
    watch.put_back_lost(study)
    count.tell()
    has_work = bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    job = _Job(config, folder, place, home, device)
    try:
        while True:
            if workers == 1:
                setting = Setting(config, Store(home), executor, device, on_progress)
                job.work(study, setting, watch, count.tell)
            else:
                _supervise(job, study, watch, workers, count.tell)
            if not _wait_for_neighbours(study, watch, count.tell):
                break
    except KeyboardInterrupt as error:
        watch.put_back_lost(study, is_death=False)
        raise Interrupted(
            f"interrupted; {count.finished} of {total} trials are finished: the same command "
            f"continues"
        ) from error
    finally:
        meter.read()
        seconds = time.perf_counter() - begin
        if has_work:
            host = socket.gethostname()
            keep_run(study, RunCost(
                host=host, device=device, workers=workers, seconds=seconds, joules=meter.joules
            ))  # fmt: skip
    return report_of(study, config, seconds=seconds)


def report_of(study: optuna.Study, config: StudyConfig, *, seconds: float = 0.0) -> StudyReport:
    """Collect what is known of a study."""
    trials = counted(study.get_trials(deepcopy=False))
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    # A cause may name the dataset that it struck: what it is called is no cause of its own.
    causes = Counter(_KEY.sub("…", str(t.user_attrs.get(ERROR, LOST))) for t in failed)
    return StudyReport(
        config=config,
        results=tuple(results_of(trials)),
        num_trials=len(trials),
        num_pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        causes=dict(causes.most_common()),
        seconds=seconds,
    )


class _Count:
    """Counts finished trials in the storage, and energy meanwhile."""

    def __init__(
        self, study: optuna.Study, total: int, on_trials: OnTrials, meter: EnergyMeter
    ) -> None:
        self._study, self._total, self._on_trials = study, total, on_trials
        self._meter = meter
        self.finished = 0

    def tell(self) -> None:
        self._meter.read()
        trials = counted(self._study.get_trials(deepcopy=False))
        states = Counter(trial.state for trial in trials)
        self.finished = states[TrialState.COMPLETE] + states[TrialState.PRUNED]
        self._on_trials(self.finished, self._total, states[TrialState.FAIL])


@dataclass(frozen=True)
class _Job:
    """What a worker process needs; pickled."""

    config: StudyConfig
    folder: Path
    place: str
    store: Path
    device: str

    def work(
        self,
        study: optuna.Study,
        setting: Setting,
        watch: Watch,
        on_trial: Callable[[], None] = lambda: None,
    ) -> None:
        """Run trials until the queue is empty."""
        worker = Worker(self.folder / "workers")
        with worker.alive():
            while (trial := take(study, self.config)) is not None:
                try:
                    with worker.working_on(trial):
                        outcome = self._run(setting, trial)
                except KeyboardInterrupt:
                    put_back(study, study.get_trials()[trial.number], is_death=False)
                    raise
                _close(study, trial, outcome)
                watch.put_back_lost(study)
                on_trial()

    def _run(self, setting: Setting, trial: Trial) -> tuple[float, ...] | TrialState | str:
        """Return the objectives, PRUNED, or what went wrong."""
        try:
            values = run_trial(trial, setting)
        except optuna.TrialPruned:
            return TrialState.PRUNED
        except Interrupted as error:
            raise KeyboardInterrupt from error
        except NefbenchError as error:
            return str(error)
        except Exception as error:  # a fault of ours or of the machine: told, not the end
            path = self.folder / "failures" / f"trial-{trial.number:05d}.txt"
            files.write_text(path, traceback.format_exc())
            return f"{type(error).__name__}: {error}".splitlines()[0]
        if not all(map(math.isfinite, values)):
            return "no field has a finite quality"
        return values


def _close(
    study: optuna.Study, trial: Trial, outcome: tuple[float, ...] | TrialState | str
) -> None:
    """Record how a trial ended; nothing if others took it for lost and put it back."""
    try:
        if isinstance(outcome, str):
            logger.warning("trial %d failed: %s", trial.number, outcome)
            trial.set_user_attr(ERROR, outcome)
            study.tell(trial, state=TrialState.FAIL)
        elif isinstance(outcome, TrialState):
            study.tell(trial, state=outcome)
        else:
            study.tell(trial, list(outcome))
    except (ValueError, RuntimeError) as error:
        logger.warning("trial %d: %s", trial.number, error)


def _wait_for_neighbours(study: optuna.Study, watch: Watch, on_trials: Callable[[], None]) -> bool:
    """Wait for trials that other processes of this machine run, or have left behind.

    Returns:
        Whether there is work again: some were left behind.
    """
    while True:
        watch.put_back_lost(study)
        on_trials()
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not any(may_run_here(trial) for trial in running):
            return False
        time.sleep(_POLL_SECONDS)


def _supervise(
    job: _Job, study: optuna.Study, watch: Watch, count: int, on_trials: Callable[[], None]
) -> None:
    """Keep worker processes busy until nothing waits; replace those that were killed."""
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    deaths = 0
    try:
        while True:
            ended = [process for process in processes if not process.is_alive()]
            processes = [process for process in processes if process.is_alive()]
            killed = [process for process in ended if process.exitcode != 0]
            deaths += len(killed)
            if killed:
                watch.put_back_lost(study)
            if deaths > _MOST_DEATHS:
                raise NefbenchError(
                    f"{deaths} worker processes were killed, perhaps for want of memory; finished "
                    f"trials are kept: run the same command again with fewer --workers"
                )
            waiting = len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
            for _ in range(min(count - len(processes), waiting)):
                with without_sigint():
                    process = context.Process(target=_work_in_process, args=(job,))
                    process.start()
                processes.append(process)
            on_trials()
            if not processes:
                return
            time.sleep(_POLL_SECONDS)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _work_in_process(job: _Job) -> None:
    # Ctrl-C reaches the whole process group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    threading.Thread(target=exit_with_parent, daemon=True).start()
    from fitting import Serial

    study = open_study(job.config, open_storage(job.place))
    setting = Setting(job.config, Store(job.store), Serial(threads=1), job.device)
    job.work(study, setting, Watch(job.folder / "workers"))
