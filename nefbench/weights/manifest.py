"""``nefbench.json``: what a neural dataset folder holds and how it was made."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nefbench import __version__, files
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import FieldConfig
from nefbench.signals import SPLIT_NAMES, Split
from nefbench.spec import ParamSpec

FORMAT_VERSION = 1
MANIFEST_NAME = "nefbench.json"
_FILES = (MANIFEST_NAME, "readme.md")
LAYOUT = "rows concatenate the tensors in order, each row-major; y = x W + b, W is [in, out]"
COORDINATES = "linspace(-1, 1, n) per axis, ends included; last axis fastest and first component"
SHAPE_COORDINATES = "points of the shape's own box, longest side from -0.5 to 0.5"

Output = Literal["values", "occupancy", "signed-distance"]
"""What a field gives after ``std`` and ``mean`` were applied: raw values of its signal, the logit
of a point being inside a shape, or its signed distance to the surface."""


@dataclass(frozen=True, kw_only=True)
class PartEntry:
    """One Parquet file: which fields it holds, and the checksum it must have."""

    split: str
    start: int
    stop: int
    num_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Path below the config's folder."""
        return part_name(self.split, self.start, self.stop)


@dataclass(frozen=True, kw_only=True)
class SignalsEntry:
    """What the fields were fitted to.

    Attributes:
        name: Short name of the source.
        source: Where it came from.
        fingerprint: Checksum over the selection and a sample of its content.
        licence: Licence of the source.
        grid_shape: Samples per axis, slowest first; empty for shapes: each has its own points.
        value_range: Range of the raw values.
        mean: Per channel; a field's output times ``std`` plus ``mean`` is a raw value.
        std: Per channel.
        class_names: Empty without labels.
        output: What a field's output means.
        config: What opens these signals again; None for arrays. Not part of the digest, because
            the same images may lie elsewhere tomorrow.
    """

    name: str
    source: str
    fingerprint: str
    licence: str
    grid_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    coordinates: str = COORDINATES
    output: Output = "values"
    config: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """What must be equal for rows to be equal."""
        return {key: value for key, value in config_to_mapping(self).items() if key != "config"}


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Quality of the fields of one split.

    Attributes:
        num_fields: Rows.
        status: Rows per status, for example ``{"ok": 1257}``.
        quality: Per metric the median, the 5 % quantile and the worst value over fields with
            status ``ok``.
        class_counts: Rows per class, empty without labels.
        properties: Lowest and highest number of every property over all rows.
    """

    num_fields: int
    status: dict[str, int]
    quality: dict[str, dict[str, float]]
    class_counts: tuple[int, ...] = ()
    properties: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConfigEntry:
    """One config: an architecture, a start and everything else the rows share.

    Attributes:
        field: The architecture.
        in_dim: Coordinates ``d``.
        out_dim: Output channels ``c``.
        tensors: ``(name, shape)`` in storage order.
        signals: What was fitted.
        splits: Ranges of field indices.
        fit: How it was fitted, as plain data, all defaults written out.
        digest: SHA-256 of ``fit`` and ``signals``: equal digests, equal rows.
        engine: What computed the rows; results of different engines agree to rounding only.
        generator: Scheme of the random draws.
        metrics: Quality columns present in the parts.
        provenance: Columns of whole numbers present in the parts beside ``signal_index`` and
            ``init_seed``: ``view`` (which changed copy of the signal, 0 is the signal itself) and
            ``num_steps`` (optimizer steps that the field took).
        properties: Names of the numbers that belong to each signal, float64 columns of the parts.
        parts: Finished files.
        summary: Per split, once all parts are there.
        tensor_statistics: Mean and standard deviation of each tensor over the training split.
        version: Version of nefbench that wrote the entry.
        layout: How a row is laid out.
    """

    field: FieldConfig
    in_dim: int
    out_dim: int
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    signals: SignalsEntry
    splits: tuple[Split, ...]
    fit: dict[str, Any]
    digest: str
    engine: str
    generator: str
    metrics: tuple[str, ...] = ()
    provenance: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    parts: tuple[PartEntry, ...] = ()
    summary: dict[str, SplitSummary] = dataclasses.field(default_factory=dict)
    tensor_statistics: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    version: str = __version__
    layout: str = LAYOUT

    def __post_init__(self) -> None:
        if self.tensors != self.spec.layout:
            raise ValueError(
                f"tensors are not those of {self.field.kind} with {self.in_dim} inputs and "
                f"{self.out_dim} outputs"
            )
        names = set(self.properties)
        if len(names) < len(self.properties) or not all(map(str.isidentifier, names)):
            raise ValueError(
                f"expected different names of letters, digits and '_' as properties "
                f"(got {', '.join(map(repr, self.properties))})"
            )

    @property
    def spec(self) -> ParamSpec:
        """Names, shapes, order and exchangeable axes of a row."""
        return self.field.spec(self.in_dim, self.out_dim)

    @property
    def num_fields(self) -> int:
        """Fields planned, over all splits."""
        return sum(split.stop - split.start for split in self.splits)

    @property
    def num_finished(self) -> int:
        """Fields in finished parts."""
        return sum(part.stop - part.start for part in self.parts)

    @property
    def is_complete(self) -> bool:
        """Whether every planned field is in a finished part."""
        return self.num_finished == self.num_fields


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of ``nefbench.json``."""

    format_version: int = FORMAT_VERSION
    configs: dict[str, ConfigEntry] = dataclasses.field(default_factory=dict)

    def with_config(self, name: str, entry: ConfigEntry) -> Manifest:
        """Return a copy in which ``name`` is ``entry``."""
        return dataclasses.replace(self, configs={**self.configs, name: entry})


