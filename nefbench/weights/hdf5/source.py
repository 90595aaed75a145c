"""A folder of fit-a-nef: its descriptions and files, read and checked."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nefbench.config import config_from_mapping, nearest
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import FieldConfig
from nefbench.spec import ParamSpec
from nefbench.weights.hdf5.layout import ARCHITECTURES, FORMAT, OWN_ARRAYS, load_h5py, overlap

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFile:
    """One HDF5 file: fields ``start`` to ``stop - 1``."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class Source:
    """A folder of fit-a-nef whose descriptions have been read.

    Attributes:
        folder: The folder.
        files: Its files by start, without gap or overlap.
        nef: Content of ``nef.json``.
        cfg: Content of ``cfg.json``, or None.
        field: The architecture.
        in_dim: Coordinates ``d``.
        out_dim: Output channels ``c``.
    """

    folder: Path
    files: tuple[SourceFile, ...]
    nef: dict[str, Any]
    cfg: dict[str, Any] | None
    field: FieldConfig
    in_dim: int
    out_dim: int

    @property
    def start(self) -> int:
        """First field."""
        return self.files[0].start

    @property
    def stop(self) -> int:
        """One past the last field."""
        return self.files[-1].stop

    @property
    def spec(self) -> ParamSpec:
        """The tensors of a row."""
        return self.field.spec(self.in_dim, self.out_dim)

    @property
    def dataset_name(self) -> str | None:
        """Name of the fitted data set, if ``cfg.json`` says it."""
        described = (self.cfg or {}).get("dataset")
        name = described.get("name") if isinstance(described, Mapping) else None
        return name if isinstance(name, str) and name else None

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the arrays with numbers of the signals, which an export of ours records."""
        record = (self.cfg or {}).get("nefbench")
        names = record.get("properties", []) if isinstance(record, Mapping) else []
        if not isinstance(names, list) or not all(
            isinstance(name, str) and name.isidentifier() and names.count(name) == 1
            for name in names
        ):
            raise DatasetFormatError(
                f"{self.folder / 'cfg.json'}: expected different names as nefbench.properties "
                f"(got {_shown(names)})"
            )
        return tuple(names)


def open_source(folder: Path) -> Source:
    """Read the descriptions of a folder; the rows stay where they are."""
    if not folder.is_dir():
        raise DatasetFormatError(f"no such folder: {folder}")
    for wanted in ("nef.json", "nefs_*.hdf5"):
        if not any(folder.glob(wanted)):
            raise DatasetFormatError(
                f"{folder} has no {wanted}; expected the folder of one architecture as "
                f"{FORMAT} writes it, for example MNIST/SIREN"
            )
    found = _list_files(folder)
    nef = _read_json(folder / "nef.json")
    cfg = _read_json(folder / "cfg.json") if (folder / "cfg.json").exists() else None
    field, out_dim = _field_from_nef(nef, folder / "nef.json")
    with _opened(found[0].path) as file:
        layout = _read_layout(file, found[0].path)
    kernels = [shape for _, shape in layout if len(shape) == 2]
    in_dim = kernels[0][0] if kernels else 0
    if out_dim is None:
        out_dim = kernels[-1][1] if kernels else 0
    if in_dim < 1 or out_dim < 1:
        raise DatasetFormatError(
            f"{found[0].path}: param_config has no kernel of shape [inputs, outputs]; "
            f"got {_shown(layout)}"
        )
    return Source(folder, found, nef, cfg, field, in_dim, out_dim)


def _list_files(folder: Path) -> tuple[SourceFile, ...]:
    """Return the files by numeric start; other files of the folder are none of our business."""
    found = []
    for path in folder.glob("nefs_*.hdf5"):
        match = re.fullmatch(r"nefs_([0-9]{1,18})-([0-9]{1,18})\.hdf5", path.name)
        if match is None or int(match[1]) >= int(match[2]):
            raise DatasetFormatError(
                f"{path}: expected a name nefs_<a>-<b>.hdf5 with a < b for fields a to b - 1; "
                f"rename the file or move it away"
            )
        found.append(SourceFile(path, int(match[1]), int(match[2])))
    found.sort(key=lambda file: (file.start, file.stop))
    for before, after in itertools.pairwise(found):
        if before.stop != after.start:
            fault = "missing" if before.stop < after.start else "in both"
            low, high = sorted((before.stop, after.start))
            raise DatasetFormatError(
                f"{folder}: expected files without gap or overlap, fields {low} to {high - 1} are "
                f"{fault} ({before.path.name} is followed by {after.path.name})"
            )
    return tuple(found)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # Into nefbench.json it goes, so it must be plain JSON: no NaN, no halves of characters.
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise DatasetFormatError(f"{path}: expected a JSON object (got {_shown(content)})")
    return content


def _field_from_nef(nef: Mapping[str, Any], path: Path) -> tuple[FieldConfig, int | None]:
    """Return the architecture and the number of output channels if ``nef.json`` has it."""
    name, params = nef.get("name"), nef.get("params")
    if name == "GaborNet":
        raise DatasetFormatError(
            f"{path}: {FORMAT} defines no storage order for GaborNet, "
            f"so its rows cannot be read; fit GaborNet fields with nefbench"
        )
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise DatasetFormatError(
            f"{path}: expected name to be one of {known} (got {_shown(name)})"
            f"{nearest(name, ARCHITECTURES) if isinstance(name, str) else ''}"
        )
    if not isinstance(params, dict):
        raise DatasetFormatError(f"{path}: expected params to be an object (got {_shown(params)})")
    architecture = ARCHITECTURES[name]
    keys = ("output_dim", *architecture.required, *architecture.defaults, *architecture.ignored)
    for key in params:
        if key not in keys:
            known = f"; {name} has {', '.join(keys)}"
            raise DatasetFormatError(
                f"{path}: unknown key {_shown(key)} in params{nearest(key, keys) or known}"
            )
    for key in architecture.required:
        if key not in params:
            raise DatasetFormatError(f"{path}: missing key {key!r} in params of {name}")
    out_dim = params.get("output_dim")
    if out_dim is not None and (type(out_dim) is not int or out_dim < 1):
        raise DatasetFormatError(
            f"{path}: expected output_dim to be a whole number >= 1 (got {_shown(out_dim)})"
        )
    ours = {key: params[key] for key in architecture.required}
    ours |= {key: params.get(key, value) for key, value in architecture.defaults.items()}
    try:
        return config_from_mapping(architecture.field, ours), out_dim
    except ConfigError as error:
        raise DatasetFormatError(f"{path}: {error}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file; whatever its library says about a damaged one becomes one line."""
    h5py = load_h5py("reading .hdf5")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DatasetFormatError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetFormatError(
            f"{path} is not a readable HDF5 file ({reason}); copy or download it again"
        ) from error


