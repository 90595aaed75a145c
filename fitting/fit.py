"""From signals to a neural dataset on disk: plan shards, fit them, write parts, keep the record."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fitting.config import FitConfig
from fitting.engines import choose_engine
from fitting.executors import Executor, Serial, ShardJob, count_cores
from fitting.inits import Meta
from fitting.plan import Shard, plan_shards
from fitting.record import FitRecord, engine_to_continue, open_record
from fitting.shard import problem_of
from fitting.starts import START_NAME, config_with_files, recorded_config
from nefbench.errors import ConfigError, Interrupted
from nefbench.signals import Signals
from nefbench.weights import NeuralDataset
from nefbench.weights.manifest import ConfigEntry, PartEntry, open_or_new_manifest
from nefbench.weights.parts import FieldRows, read_part, write_part


@dataclass(frozen=True)
class FitReport:
    """What one call did.

    Attributes:
        dataset: The neural dataset.
        num_fitted: Fields fitted by this call; the others were there already.
        seconds: Wall time of the fitting, without opening signals.
        num_steps: Optimizer steps per field, the mean where fields stop at a quality.
        prepare_seconds: Wall time of compiling before that; loading what was compiled before
            counts too.
        meta_seconds: Wall time of learning the start, or of copying it; next to none otherwise.
        start: File of the start, where it was learned.
    """

    dataset: NeuralDataset
    num_fitted: int
    seconds: float
    num_steps: float
    prepare_seconds: float
    meta_seconds: float = 0.0
    start: Path | None = None

    @property
    def fields_per_s(self) -> float:
        """Throughput of this call; 0 if nothing was left to fit."""
        return self.num_fitted / self.seconds if self.num_fitted else 0.0

    @property
    def field_steps_per_s(self) -> float:
        """Optimizer steps of single fields per second."""
        return self.fields_per_s * self.num_steps


def fit_dataset(
    signals: Signals, config: FitConfig, out: Path | str, *, executor: Executor | None = None
) -> NeuralDataset:
    """Fit one field per signal and return the neural dataset in folder ``out``.

    A call that was stopped continues where it was. See ``run_fit`` for all options.
    """
    return run_fit(signals, config, out, executor=executor).dataset


def run_fit(
    signals: Signals,
    config: FitConfig,
    out: Path | str,
    *,
    executor: Executor | None = None,
    device: str = "cpu",
    only: tuple[int, int] | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    on_meta: Callable[[int, int, float], None] = lambda *_: None,
) -> FitReport:
    """Fit one field per signal into a config of the neural dataset in folder ``out``.

    Finished parts are kept, damaged ones fitted again. The rows are a function of the signals and
    the config: not of the executor, of how often the work was stopped, or of what else is in the
    folder.

    Args:
        signals: What to fit.
        config: The recipe.
        out: Folder of the neural dataset; may hold other configs.
        executor: Where shards run; in this process if left out.
        device: ``cpu`` or ``cuda``.
        only: Fit these fields (a union of parts) again and nothing else.
        on_progress: Told ``(fields done, fields to do)`` in this call.
        on_meta: Told ``(outer steps done, outer steps, loss)`` while a start is learned, before
            the fitting.

    Raises:
        ConfigError: If the folder holds a config of this name made in another way, or begun with
            another engine.
        DatasetFormatError: If the folder is something else.
        SignalError: If signals hold unusable values.
        Interrupted: On Ctrl-C; finished parts are on disk.
    """
    series = {config.num_steps: Path(out)}
    return run_fit_series(
        signals, config, series, executor=executor, device=device, only=only,
        on_progress=on_progress, on_meta=on_meta,
    )[config.num_steps]  # fmt: skip


def run_fit_series(
    signals: Signals,
    config: FitConfig,
    folders: Mapping[int, Path],
    *,
    executor: Executor | None = None,
    device: str = "cpu",
    only: tuple[int, int] | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    on_meta: Callable[[int, int, float], None] = lambda *_: None,
) -> dict[int, FitReport]:
    """Fit once, and keep the fields after several numbers of steps: a neural dataset for each.

    A fit of 1,000 steps passes through all shorter ones. Every dataset holds the same bits as a
    fit of so many steps by itself and has the same record, so each can be continued alone.

    Args:
        signals: What to fit.
        config: The recipe; its ``num_steps`` counts for nothing here.
        folders: Number of steps to the folder of its neural dataset.
        executor: See ``run_fit``, as for all that follows.
        device: Where to compute.
        only: Fit these fields again and nothing else.
        on_progress: Told ``(fields done, fields to do)``.
        on_meta: Told of the learning of a start, which happens once.

    Returns:
        What the call did, by number of steps; times and throughput are those of the whole call.

    Raises:
        ConfigError: Besides what ``run_fit`` raises: if the shorter fits are not the beginnings of
            the longest, as where the schedule ends with the fit.
    """
    asked = {steps: dataclasses.replace(config, num_steps=steps) for steps in sorted(folders)}
    *_, longest = asked.values()
    refusal = why_no_series(config, list(asked))
    if refusal is not None:
        raise ConfigError(refusal)
    if len({folder.resolve() for folder in folders.values()}) < len(folders):
        raise ConfigError("every number of steps needs a folder of its own")
    planned = plan_shards(signals, config)
    records = _open_records(signals, asked, folders, planned, _chosen(planned, only), device)
    todo = _chosen(planned, only) or [
        shard for shard in planned if not all(record.has(shard) for record in records)
    ]
    for record in records:
        if todo:
            record.check_engine()
        record.keep()

    total = sum(shard.stop - shard.start for shard in todo)
    done = 0

    def count(fields: int) -> None:
        nonlocal done
        done += fields
        on_progress(done, total)

    meta_seconds = prepare_seconds = 0.0
    complete = records[-1].config
    if todo:
        begin = time.perf_counter()
        copies: tuple[Path, ...] = ()
        for record in records:
            complete = config_with_files(
                signals, asked[record.config.num_steps], record.config, record.place,
                device=device, threads=count_cores(), on_meta=on_meta, copies=copies,
            )  # fmt: skip
            copies += (record.place,)
        meta_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        problem = problem_of(signals, complete, device)
        choose_engine(complete.engine, problem).prepare(problem)
        prepare_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    stores = [partial(_store_part, r.folder, r.name, r.entry) for r in records]
    job = ShardJob(signals, complete, tuple(asked), device, partial(_store_series, stores))
    on_progress(0, total)
    try:
        for parts in (executor or Serial()).run(job, todo, count):
            for record, part in zip(records, parts, strict=True):
                record.keep(part)
    except KeyboardInterrupt as error:
        entry, folder = records[-1].entry, records[-1].folder
        raise Interrupted(
            f"interrupted; {entry.num_finished} of {entry.num_fields} fields are in {folder}: "
            f"the same command continues"
        ) from error
    seconds = time.perf_counter() - begin
    reports = {}
    for record in records:
        recipe = asked[record.config.num_steps]
        dataset = record.finish(changed=bool(todo))
        reports[recipe.num_steps] = FitReport(
            dataset=dataset,
            num_fitted=total,
            seconds=seconds,
            num_steps=_mean_steps(dataset, longest, todo),
            prepare_seconds=prepare_seconds,
            meta_seconds=meta_seconds,
            start=record.place / START_NAME if isinstance(recipe.init, Meta) else None,
        )
    return reports


def why_no_series(config: FitConfig, steps: Sequence[int]) -> str | None:
    """Say why the shorter fits are not the beginnings of the longest; None if they are."""
    *shorter, longest = sorted(steps)
    if shorter and config.until_psnr is not None:
        return "until_psnr: fields stop by themselves; give one number of steps"
    peak = config.optimizer.learning_rate
    rates = config.schedule.rates(peak, longest)
    for num_steps in shorter:
        if config.schedule.rates(peak, num_steps) != rates[:num_steps]:
            return (
                f"schedule: the learning rates of a fit of {num_steps:,} steps are not the first "
                f"of one of {longest:,}; set schedule.decay_steps, or fit one number of steps at a "
                f"time"
            )
    return None


def _open_records(
    signals: Signals,
    asked: Mapping[int, FitConfig],
    folders: Mapping[int, Path],
    planned: Sequence[Shard],
    forget: Sequence[Shard],
    device: str,
) -> list[FitRecord]:
    """Return the record of every number of steps; one engine, where possible the one that began."""
    recorded = {
        steps: recorded_config(signals, recipe, folders[steps] / recipe.config_name)
        for steps, recipe in asked.items()
    }
    manifests = {steps: open_or_new_manifest(folders[steps]) for steps in asked}
    problems = {s: problem_of(signals, recipe, device) for s, recipe in recorded.items()}
    begun = [engine_to_continue(manifests[steps], problems[steps]) for steps in asked]
    last = problems[max(asked)]
    engine = next(filter(None, begun), None) or choose_engine(last.config.engine, last)
    return [
        open_record(
            signals,
            recorded[steps],
            folders[steps],
            manifests[steps],
            planned,
            forget=forget,
            engine=engine,
            device=device,
        )
        for steps in asked
    ]


def _mean_steps(dataset: NeuralDataset, config: FitConfig, shards: Sequence[Shard]) -> float:
    if config.until_psnr is None or not shards:
        return config.num_steps
    fitted = {(shard.start, shard.stop) for shard in shards}
    parts = [part for part in dataset.entry.parts if (part.start, part.stop) in fitted]
    rows = [read_part(dataset.folder, dataset.name, dataset.entry, part) for part in parts]
    return float(torch.cat([r.provenance["num_steps"] for r in rows]).double().mean())


def _chosen(planned: Sequence[Shard], only: tuple[int, int] | None) -> list[Shard]:
    """Return the shards inside ``only``, or none if everything is wanted."""
    if only is None:
        return []
    chosen = [shard for shard in planned if only[0] <= shard.start and shard.stop <= only[1]]
    if not chosen or sum(shard.stop - shard.start for shard in chosen) != only[1] - only[0]:
        ranges = ", ".join(f"{shard.start}:{shard.stop}" for shard in planned)
        raise ConfigError(
            f"--only {only[0]}:{only[1]} is not a union of parts; the parts are {ranges}"
        )
    return chosen


def _store_series(
    stores: Sequence[Callable[[Shard, FieldRows], PartEntry]],
    shard: Shard,
    series: Sequence[FieldRows],
) -> list[PartEntry]:
    return [store(shard, rows) for store, rows in zip(stores, series, strict=True)]


def _store_part(
    folder: Path, name: str, entry: ConfigEntry, shard: Shard, rows: FieldRows
) -> PartEntry:
    return write_part(folder, name, entry, shard.split, shard.start, rows)
