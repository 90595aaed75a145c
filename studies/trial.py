"""One trial: a combination is chosen, fitted, measured, classified, and what was found is kept."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from optuna import Trial, TrialPruned

from classifiers import ClassifierReport
from fitting import Executor
from nefbench.signals import Signals, SignalsConfig
from studies.design import Objective, Point, Search, StudyConfig, steps_of, suggest_point
from studies.results import COST, RESULT, TrialCost, TrialResult, plain, result_of
from studies.store import Store

What = Callable[[str, int, int], None]
"""Told ``(what is being done, how much is done, how much there is)``."""


@dataclass(frozen=True)
class Setting:
    """What all trials of a worker share.

    Attributes:
        config: The study.
        store: Where datasets and trainings are kept.
        executor: Where shards run.
        device: Where to compute.
        on_progress: Told what the trial is doing.
    """

    config: StudyConfig
    store: Store
    executor: Executor | None = None
    device: str = "cpu"
    on_progress: What = lambda *_: None


def run_trial(trial: Trial, setting: Setting) -> tuple[float, ...]:
    """Run a trial and keep its result with it.

    Training uses one thread: its bits depend on their number, those of a fit do not.

    Returns:
        The objectives.

    Raises:
        TrialPruned: If the training was not worth finishing.
        NefbenchError: If the combination cannot be fitted or classified.
    """
    config, store = setting.config, setting.store
    point = suggest_point(trial, config)
    signals = _opened(config.sources[point.source])
    begin, begin_cpu = time.perf_counter(), time.process_time()
    key, fitted = store.fit(
        signals, point.fit, steps=steps_of(config, point.field), executor=setting.executor,
        device=setting.device, on_progress=lambda *done: setting.on_progress("fit", *done),
    )  # fmt: skip
    fit_seconds = time.perf_counter() - begin
    measures = store.measures(key)
    begin = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training, report = _train(trial, setting, point, key)
    finally:
        torch.set_num_threads(threads)
    result = result_of(
        names=(point.source, point.field, point.classifier), fit=point.fit,
        keys=(key, training), measures=measures, report=report,
    )  # fmt: skip
    fit_seconds = fit_seconds if fitted else 0.0
    train_seconds = time.perf_counter() - begin
    cost = TrialCost(
        fit_seconds=fit_seconds,
        train_seconds=train_seconds,
        cpu_seconds=time.process_time() - begin_cpu,
        gpu_seconds=fit_seconds + train_seconds if setting.device != "cpu" else 0.0,
    )
    trial.set_user_attr(RESULT, plain(result))
    trial.set_user_attr(COST, plain(cost))
    return tuple(objective_of(result, name) for name in config.design.objectives)


def objective_of(result: TrialResult, name: Objective) -> float:
    """Return what a search maximises; a dataset without any quality has none, NaN."""
    if name == "validation_accuracy":
        return result.validation_accuracy
    quality = result.measures.quality
    return float("nan") if quality is None else quality


def _train(trial: Trial, setting: Setting, point: Point, key: str) -> tuple[str, ClassifierReport]:
    design = setting.config.design
    pruning = isinstance(design, Search) and design.pruning
    num_epochs = point.training.num_epochs * len(point.training.seeds)

    def follow(seed_index: int, epoch: int, accuracy: float) -> None:
        done = seed_index * point.training.num_epochs + epoch
        setting.on_progress("train", done, num_epochs)
        if pruning and seed_index == 0:
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise TrialPruned(f"validation accuracy {accuracy:.3f} after epoch {epoch}")

    return setting.store.train(key, point.training, device=setting.device, on_epoch=follow)


@functools.lru_cache(maxsize=4)
def _opened(source: SignalsConfig) -> Signals:
    return source.open()