def _array(file: Any, key: str, path: Path) -> Any:
    """Return a stored array by name, unread."""
    if not isinstance(file.get(key), load_h5py("reading .hdf5").Dataset):
        raise DatasetFormatError(
            f"{path} has no readable array {key!r}; it has {', '.join(map(str, file)) or 'nothing'}"
        )
    return file[key]


def _read_layout(file: Any, path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Read ``param_config``: name and shape of every tensor in storage order."""
    stored = _array(file, "param_config", path)
    text = np.asarray(stored[()]).reshape(-1)[0] if stored.size == 1 else None
    try:
        layout = json.loads(text) if isinstance(text, bytes | str) else None
    except (ValueError, RecursionError):
        layout = None
    if not isinstance(layout, list) or not all(map(_is_tensor, layout)):
        raise DatasetFormatError(
            f"{path}: expected param_config to be one string, the JSON list of [name, shape] per "
            f"tensor (got {_shown(stored if text is None else text)})"
        )
    return [(name, tuple(shape)) for name, shape in layout]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_tensor(item: Any) -> bool:
    match item:
        case [str(), [*sizes]]:
            return all(type(size) is int for size in sizes)
    return False


def check_files(source: Source) -> int | None:
    """Check everything but the weights of every file; returns the highest label, if any."""
    highest: list[int | None] = []
    for item in source.files:
        with _opened(item.path) as file:
            _check_layout(_read_layout(file, item.path), source, item.path)
            _check_params(_array(file, "params", item.path), source, item)
            labels = _array(file, "labels", item.path) if "labels" in file else None
            highest.append(None if labels is None else _check_labels(labels, item))
            for name in source.properties:
                _check_property(_array(file, name, item.path), name, item)
            others = sorted(str(key) for key in set(file) - {*OWN_ARRAYS, *source.properties})
        if others:
            logger.warning("%s: not imported: %s", item.path, ", ".join(others))
    known = [label for label in highest if label is not None]
    if known and len(known) < len(highest):
        raise DatasetFormatError(
            f"{source.files[highest.index(None)].path} has no labels; expected labels in all "
            f"files of the folder or in none"
        )
    return max(known, default=None)


def _check_layout(layout: list[tuple[str, tuple[int, ...]]], source: Source, path: Path) -> None:
    pairs = itertools.zip_longest(layout, source.spec.layout)
    for place, (got, expected) in enumerate(pairs):
        if got != expected:
            raise DatasetFormatError(
                f"{path}: param_config is not that of {source.nef['name']} as in nef.json: at "
                f"place {place} expected {_tensor_shown(expected)} (got {_tensor_shown(got)})"
            )


def _tensor_shown(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if tensor is None else f"{_shown(tensor[0])} of shape {list(tensor[1])}"


def _check_params(params: Any, source: Source, item: SourceFile) -> None:
    shape = (item.stop - item.start, source.spec.num_params)
    if params.shape != shape:
        raise DatasetFormatError(
            f"{item.path}: expected params of shape {list(shape)}, a row for each field in the "
            f"file name and a column for each weight in param_config (got {list(params.shape)})"
        )
    if params.dtype.kind != "f" or params.dtype.itemsize != 4:
        raise DatasetFormatError(f"{item.path}: expected params in float32 (got {params.dtype})")


def _check_labels(labels: Any, item: SourceFile) -> int:
    """Return the highest label."""
    if labels.shape != (item.stop - item.start,) or labels.dtype.kind not in "iu":
        raise DatasetFormatError(
            f"{item.path}: expected labels to be {item.stop - item.start} whole numbers "
            f"(got shape {list(labels.shape)}, {labels.dtype})"
        )
    values = labels[()]
    if values.min() < 0:
        raise DatasetFormatError(f"{item.path}: expected labels >= 0 (got {values.min()})")
    return int(values.max())


def _check_property(numbers: Any, name: str, item: SourceFile) -> None:
    if numbers.shape != (item.stop - item.start,) or numbers.dtype.kind not in "iuf":
        raise DatasetFormatError(
            f"{item.path}: expected {name!r} to be {item.stop - item.start} real numbers "
            f"(got shape {list(numbers.shape)}, {numbers.dtype})"
        )
    if not np.isfinite(numbers[()]).all():
        raise DatasetFormatError(f"{item.path}: expected finite numbers in {name!r}")


def read_properties(source: Source, start: int, stop: int) -> dict[str, Any]:
    """Read numbers ``[N]`` of the signals of fields ``start`` to ``stop - 1``, float64."""
    columns = {name: np.empty(stop - start) for name in source.properties}
    for item in source.files if columns else ():
        if here_there := overlap(item, start, stop):
            here, there = here_there
            with _opened(item.path) as file:
                for name, column in columns.items():
                    column[here] = file[name][there]
    return columns


def read_weights(source: Source, start: int, stop: int) -> tuple[Any, Any]:
    """Read fields ``start`` to ``stop - 1``: weights ``[N, P]`` and labels ``[N]`` or None."""
    weights = np.empty((stop - start, source.spec.num_params), np.float32)
    labels = None
    for item in source.files:
        if here_there := overlap(item, start, stop):
            here, there = here_there
            with _opened(item.path) as file:
                weights[here] = file["params"][there]
                if "labels" in file:
                    labels = np.empty(stop - start, np.int64) if labels is None else labels
                    labels[here] = file["labels"][there]
    return weights, labels
