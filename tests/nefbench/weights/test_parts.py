from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nefbench.errors import DatasetFormatError
from nefbench.fields import MLP, FieldConfig, Siren
from nefbench.signals import Split
from nefbench.weights.manifest import ConfigEntry, PartEntry, SignalsEntry
from nefbench.weights.parts import (
    FieldRows,
    adopt_part,
    concatenate,
    huggingface_features,
    property_columns,
    read_part,
    write_part,
)

NAME = "siren-h4-shared"
SMALL = Siren(hidden_dim=4, num_layers=2)


def make_entry(
    *,
    field: FieldConfig = SMALL,
    class_names: tuple[str, ...] = ("cat", "dog"),
    metrics: tuple[str, ...] = ("psnr_db", "ssim"),
    properties: tuple[str, ...] = (),
) -> ConfigEntry:
    return ConfigEntry(
        field=field,
        in_dim=2,
        out_dim=1,
        tensors=field.spec(2, 1).layout,
        signals=SignalsEntry(
            name="toy",
            source="drawn",
            fingerprint="f" * 64,
            licence="MIT",
            grid_shape=(5, 4),
            mean=(0.5,),
            std=(0.25,),
            class_names=class_names,
        ),
        splits=(Split("train", 0, 20), Split("test", 20, 30)),
        fit={"num_steps": 3},
        digest="d" * 64,
        engine="vmapped torch-test",
        generator="philox4x32-10",
        metrics=metrics,
        provenance=("view", "num_steps"),
        properties=properties,
    )


def make_rows(entry: ConfigEntry, count: int, *, first_index: int = 0) -> FieldRows:
    draw = torch.Generator().manual_seed(first_index)
    return FieldRows(
        weights=torch.randn(count, entry.spec.num_params, generator=draw),
        signal_index=torch.arange(first_index, first_index + count),
        init_seed=torch.full((count,), 7),
        loss=torch.rand(count, generator=draw),
        status=tuple("diverged" if i % 3 == 2 else "ok" for i in range(count)),
        labels=torch.arange(count) % 2 if entry.signals.class_names else None,
        quality={name: torch.rand(count, generator=draw) for name in entry.metrics},
        provenance={name: torch.randint(99, (count,), generator=draw) for name in entry.provenance},
        properties={
            name: torch.rand(count, generator=draw, dtype=torch.float64)
            for name in entry.properties
        },
    )


def same_bits(first: Tensor, second: Tensor) -> bool:
    assert first.dtype == second.dtype == torch.float32
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def assert_same_rows(first: FieldRows, second: FieldRows) -> None:
    assert same_bits(first.weights, second.weights)
    assert torch.equal(first.signal_index, second.signal_index)
    assert torch.equal(first.init_seed, second.init_seed)
    assert same_bits(first.loss, second.loss)
    assert first.status == second.status
    if first.labels is None or second.labels is None:
        assert first.labels is second.labels
    else:
        assert torch.equal(first.labels, second.labels)
    assert list(first.provenance) == list(second.provenance)
    for name, numbers in first.provenance.items():
        assert torch.equal(numbers, second.provenance[name])
    assert list(first.properties) == list(second.properties)
    for name, numbers in first.properties.items():
        assert numbers.dtype == second.properties[name].dtype == torch.float64
        assert torch.equal(numbers, second.properties[name])
    assert list(first.quality) == list(second.quality)
    for name in first.quality:
        assert same_bits(first.quality[name], second.quality[name])


def path_of(folder: Path, part: PartEntry) -> Path:
    return folder / NAME / part.file_name


def described(content: bytes, part: PartEntry) -> PartEntry:
    """The record of a manifest that was made after the file was changed."""
    checksum = hashlib.sha256(content).hexdigest()
    return dataclasses.replace(part, num_bytes=len(content), sha256=checksum)


def flip(path: Path, position: int, mask: int = 0x10) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


