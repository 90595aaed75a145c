"""A start file: the weights that fields begin with, in one ``.npz``, with how they were made.

Arrays ``params`` and perhaps ``step_sizes``, float32 ``[1, P]``, and ``header``, the bytes of a
JSON text: format version, field, ``in_dim``, ``out_dim``, tensors (name, shape) and ``made``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nefbench import files
from nefbench.config import config_from_mapping, config_to_mapping, differing_keys
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import FieldConfig
from nefbench.spec import ParamSpec

FORMAT_VERSION = 1
_OLDEST_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_FILES_KEPT = 8


@dataclass(frozen=True)
class StartFile:
    """Content of a start file.

    Attributes:
        field: The architecture.
        in_dim: Coordinates ``d``.
        out_dim: Output channels ``c``.
        params: Weights ``[1, P]``, float32.
        step_sizes: Learning rate of every weight ``[1, P]``, float32, where they were learned too.
        made: How they were made, as plain data.
    """

    field: FieldConfig
    in_dim: int
    out_dim: int
    params: Tensor
    step_sizes: Tensor | None = None
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def spec(self) -> ParamSpec:
        """Names and shapes of a row."""
        return self.field.spec(self.in_dim, self.out_dim)


def write_start_file(path: Path | str, start: StartFile) -> None:
    """Write a start file atomically; the same content gives the same bytes."""
    header = _Header(
        field=start.field,
        in_dim=start.in_dim,
        out_dim=start.out_dim,
        tensors=start.spec.layout,
        made=dict(start.made),
    )
    for rows in (start.params, start.step_sizes):
        assert rows is None or rows.shape == (1, start.spec.num_params), "one row of the field"
    arrays = {"header": bytes_of_json(config_to_mapping(header)), "params": start.params.numpy()}
    if start.step_sizes is not None:
        arrays["step_sizes"] = start.step_sizes.numpy()
    files.write_bytes(Path(path), npz_bytes(arrays))


def read_start_file(path: Path | str, sha256: str | None = None) -> StartFile:
    """Read and check a start file.

    Args:
        path: Where it lies.
        sha256: Checksum that its bytes must have, if known.

    Raises:
        DatasetFormatError: If it is missing, damaged, foreign, of a newer format, or another one
            than the checksum says.
    """
    path = Path(path)
    content = _content_of(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DatasetFormatError(
            f"{path} is not the start file that was asked for (its SHA-256 is "
            f"{hashlib.sha256(content).hexdigest()[:12]}…, expected {sha256[:12]}…)"
        )
    return _parse(path, content)


def checksum_of(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        DatasetFormatError: If the file cannot be read.
    """
    return hashlib.sha256(_content_of(path)).hexdigest()


def check_checksum(sha256: str | None) -> None:
    """Raise ``ValueError`` unless this can be a checksum, or there is none."""
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"expected sha256 as 64 hexadecimal digits (got {sha256!r})")


def start_for(
    path: Path, sha256: str | None, field: FieldConfig, in_dim: int, out_dim: int
) -> StartFile:
    """Read the start file of fields of one architecture; see ``read_start_file``.

    A file whose checksum is known is read once per process.

    Raises:
        DatasetFormatError: If it belongs to another architecture too.
    """
    start = _load(path, sha256)
    theirs = {"in_dim": start.in_dim, "out_dim": start.out_dim,
              "field": config_to_mapping(start.field)}  # fmt: skip
    ours = {"in_dim": in_dim, "out_dim": out_dim, "field": config_to_mapping(field)}
    differences = differing_keys(theirs, ours)
    if differences:
        listed = "; ".join(
            f"{k} = {there!r} there, {here!r} here" for k, there, here in differences
        )
        raise DatasetFormatError(
            f"{path} starts {_described(start.field, start.in_dim, start.out_dim)}, the fields to "
            f"fit are {_described(field, in_dim, out_dim)} ({listed})"
        )
    return start


