from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nefbench.fields import FieldConfig, GaborNet, Siren
from nefbench.hub import write_card
from nefbench.hub.card import render_card
from nefbench.signals import Split
from nefbench.weights import ConfigEntry, FieldRows, Manifest, load_neural_dataset, write_manifest
from nefbench.weights.manifest import PartEntry, SignalsEntry
from nefbench.weights.parts import write_part

SMALL = Siren(hidden_dim=4, num_layers=2)
SIGNALS = SignalsEntry(
    name="toy",
    source="drawn",
    fingerprint="f" * 64,
    licence="CC BY 4.0",
    grid_shape=(5, 4),
    mean=(0.5,),
    std=(0.25,),
    class_names=("cat", "dog"),
)


def make_entry(*, field: FieldConfig = SMALL, signals: SignalsEntry = SIGNALS) -> ConfigEntry:
    """A config of seven fields: 0 to 4 train, 5 and 6 test."""
    return ConfigEntry(
        field=field,
        in_dim=2,
        out_dim=1,
        tensors=field.spec(2, 1).layout,
        signals=signals,
        splits=(Split("train", 0, 5), Split("test", 5, 7)),
        fit={"init": {"kind": "shared"}},
        digest="d" * 64,
        engine="none",
        generator="none",
        metrics=("psnr_db",),
    )


def make_rows(entry: ConfigEntry, start: int, stop: int) -> FieldRows:
    count = stop - start
    draw = torch.Generator().manual_seed(start)
    return FieldRows(
        weights=torch.randn(count, entry.spec.num_params, generator=draw),
        signal_index=torch.arange(start, stop),
        init_seed=torch.zeros(count, dtype=torch.int64),
        loss=torch.rand(count, generator=draw),
        status=("ok",) * count,
        labels=torch.arange(start, stop) % 2 if entry.signals.class_names else None,
        quality={"psnr_db": torch.rand(count, generator=draw)},
    )


def with_parts(
    folder: Path, name: str, entry: ConfigEntry, places: list[tuple[str, int, int]]
) -> ConfigEntry:
    parts = tuple(
        write_part(folder, name, entry, split, start, make_rows(entry, start, stop))
        for split, start, stop in places
    )
    return dataclasses.replace(entry, parts=parts)


ALL_PLACES = [("train", 0, 2), ("train", 2, 5), ("test", 5, 7)]


def listed(entry: ConfigEntry, count: int = 5) -> ConfigEntry:
    """The entry with a part on record; the card looks at no file."""
    part = PartEntry(split="train", start=0, stop=count, num_bytes=1, sha256="a")
    return dataclasses.replace(entry, parts=(part,))


def header_of(card: str) -> Any:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def table_of(card: str) -> list[list[str]]:
    """Cells of the Markdown table, split as GitHub does: a backslash keeps the next letter."""
    rows = []
    for line in card.splitlines():
        if not line.startswith("| "):
            continue
        cells, letters = [""], iter(line.strip()[1:-1])
        for letter in letters:
            if letter == "|":
                cells.append("")
            else:
                cells[-1] += letter + next(letters) if letter == "\\" else letter
        rows.append([cell.strip() for cell in cells])
    return rows


# The header


def test_the_header_is_yaml_that_lists_the_files_of_every_config() -> None:
    manifest = Manifest(
        configs={
            "siren-h4-shared": dataclasses.replace(
                make_entry(),
                parts=(
                    PartEntry(split="train", start=0, stop=5, num_bytes=1, sha256="a"),
                    PartEntry(split="test", start=5, stop=7, num_bytes=1, sha256="a"),
                ),
            ),
            "second": listed(make_entry()),
        }
    )

    header = header_of(render_card(manifest))

    assert header["configs"] == [
        {
            "config_name": "siren-h4-shared",
            "default": True,
            "data_files": [
                {"split": "train", "path": "siren-h4-shared/train/*.parquet"},
                {"split": "test", "path": "siren-h4-shared/test/*.parquet"},
            ],
        },
        {
            "config_name": "second",
            "data_files": [{"split": "train", "path": "second/train/*.parquet"}],
        },
    ]
    assert "neural-fields" in header["tags"]
    assert header["size_categories"] == ["n<1K"]


