from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import FourierNet, RFFNet, Siren
from nefbench.signals import Split
from nefbench.weights import ConfigEntry, Manifest, read_manifest, write_manifest
from nefbench.weights.manifest import (
    FORMAT_VERSION,
    PartEntry,
    SignalsEntry,
    SplitSummary,
    check_config_name,
    open_or_new_manifest,
    part_name,
)

SIGNALS = SignalsEntry(
    name="toy",
    source="drawn by hand – ½ µm",
    fingerprint="f" * 64,
    licence="MIT",
    grid_shape=(5, 4),
    mean=(0.1 + 0.2,),
    std=(1 / 3,),
    class_names=("cat", "dog"),
    config={"kind": "digits", "max_signals": None, "split_seed": 3},
)


def make_part(split: str, start: int, stop: int) -> PartEntry:
    return PartEntry(split=split, start=start, stop=stop, num_bytes=1234, sha256="a" * 64)


def make_entry() -> ConfigEntry:
    field = Siren(hidden_dim=4, num_layers=2)
    return ConfigEntry(
        field=field,
        in_dim=2,
        out_dim=1,
        tensors=field.spec(2, 1).layout,
        signals=SIGNALS,
        splits=(Split("train", 0, 20), Split("test", 20, 30)),
        fit={"num_steps": 3, "optimizer": {"kind": "adam", "betas": [0.9, 0.999]}, "name": None},
        digest="d" * 64,
        engine="vmapped torch-test",
        generator="philox4x32-10",
        metrics=("psnr_db", "mse"),
        parts=(make_part("train", 0, 20), make_part("test", 20, 30)),
        summary={
            "train": SplitSummary(
                num_fields=20,
                status={"diverged": 1, "ok": 19},
                quality={"psnr_db": {"median": 30.5, "worst_5_percent": 20.25, "worst": 1e-3}},
                class_counts=(12, 8),
            )
        },
        tensor_statistics={"output_linear.bias": (0.1, 0.7)},
    )