# Round trips


def test_a_written_part_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    entry = make_entry()
    rows = make_rows(entry, 6)
    # Two NaNs with payloads, -0.0, the smallest denormal, infinity.
    patterns = [0x7FC12345, 0xFFC00001 - 2**32, -(2**31), 1, 0x7F800000]
    rows.weights[1, :5] = torch.tensor(patterns, dtype=torch.int32).view(torch.float32)
    rows.loss[1] = math.nan
    rows.quality["psnr_db"][1] = -math.inf
    rows.quality["ssim"][1] = math.nan

    part = write_part(tmp_path, NAME, entry, "train", 4, rows)

    assert (part.split, part.start, part.stop) == ("train", 4, 10)
    assert part.file_name == "train/part-000004-000010.parquet"
    assert_same_rows(read_part(tmp_path, NAME, entry, part), rows)


@settings(max_examples=30, deadline=None)
@given(patterns=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=17, max_size=17))
def test_any_bit_pattern_survives_as_a_weight(
    patterns: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    entry = make_entry()
    folder = tmp_path_factory.mktemp("bits")
    rows = make_rows(entry, 1)
    rows.weights[0] = torch.tensor(patterns, dtype=torch.int32).view(torch.float32)

    part = write_part(folder, NAME, entry, "train", 0, rows)

    assert_same_rows(read_part(folder, NAME, entry, part), rows)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    entry = make_entry()
    rows = make_rows(entry, 5)
    strided = dataclasses.replace(rows, weights=rows.weights.mT.contiguous().mT)
    assert not strided.weights.is_contiguous()

    first = write_part(tmp_path / "a", NAME, entry, "train", 0, rows)
    second = write_part(tmp_path / "b", NAME, entry, "train", 0, strided)

    content = path_of(tmp_path / "a", first).read_bytes()
    assert content == path_of(tmp_path / "b", second).read_bytes()
    assert first == second
    assert first == described(content, first)


def test_a_part_of_several_row_groups_is_read_back_in_order(tmp_path: Path) -> None:
    field = MLP(hidden_dim=2400, num_layers=2)  # P = 5,772,001: two rows in 64 MB
    entry = make_entry(field=field, metrics=())
    weights = torch.zeros(3, entry.spec.num_params)
    weights[:, ::1000] = torch.tensor([1.0, 2.0, 3.0])[:, None]
    rows = dataclasses.replace(make_rows(make_entry(metrics=()), 3), weights=weights)

    part = write_part(tmp_path, NAME, entry, "train", 0, rows)

    assert pq.ParquetFile(path_of(tmp_path, part)).num_row_groups == 2
    assert_same_rows(read_part(tmp_path, NAME, entry, part), rows)


def test_a_part_without_labels_has_no_label_column(tmp_path: Path) -> None:
    entry = make_entry(class_names=())
    rows = make_rows(entry, 3)

    part = write_part(tmp_path, NAME, entry, "train", 0, rows)

    assert "label" not in pq.read_schema(path_of(tmp_path, part)).names
    assert "label" not in huggingface_features(entry)
    assert_same_rows(read_part(tmp_path, NAME, entry, part), rows)


def test_properties_are_columns_of_float64_that_keep_every_digit(tmp_path: Path) -> None:
    entry = make_entry(properties=("viscosity", "Re"))
    rows = make_rows(entry, 3)
    rows.properties["viscosity"][0] = 0.1 + 0.2  # not 0.3, and not a float32

    part = write_part(tmp_path, NAME, entry, "train", 0, rows)

    schema = pq.read_schema(path_of(tmp_path, part))
    assert schema.names[:4] == ["weights", "label", "viscosity", "Re"]
    assert schema.field("viscosity").type == pa.float64()
    assert pq.read_table(path_of(tmp_path, part))["viscosity"][0].as_py() == 0.1 + 0.2
    assert_same_rows(read_part(tmp_path, NAME, entry, part), rows)
    assert adopt_part(tmp_path, NAME, entry, "train", 0, 3) == part
    other = dataclasses.replace(entry, properties=("viscosity",))
    assert adopt_part(tmp_path, NAME, other, "train", 0, 3) is None


def test_a_property_called_like_another_column_is_prefixed_in_the_file(tmp_path: Path) -> None:
    names = ("loss", "property_loss", "view", "psnr_db", "label", "mass")
    entry = make_entry(properties=names)
    rows = make_rows(entry, 2)

    part = write_part(tmp_path, NAME, entry, "train", 0, rows)

    assert property_columns(entry) == {
        "loss": "property_property_loss", "property_loss": "property_loss",
        "view": "property_view", "psnr_db": "property_psnr_db", "label": "property_label",
        "mass": "mass",
    }  # fmt: skip
    assert_same_rows(read_part(tmp_path, NAME, entry, part), rows)


# The file format


def test_columns_have_the_promised_names_order_and_arrow_types(tmp_path: Path) -> None:
    entry = make_entry()

    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))

    schema = pq.read_schema(path_of(tmp_path, part))
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        "weights": pa.list_(pa.float32(), 17),  # 4 + 2 x 4 + 1 + 4
        "label": pa.int64(),
        "signal_index": pa.int64(),
        "init_seed": pa.int64(),
        "view": pa.int64(),
        "num_steps": pa.int64(),
        "psnr_db": pa.float32(),
        "ssim": pa.float32(),
        "loss": pa.float32(),
        "status": pa.string(),
    }
    assert schema.names == [
        "weights", "label", "signal_index", "init_seed", "view", "num_steps", "psnr_db", "ssim",
        "loss", "status",
    ]  # fmt: skip
    assert pa.types.is_fixed_size_list(schema.field("weights").type)


