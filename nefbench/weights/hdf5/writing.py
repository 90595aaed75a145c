"""From a neural dataset to a folder of fit-a-nef."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nefbench import files
from nefbench.config import config_to_mapping
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import FourierNet, RFFNet, Siren
from nefbench.weights.dataset import NeuralDataset
from nefbench.weights.hdf5.layout import ARCHITECTURES, FORMAT, OWN_ARRAYS, load_h5py, overlap
from nefbench.weights.manifest import ConfigEntry, PartEntry
from nefbench.weights.parts import FieldRows, read_part

logger = logging.getLogger(__name__)


def export_fit_a_nef(dataset: NeuralDataset, out: Path, *, rows_per_file: int = 5000) -> list[Path]:
    """Write a neural dataset as a folder of fit-a-nef: all splits in index order.

    Args:
        dataset: A complete config of SIREN, RFFNet, FourierNet or MLP fields.
        out: A new or empty folder.
        rows_per_file: Most fields in one file.

    Returns:
        The HDF5 files in index order. ``nef.json`` comes last, so a folder without it is
        unfinished.

    Raises:
        DatasetFormatError: If the format cannot say what the dataset holds, or the dataset is
            unfinished or damaged, or ``out`` is in use.
        ConfigError: If ``rows_per_file`` is not positive.
        MissingDependencyError: If h5py is not installed.
    """
    h5py = load_h5py("writing .hdf5")
    if rows_per_file < 1:
        raise ConfigError(f"expected rows_per_file >= 1 (got {rows_per_file})")
    nef = _nef_description(dataset)
    parts = _parts_to_export(dataset)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetFormatError(f"{out} is in use; choose a new or empty folder for the export")

    written = []
    num_unmarked = 0
    first, last = parts[0].start, parts[-1].stop
    read = functools.lru_cache(maxsize=1)(
        functools.partial(read_part, dataset.folder, dataset.name, dataset.entry)
    )
    for start in range(first, last, rows_per_file):
        stop = min(start + rows_per_file, last)
        path = out / f"nefs_{start}-{stop}.hdf5"
        with files.replacing(path) as temporary, h5py.File(temporary, "w") as file:
            num_unmarked += _write_fields(file, dataset.entry, parts, read, start, stop)
        written.append(path)
    if num_unmarked:
        logger.warning(
            "%d fields with status 'diverged' have finite weights; the format has no status, "
            "so nothing in %s tells them from the others", num_unmarked, out,
        )  # fmt: skip
    files.write_json(out / "cfg.json", _cfg_description(dataset))
    files.write_json(out / "nef.json", nef)
    return written


def _nef_description(dataset: NeuralDataset) -> dict[str, Any]:
    field = dataset.field
    name = next((n for n, a in ARCHITECTURES.items() if isinstance(field, a.field)), None)
    if name is None:
        raise DatasetFormatError(
            f"{FORMAT} defines storage orders for {', '.join(ARCHITECTURES)} "
            f"(got {field.kind} fields, config {dataset.name!r})"
        )
    if isinstance(field, Siren) and field.preset == "paper":
        raise DatasetFormatError(
            f"config {dataset.name!r} holds SIREN fields of preset 'paper', sin(omega_0 h W + b); "
            f"{FORMAT} would read the rows as sin(omega_0 (h W + b))"
        )
    values = config_to_mapping(field)
    architecture = ARCHITECTURES[name]
    params = {key: values[key] for key in (*architecture.required, *architecture.defaults)}
    if isinstance(field, RFFNet) and field.preset == "paper":
        params["std"] = field.std / (2 * math.pi)  # theirs has the factor 2 pi
    if isinstance(field, FourierNet) and field.weight_scale is None:
        params["weight_scale"] = 1.0 if field.preset == "original" else 6.0
    return {"name": name, "params": {"output_dim": dataset.entry.out_dim, **params}}


def _cfg_description(dataset: NeuralDataset) -> dict[str, Any]:
    """Return the imported ``cfg.json`` or a short one, with our record of signals and splits."""
    entry = dataset.entry
    imported = entry.fit.get("cfg") if entry.fit.get("imported_from") == FORMAT else None
    base: dict[str, Any] = imported or {
        "dataset": {"name": entry.signals.name, "out_channels": entry.out_dim},
        "nefbench": {"fit": entry.fit},
    }
    record = {
        **base.get("nefbench", {}),
        "signals": config_to_mapping(entry.signals),
        "splits": [config_to_mapping(split) for split in entry.splits],
    }
    if entry.properties:
        record["properties"] = list(entry.properties)
    return {**base, "nefbench": record}


def _parts_to_export(dataset: NeuralDataset) -> list[PartEntry]:
    """Return the parts in index order, if they are all there and the format can say it all."""
    dataset.require_complete()
    parts = sorted(dataset.entry.parts, key=lambda part: part.start)
    for before, after in itertools.pairwise(parts):
        if before.stop != after.start:
            raise DatasetFormatError(
                f"{dataset.folder} ({dataset.name}): expected parts without gap or overlap "
                f"(got {before.file_name} before {after.file_name})"
            )
    for name in dataset.entry.properties:
        if name in OWN_ARRAYS:
            raise DatasetFormatError(
                f"{dataset.folder} ({dataset.name}): {FORMAT} has an array {name!r} of its own, "
                f"so a property of this name cannot be exported"
            )
    if dataset.class_names:
        for name, summary in dataset.entry.summary.items():
            unlabelled = summary.num_fields - sum(summary.class_counts)
            if unlabelled:
                raise DatasetFormatError(
                    f"{dataset.folder} ({dataset.name}): {unlabelled} fields of split {name!r} "
                    f"have no label; {FORMAT} needs one for each field"
                )
    return parts


def _write_fields(
    file: Any,
    entry: ConfigEntry,
    parts: Sequence[PartEntry],
    read: Callable[[PartEntry], FieldRows],
    start: int,
    stop: int,
) -> int:
    """Write fields ``start`` to ``stop - 1``, one part after another.

    Returns:
        How many of them have status ``diverged`` without showing it in their weights.
    """
    text = json.dumps([[name, list(shape)] for name, shape in entry.tensors])
    file.create_dataset("params", (stop - start, entry.spec.num_params), np.float32)
    file.create_dataset(
        "param_config", data=[text], dtype=load_h5py("writing .hdf5").string_dtype()
    )
    if entry.signals.class_names:
        file.create_dataset("labels", (stop - start,), np.int64)
    for name in entry.properties:
        file.create_dataset(name, (stop - start,), np.float64)
    num_unmarked = 0
    for part in parts:
        if here_there := overlap(part, start, stop):
            here, there = here_there
            rows = read(part)
            weights = rows.weights[there]
            file["params"][here] = weights.numpy()
            if rows.labels is not None:
                file["labels"][here] = rows.labels[there].numpy()
            for name, numbers in rows.properties.items():
                file[name][here] = numbers[there].numpy()
            num_unmarked += int((weights.isfinite().all(1) & ~rows.is_ok[there]).sum())
    return num_unmarked