@pytest.mark.parametrize("name", ["12", "1.5", "no", "null", "True", "0x1F", "2024-01-31", "a.b_c"])
def test_a_config_name_that_yaml_could_misread_stays_a_name(name: str) -> None:
    header = header_of(render_card(Manifest(configs={name: listed(make_entry())})))

    assert [config["config_name"] for config in header["configs"]] == [name]


def test_a_config_without_a_single_part_is_not_offered_for_loading() -> None:
    """``load_dataset`` would take a config without files for one of all files in the folder."""
    manifest = Manifest(configs={"planned": make_entry(), "begun": listed(make_entry())})

    configs = header_of(render_card(manifest))["configs"]

    assert [(config["config_name"], config["default"]) for config in configs] == [("begun", True)]
    assert "configs" not in header_of(render_card(Manifest()))


@pytest.mark.parametrize(
    ("size", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (60_000, "10K<n<100K"), (10**6, "1M<n<10M")],
)
def test_the_size_category_counts_the_fields_of_all_configs(size: int, category: str) -> None:
    entries = {
        name: dataclasses.replace(make_entry(), splits=(Split("train", 0, count),))
        for name, count in (("a", size // 3), ("b", size - size // 3))
    }

    assert header_of(render_card(Manifest(configs=entries)))["size_categories"] == [category]


# The table


def test_the_table_says_what_each_config_holds() -> None:
    gabor = make_entry(field=GaborNet(hidden_dim=2, num_filters=1))
    manifest = Manifest(configs={"siren": listed(make_entry()), "gabor": listed(gabor, 3)})

    header, rule, *rows = table_of(render_card(manifest).replace("|---", "| ---"))

    assert header == ["config", "field", "weights per field", "start", "fitted to", "fields"]
    assert len(rule) == 6
    assert rows == [
        # 4 + 2 x 4 + 1 + 4 weights
        ["siren", "siren", "17", "shared", "toy (drawn; licence: CC BY 4.0)", "5"],
        # gamma 2, mu 2 x 2, bias 2, kernel 2 x 2, output 1 + 2
        ["gabor", "gabornet", "15", "shared", "toy (drawn; licence: CC BY 4.0)", "3"],
    ]


def test_the_table_lists_the_properties_of_the_signals() -> None:
    entry = dataclasses.replace(make_entry(), properties=("viscosity", "mass"))

    text = render_card(Manifest(configs={"a": listed(entry)}))
    row = table_of(text)[-1]

    assert row[4] == "toy (drawn; licence: CC BY 4.0); properties: viscosity, mass"


@pytest.mark.parametrize(
    "source",
    ["a|b", "a\\|b", "a\\", "line\nbreak", "line\r\n| x | y |", "`code", "<!-- gone", "a &lt; b"],
)
def test_markup_in_the_description_of_signals_does_not_break_the_table(source: str) -> None:
    signals = dataclasses.replace(SIGNALS, name=source, source=source, licence=source)
    card = render_card(Manifest(configs={"a": listed(make_entry(signals=signals))}))

    rows = table_of(card)

    assert len(rows) == 2, "the header and one config"
    assert len(rows[1]) == 6
    assert (rows[1][0], rows[1][5]) == ("a", "5")
    assert "<" not in rows[1][4]
    assert "\\`" in rows[1][4] or "`" not in rows[1][4]
    assert header_of(card)["configs"][0]["config_name"] == "a"


def test_an_imported_config_has_an_unknown_start() -> None:
    entry = dataclasses.replace(listed(make_entry()), fit={"source": "elsewhere"})

    assert table_of(render_card(Manifest(configs={"a": entry})))[1][3] == "unknown"


# The file


def test_a_card_of_our_own_is_brought_up_to_date(tmp_path: Path) -> None:
    write_card(tmp_path, Manifest(configs={"a": listed(make_entry())}))
    newer = Manifest(configs={"a": listed(make_entry()), "b": listed(make_entry())})

    write_card(tmp_path, newer)

    assert (tmp_path / "README.md").read_text(encoding="utf-8") == render_card(newer)


@pytest.mark.parametrize("content", [b"# Mine\n", "# Größe\n".encode("latin-1"), b""])
def test_a_card_edited_by_a_person_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README.md").write_bytes(content)

    write_card(tmp_path, Manifest(configs={"a": listed(make_entry())}))

    assert (tmp_path / "README.md").read_bytes() == content


def test_the_line_that_marks_a_card_as_ours_can_be_removed(tmp_path: Path) -> None:
    write_card(tmp_path, Manifest(configs={"a": listed(make_entry())}))
    path = tmp_path / "README.md"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    edited = "".join(line for line in lines if "edit freely after removing this line" not in line)
    assert len(edited) < len("".join(lines))
    path.write_text(edited, encoding="utf-8")

    write_card(tmp_path, Manifest(configs={"b": listed(make_entry())}))

    assert path.read_text(encoding="utf-8") == edited


# With datasets itself


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """``load_dataset`` without progress bars and with its cache in ``tmp_path``."""
    import datasets

    datasets.disable_progress_bars()
    cache = str(tmp_path / "cache")
    return lambda folder, *args, **kwargs: datasets.load_dataset(
        str(folder), *args, cache_dir=cache, **kwargs
    )


def test_load_dataset_opens_every_config_of_the_folder_that_fitting_wrote(
    tmp_path: Path, load: Any
) -> None:
    from datasets import ClassLabel, List, Value

    folder = tmp_path / "toys"
    unlabelled = make_entry(
        field=Siren(hidden_dim=3, num_layers=2),
        signals=dataclasses.replace(SIGNALS, class_names=()),
    )
    manifest = Manifest(
        configs={
            "12": with_parts(folder, "12", make_entry(), ALL_PLACES),
            "planned": make_entry(),
            "plain": with_parts(folder, "plain", unlabelled, ALL_PLACES[:2]),
        }
    )
    write_manifest(folder, manifest)
    write_card(folder, manifest)
    ours = load_neural_dataset(folder, "12")

    loaded = load(folder, "12").with_format("torch")

    assert list(loaded) == ["train", "test"]
    assert dict(loaded["train"].features) == {
        "weights": List(Value("float32"), length=17),
        "label": ClassLabel(names=["cat", "dog"]),
        "signal_index": Value("int64"),
        "init_seed": Value("int64"),
        "psnr_db": Value("float32"),
        "loss": Value("float32"),
        "status": Value("string"),
    }
    for split in ("train", "test"):
        rows = ours.split(split)
        assert torch.equal(loaded[split]["weights"][:], rows.weights)
        assert loaded[split]["signal_index"][:].tolist() == rows.signal_index.tolist()
        assert loaded[split]["label"][:].tolist() == [i % 2 for i in rows.signal_index.tolist()]
        assert torch.equal(loaded[split]["loss"][:], rows.loss)
        assert tuple(loaded[split]["status"][:]) == rows.status
    assert "label" not in load(folder, "plain", split="train").features
    assert torch.equal(load(folder).with_format("torch")["train"]["weights"][:], ours.split("train")
                       .weights), "the first config is the default"  # fmt: skip


def test_load_dataset_streams_the_folder_in_order(tmp_path: Path, load: Any) -> None:
    folder = tmp_path / "toys"
    manifest = Manifest(configs={"a": with_parts(folder, "a", make_entry(), ALL_PLACES)})
    write_manifest(folder, manifest)
    write_card(folder, manifest)

    rows = list(load(folder, "a", split="train", streaming=True))

    expected = load_neural_dataset(folder).split("train")
    assert [row["signal_index"] for row in rows] == [0, 1, 2, 3, 4]
    assert torch.equal(torch.tensor([row["weights"] for row in rows]), expected.weights)
    assert [row["label"] for row in rows] == [0, 1, 0, 1, 0]