def test_pandas_and_anything_else_that_reads_parquet_sees_plain_rows(tmp_path: Path) -> None:
    entry = make_entry()
    rows = make_rows(entry, 3)

    part = write_part(tmp_path, NAME, entry, "train", 0, rows)

    table = pq.read_table(path_of(tmp_path, part))
    assert table["weights"].to_pylist() == rows.weights.tolist()
    assert table["label"].to_pylist() == [0, 1, 0]
    assert table["status"].to_pylist() == ["ok", "ok", "diverged"]


def test_columns_are_compressed_with_zstd_and_weights_split_into_byte_streams(
    tmp_path: Path,
) -> None:
    entry = make_entry()

    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 50))

    group = pq.ParquetFile(path_of(tmp_path, part)).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert [c.path_in_schema for c in columns if "BYTE_STREAM_SPLIT" in c.encodings] == [
        "weights.list.element"
    ]
    assert not any(column.has_dictionary_page for column in columns)
    assert all(column.has_offset_index and column.has_column_index for column in columns)


def test_a_flipped_byte_of_a_data_page_is_caught_by_the_page_checksum(tmp_path: Path) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    path = path_of(tmp_path, part)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)

    # The last byte of the page: three random rows do not compress, so it is a weight's own byte.
    flip(path, column.data_page_offset + column.total_compressed_size - 1)

    assert pq.read_table(path) is not None, "without checksums nobody notices"
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_the_metadata_of_a_part_says_what_it_holds(tmp_path: Path) -> None:
    entry = make_entry()

    part = write_part(tmp_path, NAME, entry, "test", 20, make_rows(entry, 3))

    stored = json.loads(pq.read_schema(path_of(tmp_path, part)).metadata[b"nefbench"])
    assert stored["format_version"] == 1
    assert stored["config"] == NAME
    assert stored["digest"] == "d" * 64
    assert stored["engine"] == "vmapped torch-test"
    assert (stored["split"], stored["start"], stored["stop"]) == ("test", 20, 23)
    assert stored["tensors"] == [
        ["kernel_net_0.linear.bias", [4]],
        ["kernel_net_0.linear.kernel", [2, 4]],
        ["output_linear.bias", [1]],
        ["output_linear.kernel", [4, 1]],
    ]