def part_name(split: str, start: int, stop: int) -> str:
    """Path of a part below its config's folder; field indices are zero-padded to sort."""
    return f"{split}/part-{start:06d}-{stop:06d}.parquet"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``nefbench.json`` atomically."""
    files.write_json(folder / MANIFEST_NAME, config_to_mapping(manifest))


def open_or_new_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder that is to be written to, or start one in a new folder.

    Temporary files of killed writers are removed.

    Raises:
        DatasetFormatError: If the folder holds something else, or its manifest is damaged.
    """
    if (folder / MANIFEST_NAME).exists():
        files.remove_leftovers(folder)
        return read_manifest(folder)
    if folder.exists() and (not folder.is_dir() or any(map(_is_foreign, folder.iterdir()))):
        raise DatasetFormatError(
            f"{folder} exists and is not a neural dataset (no {MANIFEST_NAME}); "
            f"choose a new or empty folder for --out"
        )
    return Manifest()


def check_config_name(name: str) -> None:
    """Raise ``ConfigError`` unless ``name`` can name a folder and a Hub config."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"expected a name of letters, digits, '-', '_' and '.' (got {name!r})")
    if name.lower() in _FILES:
        raise ConfigError(f"expected a name that no file of the folder has (got {name!r})")


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``nefbench.json``.

    Raises:
        DatasetFormatError: If it is missing, not ours, damaged or of a newer format.
    """
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise DatasetFormatError(f"no such folder: {folder}")
    if not path.is_file():
        raise DatasetFormatError(
            f"{folder} is not a neural dataset: it has no {MANIFEST_NAME}; "
            f"'nefbench fit' makes one, 'nefbench import' reads other formats"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is damaged: not valid JSON ({error})") from error
    version = content.get("format_version") if isinstance(content, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DatasetFormatError(f"{path} has no format_version; it was not written by nefbench")
    if version > FORMAT_VERSION:
        raise DatasetFormatError(
            f"{path} has format version {version}, this nefbench reads up to {FORMAT_VERSION}; "
            f"upgrade nefbench"
        )
    return _parse(content, path)


def _parse(content: Mapping[str, Any], path: Path) -> Manifest:
    try:
        manifest = config_from_mapping(Manifest, content)
        for name, entry in manifest.configs.items():
            check_config_name(name)
            _check_ranges(name, entry)
    except (ConfigError, RecursionError) as error:
        reason = " ".join(str(error).split())  # keys of the file may hold line ends
        raise DatasetFormatError(f"{path} is damaged: {reason}") from error
    return manifest


def _is_foreign(path: Path) -> bool:
    """Tell other files from the temporary one of a run killed while it wrote its first record."""
    return not (
        path.name.startswith(f".{MANIFEST_NAME}.") and path.name.endswith(files.TEMPORARY_SUFFIX)
    )


def _check_ranges(name: str, entry: ConfigEntry) -> None:
    splits = {split.name: split for split in entry.splits}
    if len(splits) < len(entry.splits) or not splits.keys() <= set(SPLIT_NAMES):
        raise ConfigError(f"configs.{name}: expected each split once, of {', '.join(SPLIT_NAMES)}")
    for split in entry.splits:
        if not 0 <= split.start < split.stop:
            raise ConfigError(f"configs.{name}: split {split.name!r} holds no fields")
    for part in entry.parts:
        place = splits.get(part.split)
        if place is None or not place.start <= part.start < part.stop <= place.stop:
            raise ConfigError(f"configs.{name}: {part.file_name} lies outside the splits")
    for kind, ranges in (("splits", entry.splits), ("parts", entry.parts)):
        places = sorted((item.start, item.stop) for item in ranges)
        if any(start < stop for (_, stop), (start, _) in itertools.pairwise(places)):
            raise ConfigError(f"configs.{name}: {kind} overlap")
