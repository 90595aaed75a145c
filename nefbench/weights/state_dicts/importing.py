"""From a folder of state dicts to a neural dataset."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nefbench.config import config_to_mapping, digest
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import Siren
from nefbench.signals import SPLIT_NAMES, Split
from nefbench.weights.dataset import NeuralDataset
from nefbench.weights.imported import MAX_UNNAMED_CLASSES, lay_splits, write_imported
from nefbench.weights.manifest import (
    COORDINATES,
    ConfigEntry,
    SignalsEntry,
    check_config_name,
    open_or_new_manifest,
)
from nefbench.weights.parts import FieldRows
from nefbench.weights.state_dicts.naming import (
    OTHER,
    NamedField,
    Naming,
    class_numbers,
    count_through,
    describe_all,
    naming_of,
    natural_order,
)
from nefbench.weights.state_dicts.reading import NOT_OPENED, read_fields
from nefbench.weights.state_dicts.splits_file import find_splits, read_splits

logger = logging.getLogger(__name__)

FORMAT = "state-dicts"
_ENDINGS = (".pth", ".pt")
_PICKLES = (".pkl", ".pickle")
_GRIDS = (("mnist", 1, (28, 28)), ("fashion", 1, (28, 28)), ("cifar", 3, (32, 32)))
"""Word in a path, channels, grid: what fields were fitted on, which their files do not say."""


@dataclass(frozen=True)
class _Set:
    """The fields of a folder in the order in which they are stored.

    Attributes:
        folder: The folder.
        paths: Of every field below the folder; index in the neural dataset.
        signal_index: Position of every field's signal in its source.
        splits: Ranges of the fields.
        naming: How files are named and outputs scaled.
        labels: Class of every path as the folders or the file of splits name it, or none.
        is_guessed: Whether the labels are no more than the names of any folders.
    """

    folder: Path
    paths: tuple[str, ...]
    signal_index: tuple[int, ...]
    splits: tuple[Split, ...]
    naming: Naming
    labels: Mapping[str, str]
    is_guessed: bool

    @property
    def files(self) -> list[Path]:
        """Every field's file."""
        return [self.folder / path for path in self.paths]


@dataclass(frozen=True)
class _Survey:
    """What reading every file once showed.

    Attributes:
        widths: Inputs, units of every hidden layer, outputs.
        labels: Class of every field, or None.
        class_names: Name of every class.
        properties: Names of numbers in the files.
        fingerprint: SHA-256 over weights, labels, numbers and splits.
    """

    widths: tuple[int, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...]
    properties: tuple[str, ...]
    fingerprint: str


def is_of_state_dicts(folder: Path) -> bool:
    """Tell whether a folder holds ``.pth`` files, or pickles that can be explained."""
    endings = (*_ENDINGS, *_PICKLES)
    return any(path.suffix in endings for path in folder.rglob("*"))