def make_manifest() -> Manifest:
    return Manifest(configs={"siren-h4-shared": make_entry()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(tmp_path, make_manifest())
    return tmp_path


def stored(folder: Path) -> Any:
    return json.loads((folder / "nefbench.json").read_text(encoding="utf-8"))


def store(folder: Path, content: Any) -> None:
    (folder / "nefbench.json").write_text(json.dumps(content), encoding="utf-8")


def assert_refused(folder: Path, reason: str) -> None:
    with pytest.raises(DatasetFormatError, match=reason) as caught:
        read_manifest(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def read_or_refuse(folder: Path) -> Manifest | str:
    """The manifest, or the text of the one exception that may be raised."""
    try:
        return read_manifest(folder)
    except DatasetFormatError as error:
        return str(error)


# Round trips


def test_a_written_manifest_is_read_back_equal(tmp_path: Path) -> None:
    rff = RFFNet(hidden_dim=6, learnable_coefficients=False, preset="paper")
    bare = dataclasses.replace(
        make_entry(), field=rff, tensors=rff.spec(2, 1).layout, parts=(), summary={}
    )
    manifest = Manifest(configs={"a": make_entry(), "b.c_d-0": bare})

    write_manifest(tmp_path, manifest)

    assert read_manifest(tmp_path) == manifest
    assert list(read_manifest(tmp_path).configs) == ["a", "b.c_d-0"]


def test_writing_what_was_read_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / "nefbench.json").read_bytes()

    write_manifest(folder, read_manifest(folder))

    assert (folder / "nefbench.json").read_bytes() == before


def test_the_file_is_plain_json_that_says_how_to_rebuild_a_field(folder: Path) -> None:
    entry = stored(folder)["configs"]["siren-h4-shared"]

    assert stored(folder)["format_version"] == 1
    assert entry["field"] == {
        "kind": "siren", "hidden_dim": 4, "num_layers": 2, "omega_0": 30.0, "preset": "fit-a-nef",
    }  # fmt: skip
    assert entry["tensors"] == [
        ["kernel_net_0.linear.bias", [4]],
        ["kernel_net_0.linear.kernel", [2, 4]],
        ["output_linear.bias", [1]],
        ["output_linear.kernel", [4, 1]],
    ]
    assert "W is [in, out]" in entry["layout"]
    assert "linspace(-1, 1, n)" in entry["signals"]["coordinates"]
    assert entry["signals"]["mean"] == [0.30000000000000004]


def test_a_manifest_from_before_there_were_properties_is_read(folder: Path) -> None:
    content = stored(folder)
    for entry in content["configs"].values():
        del entry["properties"]
        for summary in entry["summary"].values():
            del summary["properties"]
    before = read_manifest(folder)
    (folder / "nefbench.json").write_text(json.dumps(content))

    assert read_manifest(folder) == before
    assert read_manifest(folder).configs["siren-h4-shared"].properties == ()


def test_properties_and_their_ranges_are_part_of_the_record(tmp_path: Path) -> None:
    entry = make_entry()
    ranges = {"mass": (0.1 + 0.2, 2.0)}
    summary = {"train": dataclasses.replace(entry.summary["train"], properties=ranges)}
    entry = dataclasses.replace(entry, properties=("mass",), summary=summary)

    write_manifest(tmp_path, Manifest(configs={"a": entry}))

    assert read_manifest(tmp_path).configs["a"] == entry


def test_an_empty_manifest_round_trips(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest())

    assert read_manifest(tmp_path) == Manifest(format_version=FORMAT_VERSION, configs={})


def test_adding_a_config_leaves_the_others_and_the_original_alone() -> None:
    manifest = make_manifest()
    entry = dataclasses.replace(make_entry(), digest="e" * 64)

    added = manifest.with_config("new", entry)

    assert list(added.configs) == ["siren-h4-shared", "new"]
    assert added.configs["new"] is entry
    assert list(manifest.configs) == ["siren-h4-shared"]


# What an entry says about itself


def test_an_entry_counts_planned_and_finished_fields() -> None:
    entry = dataclasses.replace(make_entry(), parts=(make_part("train", 4, 9),))

    assert entry.num_fields == 30
    assert entry.num_finished == 5
    assert not entry.is_complete
    assert make_entry().is_complete


def test_an_entry_cannot_be_made_with_tensors_of_another_field() -> None:
    with pytest.raises(ValueError, match="tensors are not those of siren with 2 inputs"):
        dataclasses.replace(make_entry(), field=Siren(hidden_dim=5, num_layers=2))
    with pytest.raises(ValueError, match="3 outputs"):
        dataclasses.replace(make_entry(), out_dim=3)


def test_the_identity_of_signals_is_all_but_what_opens_them() -> None:
    moved = dataclasses.replace(SIGNALS, config={"kind": "images", "root": "/elsewhere"})
    other = dataclasses.replace(SIGNALS, fingerprint="0" * 64)

    assert moved.identity() == SIGNALS.identity()
    assert other.identity() != SIGNALS.identity()
    assert "config" not in SIGNALS.identity()
    assert SIGNALS.identity()["mean"] == [0.1 + 0.2]


def test_part_names_sort_as_text_in_the_order_of_their_fields() -> None:
    names = [part_name("train", start, start + 1000) for start in range(0, 20_000, 1000)]

    assert names[1] == "train/part-001000-002000.parquet"
    assert sorted(names) == names


# Folders and files that are something else


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "no such folder")


def test_a_folder_without_a_manifest_says_which_commands_make_one(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"has no nefbench\.json; 'nefbench fit' makes one, 'nefbench import'")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    assert_refused(tmp_path / "file", "no such folder")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"not json", "not valid JSON"),
        (b'{"format_version": 1, "configs": {', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"format_version": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", "has no format_version"),
        (b"null", "has no format_version"),
        (b'"text"', "has no format_version"),
        (b"{}", "has no format_version"),
        (b'{"format_version": "1"}', "has no format_version"),
        (b'{"format_version": 1.0}', "has no format_version"),
        (b'{"format_version": true}', "has no format_version"),
        (b'{"format_version": 0}', "has no format_version"),
        (b'{"format_version": 2}', "format version 2, this nefbench reads up to 1; upgrade"),
        (b'{"format_version": 2, "new_key": 1, "configs": 5}', "upgrade nefbench"),
        (b'{"format_version": 1, "configs": []}', "configs: expected a table"),
        (b'{"format_version": 1, "configs": {"a": []}}', r"configs\.a: expected a table"),
        (b'{"format_version": 1, "configs": {"a": {}}}', r"missing key 'configs\.a\."),
        (b'{"format_version": 1, "confgs": {}}', "unknown key 'confgs'; did you mean 'configs'"),
        (b'{"format_version": 1, "configs": {"a\\nb": 1}}', "configs.a b: expected a table"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_refused_in_one_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "nefbench.json").write_bytes(content)

    assert_refused(tmp_path, reason)


def test_a_manifest_cut_anywhere_is_refused(folder: Path) -> None:
    path = folder / "nefbench.json"
    content = path.read_bytes().rstrip()

    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        assert_refused(folder, "damaged")


def test_json_nested_too_deep_for_any_reader_is_refused(folder: Path) -> None:
    content = (folder / "nefbench.json").read_text(encoding="utf-8")

    for depth in (150, 400, 700, 900, 950, 980, 2000):
        nested = content.replace('"num_steps": 3', f'"num_steps": {"[" * depth}{"]" * depth}')
        (folder / "nefbench.json").write_text(nested, encoding="utf-8")
        outcome = read_or_refuse(folder)
        assert isinstance(outcome, Manifest) or "damaged" in outcome
        assert isinstance(outcome, str) or depth < 300


# Folders to be written to


def test_a_new_and_an_empty_folder_start_an_empty_manifest(tmp_path: Path) -> None:
    assert open_or_new_manifest(tmp_path / "new") == Manifest()
    assert open_or_new_manifest(tmp_path) == Manifest()
    assert list(tmp_path.iterdir()) == [], "nothing is written yet"


def test_a_folder_to_continue_is_cleared_of_the_files_of_killed_writers(folder: Path) -> None:
    leftover = folder / "siren-h4-shared" / "train" / ".part-000000-000020.parquet.99999999.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")

    assert open_or_new_manifest(folder) == make_manifest()
    assert not leftover.exists()