@pytest.mark.parametrize("class_names", [(), ("cat", "dog")])
def test_the_features_are_those_that_datasets_itself_would_write(
    tmp_path: Path, class_names: tuple[str, ...]
) -> None:
    from datasets import ClassLabel, Features, List, Value

    entry = make_entry(class_names=class_names, properties=("mass",))
    label = {"label": ClassLabel(names=list(class_names))} if class_names else {}
    features = Features(
        {
            "weights": List(Value("float32"), length=17),
            **label,
            "mass": Value("float64"),
            "signal_index": Value("int64"),
            "init_seed": Value("int64"),
            "view": Value("int64"),
            "num_steps": Value("int64"),
            "psnr_db": Value("float32"),
            "ssim": Value("float32"),
            "loss": Value("float32"),
            "status": Value("string"),
        }
    )

    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 2))

    schema = pq.read_schema(path_of(tmp_path, part))
    expected = features.arrow_schema
    assert json.loads(schema.metadata[b"huggingface"]) == json.loads(
        expected.metadata[b"huggingface"]
    )
    assert schema.types == expected.types
    assert Features.from_arrow_schema(schema) == features


# Reading what is not as it should be


def remove(folder: Path, part: PartEntry) -> None:
    path_of(folder, part).unlink()


def cut(folder: Path, part: PartEntry) -> None:
    path = path_of(folder, part)
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder: Path, part: PartEntry) -> None:
    path_of(folder, part).write_bytes(b"")


def lengthen(folder: Path, part: PartEntry) -> None:
    path = path_of(folder, part)
    path.write_bytes(path.read_bytes() + b"\0")


def put_a_folder_there(folder: Path, part: PartEntry) -> None:
    path_of(folder, part).unlink()
    path_of(folder, part).mkdir()


def swap_with_another_part_of_the_same_size(folder: Path, part: PartEntry) -> None:
    entry = make_entry()
    for first_index in range(3, 1000):
        rows = make_rows(entry, 3, first_index=first_index)
        other = write_part(folder, NAME, entry, "train", 3, rows)
        if other.num_bytes == part.num_bytes:
            path_of(folder, other).replace(path_of(folder, part))
            return
    raise AssertionError("no part of this size")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove, "is missing"),
        (cut, r"\d+ bytes, \d+ expected"),
        (empty, r"0 bytes, \d+ expected"),
        (lengthen, r"\d+ bytes, \d+ expected"),
        (put_a_folder_there, "cannot read"),
        (swap_with_another_part_of_the_same_size, "checksum differs"),
    ],
)
def test_a_part_that_is_not_the_recorded_one_names_itself_and_the_remedy(
    tmp_path: Path, damage: Callable[[Path, PartEntry], None], reason: str
) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))

    damage(tmp_path, part)

    with pytest.raises(DatasetFormatError, match=reason) as caught:
        read_part(tmp_path, NAME, entry, part)
    assert_names_file_and_remedy(caught.value, tmp_path, part)


def assert_names_file_and_remedy(error: Exception, folder: Path, part: PartEntry) -> None:
    text = str(error)
    assert str(path_of(folder, part)) in text
    command = f"nefbench fit {folder} --config {NAME} --only {part.start}:{part.stop}"
    assert text.endswith(command)
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("place", [0.0, 0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.97, 1.0])
def test_one_flipped_byte_anywhere_is_an_error(tmp_path: Path, place: float) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))

    flip(path_of(tmp_path, part), round(place * (part.num_bytes - 1)))

    with pytest.raises(DatasetFormatError, match="checksum differs") as caught:
        read_part(tmp_path, NAME, entry, part)
    assert_names_file_and_remedy(caught.value, tmp_path, part)


