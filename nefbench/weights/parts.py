"""One Parquet part: a contiguous range of fields as flat float32 rows with their provenance."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from nefbench import files
from nefbench.errors import DatasetFormatError
from nefbench.weights.manifest import FORMAT_VERSION, ConfigEntry, PartEntry, part_name

_ROW_GROUP_BYTES = 64 * 2**20
_METADATA_KEY = b"nefbench"


@dataclass(frozen=True)
class FieldRows:
    """Fields as rows; every tensor has ``N`` entries.

    Attributes:
        weights: ``[N, P]``, float32.
        signal_index: Position of each field's signal in its source.
        init_seed: Seed of each field's start and draws.
        loss: Final loss over all fitted points, normalised values.
        status: Per field ``ok`` or ``diverged``.
        labels: Class numbers, or None.
        quality: Metric name to ``[N]``, float32.
        provenance: ``view`` and ``num_steps`` where they are known, int64 ``[N]``.
        properties: Name to a number per field that belongs to its signal, float64 ``[N]``.
    """

    weights: Tensor
    signal_index: Tensor
    init_seed: Tensor
    loss: Tensor
    status: tuple[str, ...]
    labels: Tensor | None
    quality: Mapping[str, Tensor]
    provenance: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    properties: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of fields ``N``."""
        return len(self.weights)

    @property
    def is_ok(self) -> Tensor:
        """Boolean ``[N]``: fields whose fit ended well."""
        return torch.tensor([status == "ok" for status in self.status])

    def select(self, mask: Tensor) -> FieldRows:
        """Return the fields where the boolean ``mask`` ``[N]`` is true."""
        chosen = mask.tolist()
        return FieldRows(
            self.weights[mask],
            self.signal_index[mask],
            self.init_seed[mask],
            self.loss[mask],
            tuple(s for s, keep in zip(self.status, chosen, strict=True) if keep),
            None if self.labels is None else self.labels[mask],
            {name: values[mask] for name, values in self.quality.items()},
            {name: values[mask] for name, values in self.provenance.items()},
            {name: values[mask] for name, values in self.properties.items()},
        )


def concatenate(rows: list[FieldRows]) -> FieldRows:
    """Join rows in order."""
    first = rows[0]
    return FieldRows(
        torch.cat([r.weights for r in rows]),
        torch.cat([r.signal_index for r in rows]),
        torch.cat([r.init_seed for r in rows]),
        torch.cat([r.loss for r in rows]),
        tuple(status for r in rows for status in r.status),
        None
        if first.labels is None
        else torch.cat([r.labels for r in rows if r.labels is not None]),
        {name: torch.cat([r.quality[name] for r in rows]) for name in first.quality},
        {name: torch.cat([r.provenance[name] for r in rows]) for name in first.provenance},
        {name: torch.cat([r.properties[name] for r in rows]) for name in first.properties},
    )


def write_part(
    folder: Path, config_name: str, entry: ConfigEntry, split: str, start: int, rows: FieldRows
) -> PartEntry:
    """Write rows as the part ``[start, start + N)`` of a split, atomically.

    The same rows give the same bytes. Returns the record for the manifest.
    """
    stop = start + len(rows)
    content = _encode(config_name, entry, split, start, rows)
    files.write_bytes(folder / config_name / part_name(split, start, stop), content)
    return _describe(content, split, start, stop)


def read_part(folder: Path, config_name: str, entry: ConfigEntry, part: PartEntry) -> FieldRows:
    """Read a part and check it against the manifest.

    Raises:
        DatasetFormatError: If the file is missing, damaged or not the one in the manifest.
    """
    path = folder / config_name / part.file_name
    remedy = (
        f"fit this part again with: "
        f"nefbench fit {shlex.quote(str(folder))} --config {config_name} "
        f"--only {part.start}:{part.stop}"
    )
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetFormatError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise DatasetFormatError(f"cannot read {path} ({error.strerror}); {remedy}") from error
    if len(content) != part.num_bytes:
        raise DatasetFormatError(
            f"{path} has {len(content)} bytes, {part.num_bytes} expected; "
            f"the file was cut or replaced; {remedy}"
        )
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise DatasetFormatError(
            f"{path}: checksum differs from nefbench.json; the file is damaged; {remedy}"
        )
    try:
        return _rows_from_bytes(content, path, config_name, entry, part)
    except DatasetFormatError as error:
        raise DatasetFormatError(f"{error}; {remedy}") from error


def adopt_part(
    folder: Path, config_name: str, entry: ConfigEntry, split: str, start: int, stop: int
) -> PartEntry | None:
    """Describe a finished part that the manifest does not list yet, or None if there is none.

    A run killed between writing a part and writing the manifest leaves such a file. A file that
    does not hold exactly these fields of this config is not adopted, nor is one of which a single
    byte differs from what would be written: no checksum covers a part's footer.
    """
    path = folder / config_name / part_name(split, start, stop)
    if not path.is_file():
        return None
    content = path.read_bytes()
    part = _describe(content, split, start, stop)
    try:
        rows = _rows_from_bytes(content, path, config_name, entry, part)
    except DatasetFormatError:
        return None
    return part if _encode(config_name, entry, split, start, rows) == content else None


