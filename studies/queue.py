"""The queue of a study: trials wait in its storage until some worker takes them.

A grid's trials wait with all their parameters, those of a search with none: the sampler fills in
what is not given. A trial whose worker died is put back with the parameters that it had.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, Trial, TrialState

from studies.design import Search, StudyConfig, grid_params
from studies.results import ERROR
from studies.storage import sampler_of

WORKER, BEAT = "worker", "beat"
"""User attributes of a trial: who works on it, and a number that grows meanwhile."""
RETRY_OF, DEATHS = "retry_of", "deaths"
"""User attributes of a trial that was put back: the one before it, and the workers it has cost."""
SECONDS_BETWEEN_BEATS = 10.0
SECONDS_UNTIL_DEAD = 60.0
"""Without a beat for so long by the watcher's own clock, a worker on another machine is dead."""
_MOST_DEATHS = 3
"""A trial that has cost so many workers is not tried again."""
LOST = "its worker was killed or lost"
_SURPLUS = "surplus"
_FIXED = "fixed_params"
"""Optuna's own attribute of a trial that was put into the queue."""


def fill_queue(study: optuna.Study, config: StudyConfig) -> int:
    """Put what is missing into the queue; returns how many trials the study has to do in all."""
    known = [
        trial for trial in study.get_trials(deepcopy=False) if RETRY_OF not in trial.user_attrs
    ]
    if isinstance(config.design, Search):
        wanted: list[dict[str, Any]] = [{}] * config.design.num_trials
    else:
        wanted = list(grid_params(config))
    for params in wanted[len(known) :]:
        study.enqueue_trial(params)
    return len(wanted)


def take(study: optuna.Study, config: StudyConfig) -> Trial | None:
    """Take the next trial out of the queue; None if it is empty."""
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state == TrialState.WAITING for trial in trials):
        return None
    begun = sum(trial.state != TrialState.WAITING for trial in trials)
    study.sampler = sampler_of(config, begun)
    trial = study.ask()
    if _FIXED not in study.get_trials(deepcopy=False)[trial.number].system_attrs:
        trial.set_user_attr(ERROR, _SURPLUS)  # others emptied the queue meanwhile
        study.tell(trial, state=TrialState.FAIL)
        return None
    return trial


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Leave out what was put back, which another trial stands for, and what was one too many."""
    put_back = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.number not in put_back and trial.user_attrs.get(ERROR) != _SURPLUS
    ]


def put_back(study: optuna.Study, trial: FrozenTrial, *, is_death: bool) -> bool:
    """Close a trial under way and put it into the queue again; False if it is finished already.

    A trial that has cost three workers is closed for good.
    """
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, RuntimeError):  # another process did it
        return False
    deaths = trial.user_attrs.get(DEATHS, 0) + is_death
    if deaths < _MOST_DEATHS:
        params = trial.system_attrs.get(_FIXED) or trial.params
        study.enqueue_trial(params, user_attrs={RETRY_OF: trial.number, DEATHS: deaths})
    return True


def may_run_here(trial: FrozenTrial) -> bool:
    """Whether a trial under way is, or may be, that of a worker on this machine."""
    worker = trial.user_attrs.get(WORKER)
    return worker is None or worker["host"] == socket.gethostname()


@dataclass(frozen=True)
class Worker:
    """A process that runs trials; a lock tells on its machine whether it lives.

    Attributes:
        folder: Of the locks of the workers on this machine.
        key: Unlike that of any other.
    """

    folder: Path
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Hold the lock; the system releases it however this process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = _lock_of(self.folder, self.key)
        with FileLock(path):
            yield
        path.unlink(missing_ok=True)

    @contextmanager
    def working_on(self, trial: Trial) -> Iterator[None]:
        """Sign a trial and let it beat: other machines see that it is being worked on."""
        worker = {"key": self.key, "host": socket.gethostname(), "pid": os.getpid()}
        trial.set_user_attr(WORKER, worker)
        done = threading.Event()

        def beat() -> None:
            count = 0
            while not done.wait(SECONDS_BETWEEN_BEATS):
                count += 1
                trial.set_user_attr(BEAT, count)

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            done.set()
            heart.join()


class Watch:
    """Tells which trials under way have lost their worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[int, tuple[object, float]] = {}

    def put_back_lost(self, study: optuna.Study, *, is_death: bool = True) -> list[int]:
        """Put back trials whose worker is gone; returns their numbers.

        Args:
            study: The study.
            is_death: Whether the trial may be what killed it.
        """
        trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = [trial for trial in trials if self._is_lost(trial)]
        return [trial.number for trial in lost if put_back(study, trial, is_death=is_death)]

    def _is_lost(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(WORKER)
        if worker is not None and may_run_here(trial):
            path = _lock_of(self._folder, worker["key"])
            if path.exists():
                return _is_free(path)
        now = time.monotonic()
        beat = (worker and worker["key"], trial.user_attrs.get(BEAT))
        before, since = self._seen.get(trial.number, (None, now))
        if before != beat:
            self._seen[trial.number] = (beat, now)
            return False
        return now - since > SECONDS_UNTIL_DEAD


def _is_free(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _lock_of(folder: Path, key: str) -> Path:
    return folder / f"worker-{key}.lock"