def test_a_damaged_part_with_a_matching_checksum_is_right_or_refused_in_one_line(
    tmp_path: Path,
) -> None:
    """Damage from before the checksum was taken: Parquet itself must hold, on any byte."""
    entry = make_entry()
    rows = make_rows(entry, 3)
    part = write_part(tmp_path, NAME, entry, "train", 0, rows)
    path = path_of(tmp_path, part)
    sound = path.read_bytes()
    refused = 0

    for position in range(0, len(sound), 31):
        content = bytearray(sound)
        content[position] ^= 0x80
        path.write_bytes(content)
        try:
            read = read_part(tmp_path, NAME, entry, described(content, part))
        except DatasetFormatError as error:
            assert_names_file_and_remedy(error, tmp_path, part)
            refused += 1
        else:
            assert_same_rows(read, rows)

    assert refused > 10


def test_a_footer_whose_column_names_are_not_text_is_refused(tmp_path: Path) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    path = path_of(tmp_path, part)
    footer = path.read_bytes().find(b"signal_index")  # its first place: the footer's schema

    flip(path, footer, 0x80)

    with pytest.raises(DatasetFormatError, match="not a readable Parquet file"):
        read_part(tmp_path, NAME, entry, described(path.read_bytes(), part))
    assert adopt_part(tmp_path, NAME, entry, "train", 0, 3) is None


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "e" * 64},
        {"engine": "another"},
        {"metrics": ("psnr_db",)},
        {"field": Siren(hidden_dim=3, num_layers=2), "tensors": Siren(hidden_dim=3, num_layers=2)
         .spec(2, 1).layout},
    ],
    ids=["digest", "engine", "metrics", "field"],
)  # fmt: skip
def test_a_part_that_disagrees_with_the_manifest_names_itself_and_the_remedy(
    tmp_path: Path, change: dict[str, object]
) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    other = dataclasses.replace(entry, **change)  # type: ignore[arg-type]

    with pytest.raises(DatasetFormatError, match=r"other (fields|columns) than") as caught:
        read_part(tmp_path, NAME, other, part)

    assert_names_file_and_remedy(caught.value, tmp_path, part)


def test_a_part_under_the_name_of_another_config_or_range_is_refused(tmp_path: Path) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    moved = dataclasses.replace(part, start=3, stop=6)
    path_of(tmp_path, moved).write_bytes(path_of(tmp_path, part).read_bytes())
    elsewhere = tmp_path / "other" / part.file_name
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(path_of(tmp_path, part).read_bytes())

    with pytest.raises(DatasetFormatError, match="holds other fields"):
        read_part(tmp_path, NAME, entry, moved)
    with pytest.raises(DatasetFormatError, match="holds other fields"):
        read_part(tmp_path, "other", entry, part)