def test_a_writer_killed_at_its_first_record_does_not_close_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".nefbench.json.99999999.tmp").write_bytes(b"{")

    assert open_or_new_manifest(tmp_path) == Manifest()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "nefbench.json.tmp", ".x.tmp"])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(DatasetFormatError, match="exists and is not a neural dataset"):
        open_or_new_manifest(tmp_path)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(DatasetFormatError, match="exists and is not a neural dataset"):
        open_or_new_manifest(tmp_path / "file")

    assert (tmp_path / "file").read_text() == "mine"


# Entries that cannot be


def edit(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one dotted key of the config's record."""

    def apply(entry: dict[str, Any]) -> None:
        *tables, last = key.split(".")
        node: Any = entry
        for table in tables:
            node = node[int(table) if isinstance(node, list) else table]
        node[int(last) if isinstance(node, list) else last] = value

    return apply


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit("fields", {}), r"unknown key 'configs\.siren-h4-shared\.fields'; did you mean"),
        (edit("signals.colour", 1), r"unknown key 'configs\.siren-h4-shared\.signals\.colour'"),
        (edit("parts.0.rows", 5), r"unknown key 'configs\.siren-h4-shared\.parts\.0\.rows'"),
        (edit("field.kind", "sirne"), r"field\.kind: expected one of .* did you mean 'siren'"),
        (edit("field.hidden_dim", 0), "expected hidden_dim >= 1"),
        (edit("field.hidden_dim", "4"), "hidden_dim: input should be a valid integer"),
        (edit("field.hidden_dim", 5), "tensors are not those of siren"),
        (edit("in_dim", 3), "tensors are not those of siren with 3 inputs"),
        (edit("tensors.0", ["other", [4]]), "tensors are not those of siren"),
        (edit("tensors", []), "tensors are not those of siren"),
        (edit("parts.0.split", "validation"), r"part-000000-000020\.parquet lies outside"),
        (edit("parts.0.split", "../../etc"), "lies outside the splits"),
        (edit("parts.0.stop", 21), "lies outside the splits"),
        (edit("parts.0.start", -1), "lies outside the splits"),
        (edit("parts.0.start", 20), "lies outside the splits"),
        (edit("parts.1.stop", 31), "lies outside the splits"),
        (edit("parts.1", {"split": "train", "start": 5, "stop": 9, "num_bytes": 1, "sha256": ""}),
         "parts overlap"),
        (edit("splits.0.name", "../../etc"), "expected each split once, of train, val"),
        (edit("splits.1.name", "train"), "expected each split once"),
        (edit("splits.1.start", 19), "splits overlap"),
        (edit("splits.0.stop", 0), "split 'train' holds no fields"),
        (edit("splits.0.start", -5), "split 'train' holds no fields"),
        (edit("summary", {"train": {"num_fields": 1}}), "missing key"),
        (edit("summary", {"a\nb": 1}), "summary.a b: expected a table"),
        (edit("signals.mean", ["x"]), "valid number"),
        (edit("digest", None), "valid string"),
        (edit("properties", ["mass", "mass"]), "expected different names"),
        (edit("properties", ["two words"]), "expected different names"),
    ],
)  # fmt: skip
def test_an_impossible_entry_is_refused_by_its_key(
    folder: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    content = stored(folder)
    change(content["configs"]["siren-h4-shared"])
    store(folder, content)

    assert_refused(folder, reason)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\\b", "a b", "a\nb", "a\0b", "é"]
)
def test_a_config_name_that_is_not_a_plain_folder_name_is_refused(folder: Path, name: str) -> None:
    content = stored(folder)
    content["configs"] = {name: content["configs"]["siren-h4-shared"]}
    store(folder, content)

    assert_refused(folder, "damaged: expected a name of letters")