def step_sizes_for(path: Path | None, sha256: str | None, num_params: int) -> Tensor:
    """Read the step sizes ``[1, P]`` in a start file; see ``read_start_file``.

    Raises:
        DatasetFormatError: If it has none, or none of so many weights too.
    """
    if path is None:
        raise DatasetFormatError("learned step sizes come from a start file: give its path")
    start = _load(path, sha256)
    if start.step_sizes is None:
        raise DatasetFormatError(
            f"{path} has no step sizes: learn them with init.kind = 'meta' and "
            f"init.learn_step_sizes = true"
        )
    if start.step_sizes.shape[1] != num_params:
        raise DatasetFormatError(
            f"{path} has step sizes for {start.step_sizes.shape[1]:,} weights, the fields to fit "
            f"have {num_params:,}"
        )
    return start.step_sizes


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return an ``.npz`` of arrays whose bytes depend on nothing else."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _OLDEST_TIME)
            entry.create_system = _UNIX
            buffer = io.BytesIO()
            np.lib.format.write_array(
                buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
            )
            archive.writestr(entry, buffer.getvalue())
    return content.getvalue()


def read_npz(path: Path, content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an ``.npz``.

    Raises:
        DatasetFormatError: If the bytes are something else, damaged, or hold pickled objects.
    """
    if not content.startswith(b"PK"):
        raise DatasetFormatError(f"{path} is not a start file (no .npz archive)")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, NumPy and zlib each have their own
        reason = " ".join(str(error).split())
        raise DatasetFormatError(f"{path} is damaged or no start file ({reason})") from error


@dataclass(frozen=True, kw_only=True)
class _Header:
    field: FieldConfig
    in_dim: int
    out_dim: int
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    made: dict[str, Any]
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if min(self.in_dim, self.out_dim) < 1:
            raise ValueError(
                f"expected in_dim and out_dim >= 1 (got {self.in_dim}, {self.out_dim})"
            )


def _load(path: Path, sha256: str | None) -> StartFile:
    path = path.expanduser()
    return read_start_file(path) if sha256 is None else _read_once(path, sha256)


@functools.lru_cache(maxsize=_FILES_KEPT)
def _read_once(path: Path, sha256: str) -> StartFile:
    return read_start_file(path, sha256)


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetFormatError(f"no such start file: {path}") from error
    except OSError as error:
        raise DatasetFormatError(f"cannot read start file {path}: {error.strerror}") from error


def bytes_of_json(header: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Return plain data as an array of the bytes of its JSON text, keys sorted."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _parse(path: Path, content: bytes) -> StartFile:
    arrays = read_npz(path, content)
    if not {"header", "params"} <= arrays.keys() <= {"header", "params", "step_sizes"}:
        raise DatasetFormatError(
            f"{path} is not a start file: expected arrays header, params and perhaps step_sizes "
            f"(got {', '.join(sorted(arrays)) or 'none'})"
        )
    header = _header_of(path, arrays["header"])
    spec = header.field.spec(header.in_dim, header.out_dim)
    if header.tensors != spec.layout:
        raise DatasetFormatError(
            f"{path}: its tensors are not those of "
            f"{_described(header.field, header.in_dim, header.out_dim)}"
        )
    rows = {
        name: _row_of(path, name, arrays[name], spec.num_params)
        for name in ("params", "step_sizes")
        if name in arrays
    }
    return StartFile(header.field, header.in_dim, header.out_dim, rows["params"],
                     rows.get("step_sizes"), header.made)  # fmt: skip


def _header_of(path: Path, stored: npt.NDArray[Any]) -> _Header:
    try:
        header = json.loads(stored.tobytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is damaged: its header is not JSON") from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DatasetFormatError(f"{path}: its header has no format_version; not a start file")
    if version > FORMAT_VERSION:
        raise DatasetFormatError(
            f"{path} has start format version {version}, this nefbench reads up to "
            f"{FORMAT_VERSION}; upgrade nefbench"
        )
    try:
        parsed = config_from_mapping(_Header, header)
        parsed.field.spec(parsed.in_dim, parsed.out_dim)
    except (ConfigError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DatasetFormatError(f"{path} is damaged: {reason}") from error
    return parsed


def _row_of(path: Path, name: str, array: npt.NDArray[Any], num_params: int) -> Tensor:
    if array.shape != (1, num_params) or array.dtype != np.float32:
        raise DatasetFormatError(
            f"{path}: expected {name} as float32 of shape (1, {num_params}) "
            f"(got {array.dtype} of shape {array.shape})"
        )
    if not np.isfinite(array).all():
        raise DatasetFormatError(f"{path}: {name} holds NaN or infinite values")
    return torch.from_numpy(array.copy())


def _described(field: FieldConfig, in_dim: int, out_dim: int) -> str:
    return (
        f"{field.kind} of width {field.hidden_dim}, {in_dim} to {out_dim}, "
        f"{field.spec(in_dim, out_dim).num_params:,} weights"
    )