def rewritten(path: Path, table: pa.Table) -> bytes:
    """The file written again by somebody else, with our metadata but another table."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(pq.read_schema(path).metadata), buffer)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def test_a_rewritten_part_with_fewer_rows_is_refused(tmp_path: Path) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    path = path_of(tmp_path, part)

    content = rewritten(path, pq.read_table(path).slice(1))

    with pytest.raises(DatasetFormatError, match=r"has 2 rows, nefbench\.json says 3"):
        read_part(tmp_path, NAME, entry, described(content, part))


def test_a_rewritten_part_with_other_columns_is_refused(tmp_path: Path) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    path = path_of(tmp_path, part)
    table = pq.read_table(path)
    doubles = table["loss"].cast(pa.float64())

    dropped = rewritten(path, table.drop_columns(["ssim"]))
    with pytest.raises(DatasetFormatError, match="other columns"):
        read_part(tmp_path, NAME, entry, described(dropped, part))
    retyped = rewritten(path, table.set_column(8, "loss", doubles))
    with pytest.raises(DatasetFormatError, match="other columns"):
        read_part(tmp_path, NAME, entry, described(retyped, part))


# Adopting


def test_a_finished_part_that_no_manifest_lists_is_adopted(tmp_path: Path) -> None:
    entry = make_entry()
    written = write_part(tmp_path, NAME, entry, "train", 3, make_rows(entry, 3))

    assert adopt_part(tmp_path, NAME, entry, "train", 3, 6) == written


def test_nothing_is_adopted_where_there_is_no_file(tmp_path: Path) -> None:
    entry = make_entry()
    write_part(tmp_path, NAME, entry, "train", 3, make_rows(entry, 3))

    assert adopt_part(tmp_path, NAME, entry, "train", 0, 3) is None
    assert adopt_part(tmp_path, NAME, entry, "train", 3, 7) is None


def test_a_part_made_in_another_way_is_not_adopted(tmp_path: Path) -> None:
    entry = make_entry()
    write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    other = dataclasses.replace(entry, digest="e" * 64)

    assert adopt_part(tmp_path, NAME, other, "train", 0, 3) is None


def test_a_part_of_which_any_byte_differs_is_not_adopted(tmp_path: Path) -> None:
    entry = make_entry()
    part = write_part(tmp_path, NAME, entry, "train", 0, make_rows(entry, 3))
    path = path_of(tmp_path, part)
    sound = path.read_bytes()

    for position in range(0, len(sound), 31):
        flip(path, position, 0x01)
        assert adopt_part(tmp_path, NAME, entry, "train", 0, 3) is None, position
        path.write_bytes(sound)

    for size in (0, 3, 12, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:size])
        assert adopt_part(tmp_path, NAME, entry, "train", 0, 3) is None, size


# Rows in memory


def test_concatenated_rows_keep_their_order_in_every_column() -> None:
    entry = make_entry(properties=("mass",))
    first, second = make_rows(entry, 2), make_rows(entry, 3, first_index=2)

    joined = concatenate([first, second])

    assert len(joined) == 5
    assert joined.signal_index.tolist() == [0, 1, 2, 3, 4]
    assert joined.status == ("ok", "ok", "ok", "ok", "diverged")
    assert joined.labels is not None
    assert joined.labels.tolist() == [0, 1, 0, 1, 0]
    assert torch.equal(joined.weights[2:], second.weights)
    assert torch.equal(joined.loss[:2], first.loss)
    assert torch.equal(joined.init_seed, torch.full((5,), 7))
    assert torch.equal(joined.quality["ssim"][2:], second.quality["ssim"])
    assert list(joined.quality) == ["psnr_db", "ssim"]
    assert torch.equal(joined.properties["mass"][2:], second.properties["mass"])


def test_selecting_keeps_the_chosen_rows_in_every_column() -> None:
    rows = make_rows(make_entry(properties=("mass",)), 4)

    chosen = rows.select(rows.is_ok)

    assert rows.is_ok.tolist() == [True, True, False, True]
    assert chosen.signal_index.tolist() == [0, 1, 3]
    assert chosen.status == ("ok", "ok", "ok")
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [0, 1, 1]
    assert torch.equal(chosen.weights, rows.weights[[0, 1, 3]])
    assert torch.equal(chosen.loss, rows.loss[[0, 1, 3]])
    assert torch.equal(chosen.quality["psnr_db"], rows.quality["psnr_db"][[0, 1, 3]])
    assert chosen.init_seed.tolist() == [7, 7, 7]
    for name in ("view", "num_steps"):
        assert torch.equal(chosen.provenance[name], rows.provenance[name][[0, 1, 3]])
    assert torch.equal(chosen.properties["mass"], rows.properties["mass"][[0, 1, 3]])


def test_rows_without_labels_stay_without_labels() -> None:
    rows = make_rows(make_entry(class_names=()), 3)

    assert concatenate([rows, rows]).labels is None
    assert rows.select(rows.is_ok).labels is None
