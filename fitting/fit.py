"""From signals to a neural dataset on disk: plan shards, fit them, write parts, keep the record."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fitting.config import FitConfig
from fitting.engines import ENGINES, Engine, FitProblem, choose_engine
from fitting.executors import Executor, Serial, ShardJob, count_cores
from fitting.inits import Meta
from fitting.plan import Shard, field_splits, plan_shards
from fitting.quality import metric_names
from fitting.shard import problem_of
from fitting.starts import START_NAME, config_with_files, recorded_config
from nefbench.config import config_from_mapping, config_to_mapping, differing_keys, digest
from nefbench.errors import ConfigError, DatasetFormatError, Interrupted
from nefbench.hub import write_card
from nefbench.seeding import GENERATOR
from nefbench.signals import GridSignals, ShapeSignals, Signals
from nefbench.weights import Manifest, NeuralDataset, write_manifest
from nefbench.weights.manifest import (
    SHAPE_COORDINATES,
    ConfigEntry,
    PartEntry,
    SignalsEntry,
    open_or_new_manifest,
)
from nefbench.weights.parts import FieldRows, adopt_part, read_part, write_part
from nefbench.weights.statistics import summarise_dataset

logger = logging.getLogger(__name__)


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
    folder = Path(out)
    name = config.config_name
    manifest = open_or_new_manifest(folder)
    asked, config = config, recorded_config(signals, config, folder / name)
    planned = plan_shards(signals, config)
    problem = problem_of(signals, config, device)
    engine = _engine_to_continue(manifest, name, problem) or choose_engine(config.engine, problem)
    config = dataclasses.replace(config, engine=engine.name)
    new = _new_entry(signals, config, engine, device)
    entry = _matching_entry(manifest, name, new, folder)
    entry = _with_finished_parts(folder, name, entry, planned, forget=_chosen(planned, only))
    present = {(part.start, part.stop) for part in entry.parts}
    todo = _chosen(planned, only) or [s for s in planned if (s.start, s.stop) not in present]
    if todo and entry.engine != new.engine:
        raise ConfigError(
            f"{folder}: config {name!r} was begun with engine {entry.engine!r}, this is "
            f"{new.engine!r}, which rounds differently; finish it as begun, or choose another --out"
        )
    manifest = manifest.with_config(name, entry)
    write_manifest(folder, manifest)

    total = sum(shard.stop - shard.start for shard in todo)
    done = 0

    def count(fields: int) -> None:
        nonlocal done
        done += fields
        on_progress(done, total)

    meta_seconds = prepare_seconds = 0.0
    if todo:
        begin = time.perf_counter()
        config = config_with_files(signals, asked, config, folder / name, device=device,
                                   threads=count_cores(), on_meta=on_meta)  # fmt: skip
        meta_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        engine.prepare(problem_of(signals, config, device))
        prepare_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    store = partial(_store_part, folder, name, entry)
    job = ShardJob(signals, config, device, store)
    on_progress(0, total)
    try:
        for part in (executor or Serial()).run(job, todo, count):
            entry = dataclasses.replace(entry, parts=_insert(entry.parts, part))
            manifest = manifest.with_config(name, entry)
            write_manifest(folder, manifest)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; {entry.num_finished} of {entry.num_fields} fields are in {folder}: "
            f"the same command continues"
        ) from error
    seconds = time.perf_counter() - begin
    if entry.is_complete and (todo or not entry.summary):
        entry = summarise_dataset(NeuralDataset(folder, name, entry))
        manifest = manifest.with_config(name, entry)
        write_manifest(folder, manifest)
    write_card(folder, manifest)
    dataset = NeuralDataset(folder, name, entry)
    return FitReport(
        dataset=dataset,
        num_fitted=total,
        seconds=seconds,
        num_steps=_mean_steps(dataset, asked, todo),
        prepare_seconds=prepare_seconds,
        meta_seconds=meta_seconds,
        start=folder / name / START_NAME if isinstance(asked.init, Meta) else None,
    )


def _mean_steps(dataset: NeuralDataset, config: FitConfig, shards: Sequence[Shard]) -> float:
    if config.until_psnr is None or not shards:
        return config.num_steps
    fitted = {(shard.start, shard.stop) for shard in shards}
    parts = [part for part in dataset.entry.parts if (part.start, part.stop) in fitted]
    rows = [read_part(dataset.folder, dataset.name, dataset.entry, part) for part in parts]
    return float(torch.cat([r.provenance["num_steps"] for r in rows]).double().mean())


def _engine_to_continue(manifest: Manifest, name: str, problem: FitProblem) -> Engine | None:
    """Return the engine that began a stored config, if any may be taken and it can go on."""
    stored = manifest.configs.get(name)
    if problem.config.engine != "auto" or stored is None or not stored.parts:
        return None
    begun_by = stored.engine.split(" ")[0]
    able = (engine for engine in ENGINES if engine.why_not(problem) is None)
    return next((engine for engine in able if engine.name == begun_by), None)


def _new_entry(signals: Signals, config: FitConfig, engine: Engine, device: str) -> ConfigEntry:
    # The engine is no part of what was asked for: another one gives the same fields up to rounding.
    fit = {key: value for key, value in config_to_mapping(config).items() if key != "engine"}
    described = SignalsEntry(
        name=signals.name,
        source=signals.source,
        fingerprint=signals.fingerprint,
        licence=signals.licence,
        mean=signals.mean,
        std=signals.std,
        class_names=signals.class_names,
        config=None if signals.config is None else dict(signals.config),
        **_domain(signals),
    )
    in_dim, out_dim = signals.in_dim, signals.num_channels
    return ConfigEntry(
        field=config.field,
        in_dim=in_dim,
        out_dim=out_dim,
        tensors=config.field.spec(in_dim, out_dim).layout,
        signals=described,
        splits=field_splits(signals, config),
        fit=fit,
        digest=digest({"fit": fit, "signals": described.identity()}),
        engine=f"{engine.name} {torch.device(device).type} {engine.signature}",
        generator=GENERATOR,
        metrics=metric_names(signals),
        provenance=("view", "num_steps"),
        properties=tuple(signals.properties),
    )


def _domain(signals: Signals) -> dict[str, Any]:
    """What the manifest says of where fields live and of what they give."""
    if isinstance(signals, GridSignals):
        return {"grid_shape": signals.grid_shape, "value_range": signals.value_range}
    assert isinstance(signals, ShapeSignals)
    return {"grid_shape": (), "coordinates": SHAPE_COORDINATES, "output": signals.quantity}


def _matching_entry(manifest: Manifest, name: str, new: ConfigEntry, folder: Path) -> ConfigEntry:
    """Return the stored entry if it was made in the same way, or the new one if there is none.

    An entry without a single part, left by a run that failed at once, does not count.
    """
    stored = manifest.configs.get(name)
    if stored is None or not (stored.parts or any((folder / name).rglob("*.parquet"))):
        return new
    if stored.digest == new.digest:
        return stored
    differences = differing_keys(
        {"fit": _with_defaults(stored.fit), "signals": stored.signals.identity()},
        {"fit": new.fit, "signals": new.signals.identity()},
    )
    if not differences:  # 1 and 1.0 have different digests
        return stored
    listed = "; ".join(
        f"{key.removeprefix('fit.')} = {there!r} there, {here!r} here"
        for key, there, here in differences
    )
    raise ConfigError(
        f"{folder} already holds config {name!r} made with other settings ({listed}); "
        f"choose another --out, or another name with --set name=…"
    )


def _with_defaults(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the keys that older versions did not have."""
    try:
        filled = config_to_mapping(config_from_mapping(FitConfig, fit))
    except ConfigError:  # a newer version's, or an imported record
        return dict(fit)
    return {key: value for key, value in filled.items() if key != "engine"}


