"""From a folder of fit-a-nef to a neural dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from nefbench.config import config_from_mapping, digest
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.signals import Split
from nefbench.weights.dataset import NeuralDataset
from nefbench.weights.hdf5.layout import FORMAT, SCALINGS
from nefbench.weights.hdf5.source import (
    Source,
    check_files,
    open_source,
    read_properties,
    read_weights,
)
from nefbench.weights.imported import MAX_UNNAMED_CLASSES, lay_splits, write_imported
from nefbench.weights.manifest import (
    COORDINATES,
    SHAPE_COORDINATES,
    ConfigEntry,
    SignalsEntry,
    check_config_name,
    open_or_new_manifest,
)
from nefbench.weights.parts import FieldRows

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 2**24


def import_fit_a_nef(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    splits: Sequence[tuple[str, int]] | None = None,
    class_names: Sequence[str] = (),
    part_rows: int = 1000,
) -> NeuralDataset:
    """Read a folder of fit-a-nef into a config of a neural dataset.

    All files are read and checked before anything is written. A field keeps its index; a row with
    NaN or infinite weights has status ``diverged``. The card is left to the caller.

    Args:
        source: Folder with ``nef.json`` and ``nefs_<a>-<b>.hdf5``.
        out: Folder of the neural dataset: one that exists, or a new or empty folder.
        name: Name of the config; for example ``siren-h32-imported`` if left out.
        splits: ``(name, number of fields)`` in index order; all fields are ``train`` if left out.
        class_names: Name of every class; numbers if left out and there are labels.
        part_rows: Most fields in one part.

    Returns:
        The complete config. One of this name that holds the same rows is returned as it is.

    Raises:
        DatasetFormatError: If the folder is not as described above, or ``splits`` or
            ``class_names`` do not fit it.
        ConfigError: If ``name`` or ``part_rows`` cannot be used, or ``out`` holds another config
            of this name.
        MissingDependencyError: If h5py is not installed.
    """
    if part_rows < 1:
        raise ConfigError(f"expected part_rows >= 1 (got {part_rows})")
    if name is not None:
        check_config_name(name)
    manifest = open_or_new_manifest(out)
    found = open_source(source)
    ranges = lay_splits(found.folder, found.start, found.stop, splits)
    highest_label = check_files(found)
    classes = _class_names(found, highest_label, class_names)
    name = name or f"{found.field.kind}-h{found.field.hidden_dim}-imported"
    entry = _new_entry(found, name, ranges, classes)
    return write_imported(
        out, name, manifest, entry, partial(_read_rows, found), part_rows=part_rows
    )


def _read_rows(source: Source, start: int, stop: int) -> FieldRows:
    values, labels = read_weights(source, start, stop)
    weights = torch.from_numpy(values)
    return FieldRows(
        weights=weights,
        signal_index=torch.arange(start, stop),
        init_seed=torch.zeros(stop - start, dtype=torch.int64),
        loss=torch.full((stop - start,), math.nan),
        status=tuple("ok" if fine else "diverged" for fine in weights.isfinite().all(1).tolist()),
        labels=None if labels is None else torch.from_numpy(labels),
        quality={},
        properties={
            name: torch.from_numpy(numbers)
            for name, numbers in read_properties(source, start, stop).items()
        },
    )


def _class_names(
    source: Source, highest_label: int | None, class_names: Sequence[str]
) -> tuple[str, ...]:
    if highest_label is None:
        if class_names:
            raise DatasetFormatError(f"{source.folder} has no labels; leave out the class names")
        return ()
    scaling = SCALINGS.get(source.dataset_name or "")
    recorded = _recorded_signals(source)
    names = tuple(class_names) or (recorded.class_names if recorded else ())
    if not names and highest_label < MAX_UNNAMED_CLASSES:
        count = max(highest_label + 1, scaling.num_classes if scaling else 0)
        return tuple(map(str, range(count)))
    if highest_label >= len(names):
        raise DatasetFormatError(
            f"{source.folder}: expected a name for each of the classes 0 to {highest_label} "
            f"(got {len(names)} class names)"
        )
    return names


def _new_entry(
    source: Source, name: str, splits: tuple[Split, ...], class_names: tuple[str, ...]
) -> ConfigEntry:
    fit = {
        "imported_from": FORMAT,
        "nef": source.nef,
        "cfg": source.cfg,
        "name": name,
        "init": {"kind": "unknown"},
    }
    signals = dataclasses.replace(
        _recorded_signals(source) or _described_signals(source),
        fingerprint=_fingerprint(source, splits),
        class_names=class_names,
    )
    return ConfigEntry(
        field=source.field,
        in_dim=source.in_dim,
        out_dim=source.out_dim,
        tensors=source.spec.layout,
        signals=signals,
        splits=splits,
        fit=fit,
        digest=digest({"fit": fit, "signals": signals.identity()}),
        engine=FORMAT,
        generator="unknown",
        properties=source.properties,
    )


def _recorded_signals(source: Source) -> SignalsEntry | None:
    """Return what an export of ours wrote about the signals."""
    record = (source.cfg or {}).get("nefbench")
    if record is None:
        return None
    path = source.folder / "cfg.json"
    if not isinstance(record, Mapping) or not isinstance(record.get("signals"), Mapping):
        raise DatasetFormatError(f"{path}: expected a record of the signals under 'nefbench'")
    try:
        signals = config_from_mapping(SignalsEntry, record["signals"])
    except ConfigError as error:
        raise DatasetFormatError(f"{path}: nefbench.signals: {error}") from error
    if not len(signals.mean) == len(signals.std) == source.out_dim:
        raise DatasetFormatError(
            f"{path}: expected mean and std for {source.out_dim} output channels "
            f"(got {len(signals.mean)} and {len(signals.std)})"
        )
    return signals


def _described_signals(source: Source) -> SignalsEntry:
    folder = source.folder.resolve().name
    name = source.dataset_name or folder
    scaling = SCALINGS.get(name)
    if scaling and (len(scaling.grid_shape), len(scaling.mean)) != (source.in_dim, source.out_dim):
        logger.warning(
            "%s: fields from %d to %d channels are not %s as in cfg.json; scaling and grid are "
            "unknown", source.folder, source.in_dim, source.out_dim, name,
        )  # fmt: skip
        scaling = None
    coordinates = COORDINATES if scaling else "unknown"
    is_shape = (source.in_dim, source.out_dim) == (3, 1)  # fit-a-nef's fields of shapes: logits
    return SignalsEntry(
        name=name,
        source=f"{FORMAT} folder {folder}",
        fingerprint="",
        licence="unknown",
        grid_shape=scaling.grid_shape if scaling else (),
        mean=scaling.mean if scaling else (0.0,) * source.out_dim,
        std=scaling.std if scaling else (1.0,) * source.out_dim,
        coordinates=SHAPE_COORDINATES if is_shape else coordinates,
        output="occupancy" if is_shape else "values",
    )


def _fingerprint(source: Source, splits: tuple[Split, ...]) -> str:
    """SHA-256 over every row and label: equal for equal fields, however files are cut."""
    layout = (source.spec.layout, splits, *source.properties)
    content = hashlib.sha256(repr(layout).encode())
    rows_per_block = max(1, _BLOCK_BYTES // (4 * source.spec.num_params))
    for start in range(source.start, source.stop, rows_per_block):
        stop = min(start + rows_per_block, source.stop)
        properties = read_properties(source, start, stop)
        for values in (*read_weights(source, start, stop), *properties.values()):
            if values is not None:
                content.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)
    return content.hexdigest()
