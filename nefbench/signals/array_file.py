"""Signals from an array in a NumPy file, read from the file as they are needed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.array import (
    UNIT_RANGE,
    check_array,
    check_value_range,
    check_values,
    checked_labels,
    checked_properties,
)
from nefbench.signals.base import GridSignals
from nefbench.signals.splits import (
    check_split_sizes,
    check_statistics,
    cut_splits,
    given_or_measured,
)

_SIGNALS, _LABELS = "signals", "labels"
_READING_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayFileConfig:
    """An array ``[N, grid…, c]`` of waves, images or volumes in a NumPy file.

    A ``.npy`` file is memory-mapped: only the signals being worked on are in memory. A ``.npz``
    file, with an array ``signals`` and, if there are any, ``labels`` and ``properties``, is read
    whole by every process.
    """

    kind: Literal["array-file"] = "array-file"
    path: str
    """The ``.npy`` or ``.npz`` file. uint8 counts as 0 to 255; other numbers as they are."""
    labels: str | None = None
    """A ``.npy`` file of class numbers from 0, one per signal; goes before those in ``path``."""
    class_names: tuple[str, ...] = ()
    """Name of every class; the numbers themselves if left out."""
    properties: tuple[str, ...] = ()
    """Arrays of the ``.npz`` file with a number per signal, to be predicted from the weights."""
    value_range: tuple[float, float] = UNIT_RANGE
    """Lowest and highest value there can be; quality is measured with it mapped to [0, 1]."""
    name: str | None = None
    """What a reader calls it; the file's name if left out."""
    validation_size: float = 0.1
    """Signals in the validation split: a number, a share below 1, or 0 for no such split."""
    test_size: float = 0.2
    """Signals in the test split, likewise."""
    shuffle: bool = True
    """Permute signals before they are split; else training signals come first, test ones last."""
    split_seed: int = 0
    """Seed of the permutation that assigns signals to splits."""
    max_signals: int | None = None
    """Keep only the first signals of the permutation; for trials."""
    mean: tuple[float, ...] | None = None
    """Mean per channel; computed over the training signals if left out."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel; computed over the training signals if left out."""

    def __post_init__(self) -> None:
        check_value_range(self.value_range)
        check_split_sizes(self.validation_size, self.test_size, self.split_seed)
        if self.max_signals is not None and self.max_signals < 1:
            raise ValueError(f"expected max_signals >= 1 (got {self.max_signals})")
        check_statistics(self.mean, self.std)
        if len(set(self.properties)) < len(self.properties):
            raise ValueError(f"a property is named twice ({', '.join(self.properties)})")

    def open(self) -> GridSignals:
        """Open the file and check every signal in it once."""
        path = Path(self.path).expanduser()
        name = self.name or path.stem
        array = _open_array(path, _SIGNALS)
        peak = check_array(array.shape, array.dtype, self.value_range, name)
        everything = FileValues.of_array(array, path.absolute(), peak)
        order = torch.arange(len(array))
        if self.shuffle:
            order = permutation(self.split_seed, "array-file/splits", len(array))
        order = order[: self.max_signals]
        splits = cut_splits(len(order), self.validation_size, self.test_size, name)
        labels, class_names = checked_labels(
            self._stored_labels(path), self.class_names, len(array), name
        )
        properties = checked_properties(self._stored_properties(path), len(array), name)
        if array.dtype != np.uint8:
            in_order = order.sort().values
            check_values(everything.of_rows(in_order), self.value_range, name, in_order)
        values = everything.of_rows(order)
        mean, std = given_or_measured(self.mean, self.std, values, splits[0], name)
        return GridSignals(
            name=name,
            source=f"{path.name} ({'x'.join(map(str, array.shape))}, {array.dtype})",
            grid_shape=tuple(array.shape[1:-1]),
            values=values,
            value_range=self.value_range,
            indices=order,
            splits=splits,
            mean=mean,
            std=std,
            labels=None if labels is None else labels[order],
            class_names=class_names,
            properties={key: numbers[order] for key, numbers in properties.items()},
            config=config_to_mapping(self),
        )

    def _stored_labels(self, path: Path) -> npt.NDArray[Any] | None:
        if self.labels is not None:
            return _open_array(Path(self.labels).expanduser(), _LABELS)
        if _is_archive(path) and _LABELS in _members(path):
            return _open_array(path, _LABELS)
        return None

    def _stored_properties(self, path: Path) -> dict[str, npt.NDArray[Any]]:
        if self.properties and not _is_archive(path):
            raise SignalError(
                f"{path} holds one array; properties ({', '.join(self.properties)}) are arrays "
                f"of a .npz file"
            )
        return {key: _open_array(path, key) for key in self.properties}


@dataclass(frozen=True)
class FileValues:
    """Values in a NumPy file; travels to another process as a path, which is opened there anew.

    Attributes:
        path: The file.
        shape: Shape of the array in it, ``[M, grid…, c]``.
        dtype: Its type, in NumPy's short form.
        rows: Position in the file of every signal, ``[N]``.
        peak: What 1.0 is in the file.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    rows: Tensor
    peak: float = 1.0

    @classmethod
    def of_array(cls, array: npt.NDArray[Any], path: Path, peak: float) -> FileValues:
        """Take an array that is open already, with all its rows."""
        values = cls(path, array.shape, array.dtype.str, torch.arange(len(array)), peak)
        vars(values)["_array"] = array
        return values

    def of_rows(self, rows: Tensor) -> FileValues:
        """Return the values of some rows of the same open array."""
        values = replace(self, rows=rows)
        vars(values)["_array"] = self._array
        return values

    def __len__(self) -> int:
        """Number of signals ``N``."""
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the array."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return values ``[n, Q, c]``, float32.

        Raises:
            SignalError: If the file is gone or another than it was.
        """
        chosen = self._array[self.rows[list(positions)].numpy()]
        with np.errstate(over="ignore"):  # infinite in float32, which whoever reads looks for
            block = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32))
        return block.reshape(len(block), -1, self.shape[-1]) / self.peak

    @cached_property
    def _array(self) -> npt.NDArray[Any]:
        array = _open_array(self.path, _SIGNALS)
        if (array.shape, array.dtype.str) != (self.shape, self.dtype):
            raise SignalError(
                f"{self.path} has changed since it was opened: expected shape {self.shape} "
                f"(got {array.shape}) of type {self.dtype} (got {array.dtype.str})"
            )
        return array


def _open_array(path: Path, member: str) -> npt.NDArray[Any]:
    """Map the array of a ``.npy`` file, or read one of a ``.npz`` file."""
    if not path.exists():
        raise SignalError(f"no such file: {path}")
    if not path.is_file():
        raise SignalError(f"{path} is a folder; expected a .npy or .npz file")
    try:
        if not _is_archive(path):
            return _mapped(path)
        if member not in (members := _members(path)):
            raise SignalError(
                f"{path} has no array {member!r} (it has {', '.join(members) or 'none'})"
            )
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            array: npt.NDArray[Any] = archive[member]
        return array
    except SignalError:
        raise
    except _READING_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "Python objects" in reason or "Object arrays" in reason:
            reason = "it holds Python objects; save an array of numbers"
        raise SignalError(f"{path} does not open as a NumPy file: {reason}") from error


def _mapped(path: Path) -> npt.NDArray[Any]:
    if _first_bytes(path, 6) != b"\x93NUMPY":
        raise ValueError("it is neither a .npy nor a .npz file")
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


def _is_archive(path: Path) -> bool:
    return _first_bytes(path, 2) == b"PK"


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def _members(path: Path) -> list[str]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return list(archive.files)
