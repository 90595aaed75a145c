"""The record of one config of a neural dataset while it is fitted."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fitting.config import FitConfig
from fitting.engines import ENGINES, Engine, FitProblem
from fitting.plan import Shard, field_splits
from fitting.quality import metric_names
from nefbench.config import config_from_mapping, config_to_mapping, differing_keys, digest
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.hub import write_card
from nefbench.seeding import GENERATOR
from nefbench.signals import GridSignals, ShapeSignals, Signals
from nefbench.weights import Manifest, NeuralDataset, write_manifest
from nefbench.weights.manifest import (
    SHAPE_COORDINATES,
    ConfigEntry,
    PartEntry,
    SignalsEntry,
)
from nefbench.weights.parts import adopt_part, read_part
from nefbench.weights.statistics import summarise_dataset

logger = logging.getLogger(__name__)


@dataclass
class FitRecord:
    """One config of a neural dataset, from before its first part to its summary.

    Attributes:
        folder: Of the neural dataset.
        manifest: Its record, with this config as it is on disk.
        config: The recipe as it is recorded, with the engine that fits.
        entry: What the record says of the config.
        engine: What would be recorded of the engine if it began now.
    """

    folder: Path
    manifest: Manifest
    config: FitConfig
    entry: ConfigEntry
    engine: str

    @property
    def name(self) -> str:
        """Name of the config."""
        return self.config.config_name

    @property
    def place(self) -> Path:
        """Folder of the config's own files."""
        return self.folder / self.name

    def has(self, shard: Shard) -> bool:
        """Whether a shard is among the parts."""
        return any(
            (part.start, part.stop) == (shard.start, shard.stop) for part in self.entry.parts
        )

    def check_engine(self) -> None:
        """Refuse to go on with an engine that rounds differently.

        Raises:
            ConfigError: If another one began.
        """
        if self.entry.engine != self.engine:
            raise ConfigError(
                f"{self.folder}: config {self.name!r} was begun with engine "
                f"{self.entry.engine!r}, this is {self.engine!r}, which rounds differently; "
                f"finish it as begun, or choose another --out"
            )

    def keep(self, *parts: PartEntry) -> None:
        """Add finished parts and write the record."""
        self._write(dataclasses.replace(self.entry, parts=_insert(self.entry.parts, parts)))

    def finish(self, *, changed: bool) -> NeuralDataset:
        """Summarise a complete dataset and write its card."""
        if self.entry.is_complete and (changed or not self.entry.summary):
            self._write(summarise_dataset(NeuralDataset(self.folder, self.name, self.entry)))
        write_card(self.folder, self.manifest)
        return NeuralDataset(self.folder, self.name, self.entry)

    def _write(self, entry: ConfigEntry) -> None:
        self.entry = entry
        self.manifest = self.manifest.with_config(self.name, entry)
        write_manifest(self.folder, self.manifest)


def open_record(
    signals: Signals,
    config: FitConfig,
    folder: Path,
    manifest: Manifest,
    planned: Sequence[Shard],
    *,
    forget: Sequence[Shard] = (),
    engine: Engine,
    device: str,
) -> FitRecord:
    """Return the record of a config that was begun, or a new one; nothing is written yet.

    Args:
        signals: What is fitted.
        config: The recipe as ``recorded_config`` gives it.
        folder: Of the neural dataset.
        manifest: Its record.
        planned: All shards.
        forget: Those that shall be fitted again.
        engine: What fits.
        device: Where it computes.

    Raises:
        ConfigError: If the folder holds a config of this name made in another way.
    """
    config = dataclasses.replace(config, engine=engine.name)
    name = config.config_name
    new = _new_entry(signals, config, engine, device)
    entry = _matching_entry(manifest, name, new, folder)
    entry = _with_finished_parts(folder, name, entry, planned, forget)
    return FitRecord(folder, manifest, config, entry, new.engine)


def engine_to_continue(manifest: Manifest, problem: FitProblem) -> Engine | None:
    """Return the engine that began a stored config, if any may be taken and it can go on."""
    stored = manifest.configs.get(problem.config.config_name)
    if problem.config.engine != "auto" or stored is None or not stored.parts:
        return None
    begun_by = stored.engine.split(" ")[0]
    able = (engine for engine in ENGINES if engine.why_not(problem) is None)
    return next((engine for engine in able if engine.name == begun_by), None)


def _new_entry(signals: Signals, config: FitConfig, engine: Engine, device: str) -> ConfigEntry:
    fit, described = _recorded_fit(config), _described(signals)
    in_dim, out_dim = signals.in_dim, signals.num_channels
    return ConfigEntry(
        field=config.field,
        in_dim=in_dim,
        out_dim=out_dim,
        tensors=config.field.spec(in_dim, out_dim).layout,
        signals=described,
        splits=field_splits(signals, config),
        fit=fit,
        digest=fit_digest(signals, config),
        engine=f"{engine.name} {torch.device(device).type} {engine.signature}",
        generator=GENERATOR,
        metrics=metric_names(signals),
        provenance=("view", "num_steps"),
        properties=tuple(signals.properties),
    )


def fit_digest(signals: Signals, config: FitConfig) -> str:
    """Digest of all that determines the fields, apart from how an engine rounds.

    Args:
        signals: What is fitted.
        config: The recipe, start files named by their content; see ``recorded_config``.
    """
    fit, described = _recorded_fit(config), _described(signals)
    return digest({"fit": fit, "signals": described.identity()})


def _recorded_fit(config: FitConfig) -> dict[str, Any]:
    # The engine is no part of what was asked for: another one gives the same fields up to rounding.
    return {key: value for key, value in config_to_mapping(config).items() if key != "engine"}


def _described(signals: Signals) -> SignalsEntry:
    return SignalsEntry(
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


def _insert(parts: tuple[PartEntry, ...], new: Sequence[PartEntry]) -> tuple[PartEntry, ...]:
    places = {(part.start, part.stop) for part in new}
    others = [part for part in parts if (part.start, part.stop) not in places]
    return tuple(sorted([*others, *new], key=lambda part: part.start))