def import_state_dicts(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    splits: Sequence[tuple[str, int]] | Path | None = None,
    omega_0: float = 30.0,
    part_rows: int = 1000,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> NeuralDataset:
    """Read a folder of SIRENs saved with PyTorch into a config of a neural dataset.

    All files are read and checked before anything is written, then read again part by part.
    Fields stand in the order of their signals, split by split. A row with NaN or infinite weights
    has status ``diverged``. The card is left to the caller.

    Args:
        source: Folder of ``.pth`` or ``.pt`` files, one field each, in folders of any depth.
        out: Folder of the neural dataset: one that exists, or a new or empty folder.
        name: Name of the config; for example ``siren-h32-imported`` if left out.
        splits: ``(name, number of fields)`` in the order of signals, or a JSON file with the
            paths of every split; if left out, the file ``*splits*.json`` in the folder, else what
            the folders' names say, else all fields are ``train``.
        omega_0: Frequency factor of every sine; the files do not say it.
        part_rows: Most fields in one part.
        on_progress: Told ``("check" or "write", fields done, fields)``.

    Returns:
        The complete config. One of this name that holds the same rows is returned as it is.

    Raises:
        DatasetFormatError: If a file holds something else than the state dict of a SIREN, or of
            another architecture than the first; if labels or splits do not fit the files.
        ConfigError: If an argument cannot be used, or ``out`` holds another config of this name.
    """
    if part_rows < 1:
        raise ConfigError(f"expected part_rows >= 1 (got {part_rows})")
    if not 0 < omega_0 < math.inf:
        raise ConfigError(f"expected omega_0 > 0 and finite (got {omega_0})")
    if name is not None:
        check_config_name(name)
    manifest = open_or_new_manifest(out)
    found = _open_set(source, splits)
    total = len(found.paths)
    survey = _survey(found, lambda done: on_progress("check", done, total))
    field = Siren(hidden_dim=survey.widths[1], num_layers=len(survey.widths) - 1, omega_0=omega_0)
    name = name or f"siren-h{field.hidden_dim}-imported"
    entry = _new_entry(found, survey, field, name)
    written = 0

    def count(fields: int) -> None:
        nonlocal written
        written += fields
        on_progress("write", written, total)

    return write_imported(
        out,
        name,
        manifest,
        entry,
        lambda start, stop: _read_rows(found, survey, start, stop),
        part_rows=part_rows,
        on_fields=count,
    )


def _open_set(folder: Path, splits: Sequence[tuple[str, int]] | Path | None) -> _Set:
    if not folder.is_dir():
        raise DatasetFormatError(f"no such folder: {folder}")
    paths = sorted(
        (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in _ENDINGS),
        key=natural_order,
    )
    if not paths:
        pickles = sorted(p for p in folder.rglob("*") if p.suffix in _PICKLES)
        if pickles:
            raise DatasetFormatError(f"{pickles[0]} is a pickle; {NOT_OPENED}")
        raise DatasetFormatError(f"{folder} has no {' or '.join(_ENDINGS)} files")
    if splits is None:
        splits = find_splits(folder)
    listed = None
    if isinstance(splits, Path):
        listed = read_splits(splits, folder, paths)
        paths = [path for some in listed.values() for path, _ in some]
    naming = naming_of(paths)
    fields = describe_all(naming, paths, str(folder))
    numbers = count_through(fields)
    labels = {field.path: field.label for field in fields if field.label is not None}
    is_guessed = naming is OTHER
    if listed is not None:
        given = {path: label for some in listed.values() for path, label in some if label}
        labels, is_guessed = given or labels, is_guessed and not given
        groups = {split: [path for path, _ in some] for split, some in listed.items()}
    else:
        groups = _groups(fields, folder, None if isinstance(splits, Path) else splits, numbers)
    ordered = {split: sorted(some, key=numbers.__getitem__) for split, some in groups.items()}
    everything = [path for some in ordered.values() for path in some]
    return _Set(
        folder=folder,
        paths=tuple(everything),
        signal_index=tuple(numbers[path] for path in everything),
        splits=lay_splits(
            folder, 0, len(everything), [(split, len(some)) for split, some in ordered.items()]
        ),
        naming=naming,
        labels=labels,
        is_guessed=is_guessed,
    )


def _groups(
    fields: Sequence[NamedField],
    folder: Path,
    sizes: Sequence[tuple[str, int]] | None,
    numbers: Mapping[str, int],
) -> dict[str, list[str]]:
    """Return the paths of every split: of given sizes, else as the folders are named."""
    if sizes is not None:
        paths = sorted(numbers, key=numbers.__getitem__)
        ranges = lay_splits(folder, 0, len(paths), sizes)
        return {split.name: paths[split.start : split.stop] for split in ranges}
    groups: dict[str, list[str]] = {}
    for split in SPLIT_NAMES:
        some = [field.path for field in fields if (field.split or "train") == split]
        if some:
            groups[split] = some
    return groups


def _survey(found: _Set, on_field: Callable[[int], None]) -> _Survey:
    """Read every file once, and check that they are of one kind."""
    content = hashlib.sha256(repr((found.splits, found.signal_index)).encode())
    first: tuple[tuple[int, ...], tuple[str, ...], bool] | None = None
    stored_labels: list[int] = []
    diverged: list[str] = []
    files = found.files
    for done, (path, field) in enumerate(zip(files, read_fields(files), strict=True), start=1):
        kind = (field.widths, tuple(field.properties), field.label is not None)
        first = first or kind
        if kind != first:
            raise DatasetFormatError(
                f"{path} holds {_kind_text(*kind)}; {files[0]} holds {_kind_text(*first)}: import "
                f"fields of different kinds from different folders"
            )
        row = field.row(row_first=found.naming.row_first)
        content.update(row.numpy().tobytes())
        content.update(repr((field.label, *field.properties.values())).encode())
        if not bool(row.isfinite().all()):
            diverged.append(str(path))
        if field.label is not None:
            stored_labels.append(field.label)
        on_field(done)
    assert first is not None, "a set has at least one field"
    if diverged:
        logger.warning(
            "%d of %d fields have NaN or infinite weights and get status 'diverged', for example "
            "%s", len(diverged), len(files), ", ".join(diverged[:3]),
        )  # fmt: skip
    labels, class_names = _classes(found, stored_labels)
    content.update(repr(class_names).encode() + repr(labels).encode())
    return _Survey(first[0], labels, class_names, first[1], content.hexdigest())


def _kind_text(widths: tuple[int, ...], properties: tuple[str, ...], has_label: bool) -> str:
    extras = [*properties, *(["a label"] if has_label else [])]
    return f"a {'-'.join(map(str, widths))} field{' with ' if extras else ''}{', '.join(extras)}"


def _classes(found: _Set, stored: Sequence[int]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Return the class of every field: as listed or published, in the files, or of the folders."""
    inside = {path: str(label) for path, label in zip(found.paths, stored, strict=False)}
    words = inside if inside and (found.is_guessed or not found.labels) else found.labels
    if not words:
        return None, ()
    numbers, names = class_numbers(words, MAX_UNNAMED_CLASSES)
    for path, label in inside.items():
        if names[0].isdecimal() and numbers[path] != int(label):
            raise DatasetFormatError(
                f"{found.folder / path} has label {label}, but is listed with {words[path]}"
            )
    return tuple(numbers[path] for path in found.paths), names


def _read_rows(found: _Set, survey: _Survey, start: int, stop: int) -> FieldRows:
    fields = list(read_fields(found.files[start:stop]))
    weights = torch.stack([field.row(row_first=found.naming.row_first) for field in fields])
    labels = survey.labels
    return FieldRows(
        weights=weights,
        signal_index=torch.tensor(found.signal_index[start:stop]),
        init_seed=torch.zeros(stop - start, dtype=torch.int64),
        loss=torch.full((stop - start,), math.nan),
        status=tuple("ok" if fine else "diverged" for fine in weights.isfinite().all(1).tolist()),
        labels=None if labels is None else torch.tensor(labels[start:stop]),
        quality={},
        properties={
            name: torch.tensor([field.properties[name] for field in fields], dtype=torch.float64)
            for name in survey.properties
        },
    )


def _new_entry(found: _Set, survey: _Survey, field: Siren, name: str) -> ConfigEntry:
    in_dim, out_dim = survey.widths[0], survey.widths[-1]
    folder = found.folder.resolve().name
    fit = {
        "imported_from": FORMAT,
        "name": name,
        "field": config_to_mapping(field),
        "init": {"kind": "unknown"},
    }
    grid = _grid(f"{folder}/{found.paths[0]}".lower(), in_dim, out_dim)
    signals = SignalsEntry(
        name=folder,
        source=f"{found.naming.source} in folder {folder}",
        fingerprint=survey.fingerprint,
        licence="unknown",
        grid_shape=grid,
        mean=(found.naming.mean,) * out_dim,
        std=(found.naming.std,) * out_dim,
        class_names=survey.class_names,
        coordinates=COORDINATES if grid else "unknown",
    )
    return ConfigEntry(
        field=field,
        in_dim=in_dim,
        out_dim=out_dim,
        tensors=field.spec(in_dim, out_dim).layout,
        signals=signals,
        splits=found.splits,
        fit=fit,
        digest=digest({"fit": fit, "signals": signals.identity()}),
        engine=FORMAT,
        generator="unknown",
        properties=survey.properties,
    )


def _grid(path: str, in_dim: int, out_dim: int) -> tuple[int, ...]:
    if in_dim != 2:
        return ()
    return next((grid for word, c, grid in _GRIDS if word in path and c == out_dim), ())
