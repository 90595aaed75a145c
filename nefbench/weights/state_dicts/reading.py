"""One file with the state dict of one SIREN."""

from __future__ import annotations

import io
import itertools
import math
import numbers
import pickle
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nefbench.errors import DatasetFormatError

LABEL = "label"
ONE_EACH = "save each field with torch.save(field.state_dict(), …) in a file of its own"
NOT_OPENED = f"it is not opened because unpickling runs code: {ONE_EACH}"
_SAMPLES = ("x", "y")
"""Where a signal was sampled and what it was there: beside the weights of the sine waves."""
_DAMAGE = (
    RuntimeError, pickle.UnpicklingError, LookupError, ValueError, TypeError, AttributeError,
    EOFError, OverflowError, struct.error,
)  # fmt: skip
"""What reading damaged files raised, tried on files with flipped bits."""
_READERS, _FILES_AT_ONCE = 8, 256
_PICKLE, _LEGACY = b"\x80", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of any pickle, and of what ``torch.save`` wrote before version 1.6."""
_reconstruct = np.empty(0).__reduce__()[0]
_PLAIN_ARRAYS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    np.ndarray, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)),
]  # fmt: skip
"""What a NumPy array of numbers in a state dict consists of; nothing here runs code."""


@dataclass(frozen=True)
class StoredField:
    """One field as it was saved.

    Attributes:
        weights: ``[out, in]`` per linear map, float32.
        biases: ``[out]`` per linear map, float32.
        label: Class number, if the file has one.
        properties: Other numbers in the file, by name.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    label: int | None
    properties: dict[str, float]

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, units of every hidden layer, outputs."""
        return (self.weights[0].shape[1], *(len(bias) for bias in self.biases))

    def row(self, *, row_first: bool) -> Tensor:
        """Return the weights as a row of our SIREN: bias before kernel ``[in, out]``, ``[P]``.

        Args:
            row_first: The field's coordinates come in the other order than ours.
        """
        first = self.weights[0].flip(1) if row_first else self.weights[0]
        pieces = zip(self.biases, (first, *self.weights[1:]), strict=True)
        return torch.cat([p for bias, weight in pieces for p in (bias, weight.mT.reshape(-1))])


def read_fields(paths: Sequence[Path]) -> Iterator[StoredField]:
    """Read files in order; the disk is kept busy while those before are decoded.

    Raises:
        DatasetFormatError: Naming the first file that does not hold a SIREN's state dict.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(paths), _FILES_AT_ONCE):
            some = paths[start : start + _FILES_AT_ONCE]
            for path, content in zip(some, readers.map(_content, some), strict=True):
                yield _parse(_load(content, path), path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetFormatError(f"cannot read {path} ({error.strerror})") from error


def _load(content: bytes, path: Path) -> Any:
    if content.startswith(_PICKLE) and not content.startswith(_LEGACY):
        raise DatasetFormatError(f"{path} is a pickle; {NOT_OPENED}")
    try:
        with torch.serialization.safe_globals(_PLAIN_ARRAYS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file that then does not open
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise DatasetFormatError(f"{path} holds Python objects; {NOT_OPENED}") from error
        reason = (" ".join(str(error).split()) or type(error).__name__)[:80]
        raise DatasetFormatError(
            f"{path} is not a readable file of torch.save ({reason}); copy or download it again"
        ) from error


def _parse(content: Any, path: Path) -> StoredField:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise DatasetFormatError(
            f"{path} holds a {type(content).__name__}; expected the state dict of one field: "
            f"{ONE_EACH}"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    label = None
    properties: dict[str, float] = {}
    for key, value in content.items():
        layer, _, kind = key.rpartition(".")
        if isinstance(value, Tensor) and kind in ("weight", "bias"):
            layers.setdefault(layer, {})[kind] = _checked(value, 2 if kind == "weight" else 1,
                                                          key, path)  # fmt: skip
        elif key == LABEL:
            label = _label(value, path)
        elif key not in _SAMPLES:
            properties |= _numbers(key, value, path)
    if not layers:
        raise DatasetFormatError(
            f"{path} has no weights; expected keys such as 'seq.0.weight' (got "
            f"{', '.join(map(repr, list(content)[:4])) or 'nothing'})"
        )
    _check_chain(layers, path)
    pairs = list(layers.values())
    return StoredField(
        tuple(pair["weight"] for pair in pairs),
        tuple(pair["bias"] for pair in pairs),
        label,
        properties,
    )


def _checked(value: Tensor, num_dims: int, key: str, path: Path) -> Tensor:
    if value.dtype != torch.float32 or value.ndim != num_dims or value.is_sparse:
        raise DatasetFormatError(
            f"{path}: expected {key!r} to be a float32 tensor of {num_dims} dimension(s) (got "
            f"shape {list(value.shape)}, {str(value.dtype).removeprefix('torch.')})"
        )
    return value.detach()


def _check_chain(layers: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Refuse what is no SIREN of one hidden width, each map feeding the next."""
    for layer, pair in layers.items():
        if pair.keys() != {"weight", "bias"} or len(pair["weight"]) != len(pair["bias"]):
            raise DatasetFormatError(
                f"{path}: expected a weight and a bias of one length in {layer!r} "
                f"(got {', '.join(f'{kind} {list(t.shape)}' for kind, t in pair.items())})"
            )
    first = next(iter(layers))
    number = re.search(r"\d+", first)
    if number is not None and int(number[0]) > 0:
        raise DatasetFormatError(
            f"{path}: the first linear map is {first!r}, so something without weights stands "
            f"before it, such as a positional encoding; only SIRENs of coordinates are read"
        )
    weights = [pair["weight"] for pair in layers.values()]
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    fitting = all(len(before) == after.shape[1] for before, after in itertools.pairwise(weights))
    if len(weights) < 2 or not fitting or len(set(widths[1:-1])) > 1 or 0 in widths:
        shapes = ", ".join(str(list(weight.shape)) for weight in weights)
        raise DatasetFormatError(
            f"{path}: expected at least two linear maps, each of the outputs of the one before, "
            f"and hidden layers of one width (got weights of shapes {shapes})"
        )


def _label(value: Any, path: Path) -> int:
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    is_whole = isinstance(number, numbers.Real) and math.isfinite(number) and number % 1 == 0
    if not is_whole or number < 0:
        raise DatasetFormatError(f"{path}: expected 'label' to be a whole number (got {value!r})")
    return int(number)


def _numbers(key: str, value: Any, path: Path) -> dict[str, float]:
    """Return one number under its key, or those of a list as ``key_0``, ``key_1`` and so on."""
    items = value if isinstance(value, list | tuple) else [value]
    are_numbers = all(isinstance(item, numbers.Real) and math.isfinite(item) for item in items)
    if not are_numbers or not key.isidentifier():
        raise DatasetFormatError(
            f"{path} has {key!r}, a {type(value).__name__}; expected weights and biases of linear "
            f"maps, a label, and finite numbers only"
        )
    if items is not value:
        return {key: float(value)}
    return {f"{key}_{place}": float(item) for place, item in enumerate(items)}
