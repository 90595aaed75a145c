"""Fields of a foreign format become a config of a neural dataset: what all formats share."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from nefbench.config import differing_keys
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.signals import SPLIT_NAMES, Split
from nefbench.weights.dataset import NeuralDataset
from nefbench.weights.manifest import ConfigEntry, Manifest, part_name, write_manifest
from nefbench.weights.parts import FieldRows, adopt_part, write_part
from nefbench.weights.statistics import summarise_dataset

MAX_UNNAMED_CLASSES = 2**16
"""Classes at most that are called by their numbers."""


def lay_splits(
    folder: Path, start: int, stop: int, splits: Sequence[tuple[str, int]] | None
) -> tuple[Split, ...]:
    """Cut fields ``start`` to ``stop - 1`` of a source folder into splits, in index order.

    Raises:
        DatasetFormatError: If a split is unknown or empty, or they do not add up.
    """
    total = stop - start
    sizes = [("train", total)] if splits is None else list(splits)
    names = [name for name, _ in sizes]
    if len(set(names)) < len(names) or not set(names) <= set(SPLIT_NAMES):
        raise DatasetFormatError(
            f"expected each split once, out of {', '.join(SPLIT_NAMES)} (got {', '.join(names)})"
        )
    if any(size < 1 for _, size in sizes) or sum(size for _, size in sizes) != total:
        listed = ", ".join(f"{name} {size}" for name, size in sizes)
        raise DatasetFormatError(
            f"expected splits of at least one field that add up to the {total} fields in "
            f"{folder} (got {listed}, together {sum(size for _, size in sizes)})"
        )
    stops = itertools.accumulate((size for _, size in sizes), initial=start)
    return tuple(
        Split(name, low, high)
        for name, (low, high) in zip(names, itertools.pairwise(stops), strict=True)
    )


def write_imported(
    out: Path,
    name: str,
    manifest: Manifest,
    entry: ConfigEntry,
    read_rows: Callable[[int, int], FieldRows],
    *,
    part_rows: int,
    on_fields: Callable[[int], None] = lambda _: None,
) -> NeuralDataset:
    """Write the fields that an entry without parts describes, part by part.

    Finished parts of a stopped import are kept, so it continues when it is called again.

    Args:
        out: Folder of the neural dataset.
        name: Name of the config.
        manifest: Record of the folder as it is.
        entry: Record of the config, its digest included.
        read_rows: Fields ``start`` to ``stop - 1`` of the source.
        part_rows: Most fields in one part.
        on_fields: Told how many fields were stored after every part.

    Returns:
        The complete config. One of this name and digest that is there is returned as it is.

    Raises:
        ConfigError: If ``out`` holds another config of this name.
        DatasetFormatError: If files that belong to no config are in the way.
    """
    stored = manifest.configs.get(name)
    if stored is not None:
        _require_same(stored, entry, out, name)
        return NeuralDataset(out, name, stored)
    planned = [
        (split.name, start, min(start + part_rows, split.stop))
        for split in entry.splits
        for start in range(split.start, split.stop, part_rows)
    ]
    _require_no_strays(out / name, {part_name(*place) for place in planned})
    # From here on the folder is a neural dataset: a stopped import continues when called again.
    write_manifest(out, manifest)
    parts = []
    for split, start, stop in planned:
        part = adopt_part(out, name, entry, split, start, stop)
        parts.append(part or write_part(out, name, entry, split, start, read_rows(start, stop)))
        on_fields(stop - start)
    entry = dataclasses.replace(entry, parts=tuple(parts))
    entry = summarise_dataset(NeuralDataset(out, name, entry))
    write_manifest(out, manifest.with_config(name, entry))
    return NeuralDataset(out, name, entry)


def _require_same(stored: ConfigEntry, new: ConfigEntry, out: Path, name: str) -> None:
    if stored.digest == new.digest:
        return
    differences = differing_keys(
        {"fit": stored.fit, "signals": stored.signals.identity()},
        {"fit": new.fit, "signals": new.signals.identity()},
    )
    listed = ", ".join(key.removeprefix("fit.") for key, _, _ in differences[:4])
    raise ConfigError(
        f"{out} already holds another config {name!r} (it differs in {listed}); "
        f"choose another name or another folder"
    )


def _require_no_strays(folder: Path, planned: set[str]) -> None:
    """Refuse files that would be published with this config without belonging to it."""
    for path in sorted(folder.rglob("*.parquet")):
        if path.relative_to(folder).as_posix() not in planned:
            raise DatasetFormatError(
                f"{path} belongs to no config (was an import with other settings stopped?); "
                f"delete {folder} or choose another name"
            )