def _encode(config_name: str, entry: ConfigEntry, split: str, start: int, rows: FieldRows) -> bytes:
    table = _table(rows, entry).replace_schema_metadata(
        _metadata(config_name, entry, split, start, start + len(rows))
    )
    rows_per_group = max(1, _ROW_GROUP_BYTES // (4 * entry.spec.num_params))
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=["weights.list.element"],
        row_group_size=rows_per_group,
        write_page_index=True,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _describe(content: bytes, split: str, start: int, stop: int) -> PartEntry:
    return PartEntry(
        split=split, start=start, stop=stop, num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip


def _rows_from_bytes(
    content: bytes, path: Path, config_name: str, entry: ConfigEntry, part: PartEntry
) -> FieldRows:
    try:
        # One thread: the pools behind ``read_table`` now and then abort a process that is ending.
        file = pq.ParquetFile(
            io.BytesIO(content), page_checksum_verification=True, pre_buffer=False
        )
        table = file.read(use_threads=False)
        names = table.schema.names  # decoded only here
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DatasetFormatError(f"{path} is not a readable Parquet file ({reason})") from error
    expected = _metadata(config_name, entry, part.split, part.start, part.stop)[_METADATA_KEY]
    if (table.schema.metadata or {}).get(_METADATA_KEY) != expected:
        raise DatasetFormatError(f"{path} holds other fields than nefbench.json says")
    schema = _schema(entry)
    if names != schema.names or table.schema.types != schema.types:
        raise DatasetFormatError(f"{path} has other columns than nefbench.json says")
    if len(table) != part.stop - part.start:
        raise DatasetFormatError(
            f"{path} has {len(table)} rows, nefbench.json says {part.stop - part.start}"
        )
    return _rows_from_table(table, entry)


def _schema(entry: ConfigEntry) -> pa.Schema:
    columns: list[tuple[str, pa.DataType]] = [
        ("weights", pa.list_(pa.float32(), entry.spec.num_params))
    ]
    if entry.signals.class_names:
        columns.append(("label", pa.int64()))
    columns += [(name, pa.float64()) for name in property_columns(entry).values()]
    numbers = ("signal_index", "init_seed", *entry.provenance)
    columns += [(name, pa.int64()) for name in numbers]
    columns += [(name, pa.float32()) for name in (*entry.metrics, "loss")]
    return pa.schema([*columns, ("status", pa.string())])


def property_columns(entry: ConfigEntry) -> dict[str, str]:
    """Return the column of every property: its name, prefixed where another column has it."""
    ours = {"weights", "label", "signal_index", "init_seed", "loss", "status"}
    ours.update(entry.provenance, entry.metrics)
    columns = {}
    for name in entry.properties:
        column = name
        while column in ours or (column != name and column in entry.properties):
            column = f"property_{column}"
        columns[name] = column
    return columns


def _table(rows: FieldRows, entry: ConfigEntry) -> pa.Table:
    flat = pa.array(rows.weights.contiguous().numpy().reshape(-1))
    columns: dict[str, Any] = {
        "weights": pa.FixedSizeListArray.from_arrays(flat, rows.weights.shape[1]),
        "signal_index": rows.signal_index.numpy(),
        "init_seed": rows.init_seed.numpy(),
        "loss": rows.loss.numpy(),
        "status": list(rows.status),
        **{name: values.numpy() for name, values in rows.quality.items()},
        **{name: values.numpy() for name, values in rows.provenance.items()},
        **{
            column: rows.properties[name].numpy()
            for name, column in property_columns(entry).items()
        },
    }
    if rows.labels is not None:
        columns["label"] = rows.labels.numpy()
    schema = _schema(entry)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _rows_from_table(table: pa.Table, entry: ConfigEntry) -> FieldRows:
    def numbers(name: str) -> Tensor:
        return torch.from_numpy(np.array(table[name].to_numpy()))

    weights = table["weights"].combine_chunks()
    if isinstance(weights, pa.ChunkedArray):
        weights = pa.concat_arrays(weights.chunks)
    flat = np.array(weights.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return FieldRows(
        weights=torch.from_numpy(flat).reshape(len(table), entry.spec.num_params),
        signal_index=numbers("signal_index"),
        init_seed=numbers("init_seed"),
        loss=numbers("loss"),
        status=tuple(table["status"].to_pylist()),
        labels=numbers("label") if entry.signals.class_names else None,
        quality={name: numbers(name) for name in entry.metrics},
        provenance={name: numbers(name) for name in entry.provenance},
        properties={name: numbers(column) for name, column in property_columns(entry).items()},
    )


def _metadata(
    config_name: str, entry: ConfigEntry, split: str, start: int, stop: int
) -> dict[bytes, bytes]:
    ours = {
        "format_version": FORMAT_VERSION,
        "config": config_name,
        "digest": entry.digest,
        "engine": entry.engine,
        "split": split,
        "start": start,
        "stop": stop,
        "tensors": [[name, list(shape)] for name, shape in entry.tensors],
    }
    return {
        b"huggingface": json.dumps({"info": {"features": huggingface_features(entry)}}).encode(),
        _METADATA_KEY: json.dumps(ours).encode(),
    }


def huggingface_features(entry: ConfigEntry) -> dict[str, Any]:
    """Describe the columns in the words of ``datasets.Features``, without that library."""
    features: dict[str, Any] = {}
    for column in _schema(entry):
        if column.name == "weights":
            features["weights"] = {
                "feature": {"dtype": "float32", "_type": "Value"},
                "length": entry.spec.num_params,
                "_type": "List",
            }
        elif column.name == "label":
            features["label"] = {"names": list(entry.signals.class_names), "_type": "ClassLabel"}
        else:
            dtype = {"float": "float32", "double": "float64"}.get(
                str(column.type), str(column.type)
            )
            features[column.name] = {"dtype": dtype, "_type": "Value"}
    return features