@pytest.mark.parametrize("name", ["nefbench.json", "README.md", "readme.MD"])
def test_a_config_cannot_have_the_name_of_a_file_beside_it(name: str) -> None:
    with pytest.raises(ConfigError, match="a name that no file of the folder has"):
        check_config_name(name)


@pytest.mark.parametrize("name", ["a", "0", "siren-h4-shared", "A.b_c-9", "readme"])
def test_plain_names_can_name_a_config(name: str) -> None:
    check_config_name(name)


# Any damage at all


def places_of(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    below = [
        place
        for key, item in items
        for place in [
            (*path, key),
            *(places_of(item, (*path, key)) if isinstance(item, dict | list) else []),
        ]
    ]
    return below


def full_content() -> Any:
    field = FourierNet(hidden_dim=2, num_filters=2)
    second = dataclasses.replace(make_entry(), field=field, tensors=field.spec(2, 1).layout)
    manifest = Manifest(configs={"one": make_entry(), "two": second})
    return json.loads(json.dumps(dataclasses.asdict(manifest)))


CONTENT = full_content()
PLACES = places_of(CONTENT)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    # A field of a billion layers would be built before it is compared with ``tensors``.
    | st.integers(-3, 300)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["siren", "mlp", "train", "test", "\ud800", "a\nb", 2.0**70, 10**30]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
DELETED = object()


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(PLACES), st.just(DELETED) | JSON_VALUES), min_size=1, max_size=3
    )
)
def test_a_manifest_changed_at_random_is_read_or_refused_in_one_line(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    content = copy.deepcopy(CONTENT)
    for (*tables, last), value in changes:
        node = content
        try:
            for key in tables:
                node = node[key]
            if value is DELETED:
                del node[last]
            elif not (last in ("num_layers", "num_filters") and isinstance(value, int | float)
                      and value > 300):  # fmt: skip
                node[last] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took that place away
    store(tmp_path, content)

    outcome = read_or_refuse(tmp_path)
    if isinstance(outcome, str):
        assert len(outcome.splitlines()) == 1
        assert str(tmp_path) in outcome
        return
    for entry in outcome.configs.values():
        assert entry.tensors == entry.spec.layout
        assert 0 <= entry.num_finished <= entry.num_fields