def _with_finished_parts(
    folder: Path, name: str, entry: ConfigEntry, planned: Sequence[Shard], forget: Sequence[Shard]
) -> ConfigEntry:
    """Keep parts that are on disk as recorded, adopt finished ones that are not recorded."""
    forgotten = {(shard.start, shard.stop) for shard in forget}
    listed = {(part.start, part.stop): part for part in entry.parts}
    parts: list[PartEntry] = []
    for shard in planned:
        place = (shard.start, shard.stop)
        if place in forgotten:
            continue
        part = listed.get(place)
        if part is None:
            part = adopt_part(folder, name, entry, shard.split, shard.start, shard.stop)
        elif not _is_sound(folder, name, entry, part):
            part = None
        if part is not None:
            parts.append(part)
    kept = tuple(parts)
    return entry if kept == entry.parts else dataclasses.replace(entry, parts=kept, summary={})


def _is_sound(folder: Path, name: str, entry: ConfigEntry, part: PartEntry) -> bool:
    try:
        read_part(folder, name, entry, part)
    except DatasetFormatError as error:
        logger.warning("%s; fitting it again now", str(error).split("; fit this part")[0])
        return False
    return True


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


def _store_part(
    folder: Path, name: str, entry: ConfigEntry, shard: Shard, rows: FieldRows
) -> PartEntry:
    return write_part(folder, name, entry, shard.split, shard.start, rows)


def _insert(parts: tuple[PartEntry, ...], part: PartEntry) -> tuple[PartEntry, ...]:
    others = [p for p in parts if (p.start, p.stop) != (part.start, part.stop)]
    return tuple(sorted([*others, part], key=lambda p: p.start))
