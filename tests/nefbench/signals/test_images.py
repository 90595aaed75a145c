from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals import GridSignals, ImagesConfig, SignalsConfig, Split

THREE_PARTS: dict[str, Any] = {
    "train": "train[:6]",
    "validation": "train[6:8]",
    "test": "train[8:]",
}
LEAVE_OUT = "leave such images out with --set signals.drop_damaged=true"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the library's cache out of the home folder, its bars off and the network away."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def random_images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def save_images(folder: Path, images: Mapping[str, np.ndarray | bytes | Image.Image]) -> Path:
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
            picture.save(path)
    return folder


def flat_folder(folder: Path, images: Sequence[np.ndarray | bytes | Image.Image]) -> Path:
    return save_images(folder, {f"{i:03d}.png": image for i, image in enumerate(images)})


def save_table(
    path: Path,
    images: np.ndarray,
    labels: Sequence[Any] | None = None,
    feature: Any = None,
    image_column: str = "image",
    label_column: str = "label",
) -> Path:
    columns: dict[str, Any] = {image_column: [Image.fromarray(image) for image in images]}
    features: dict[str, Any] = {image_column: datasets.Image()}
    if labels is not None:
        columns[label_column] = labels
        features[label_column] = feature
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)
    return path


def hub_folder(folder: Path, train: np.ndarray, test: np.ndarray) -> Path:
    classes = datasets.ClassLabel(names=["cat", "dog", "eel"])
    for name, images in (("train", train), ("test", test)):
        labels = [i % 3 for i in range(len(images))]
        save_table(folder / "data" / f"{name}-00000-of-00001.parquet", images, labels, classes)
    return folder


def pixels(signals: GridSignals, count: int | None = None) -> np.ndarray:
    """Values times 255 as images ``[n, H, W, c]``."""
    values = signals.values.read(range(len(signals) if count is None else count))
    images = (values * 255).numpy().reshape(len(values), *signals.grid_shape, -1)
    assert np.abs(images - images.round()).max() < 1e-4
    whole: np.ndarray = images.round().astype(np.uint8)
    return whole


def complaint(**keys: Any) -> str:
    with pytest.raises(SignalError) as caught:
        ImagesConfig(**keys).open()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_hub_style_folder_gives_its_pixels_row_by_row(tmp_path: Path) -> None:
    train, test = random_images(20, 3, 5), random_images(4, 3, 5, seed=1)
    folder = hub_folder(tmp_path / "tiny-digits", train, test)

    signals = ImagesConfig(path=str(folder)).open()

    assert (signals.name, signals.grid_shape, signals.num_channels) == ("tiny-digits", (3, 5), 1)
    assert signals.splits == (
        Split("train", 0, 18),
        Split("validation", 18, 20),
        Split("test", 20, 24),
    )
    assert np.array_equal(pixels(signals)[..., 0], np.concatenate([train, test]))
    # Row by row: value 7 of an image of width 5 is row 1, column 2.
    assert signals.values.read([3])[0, 7, 0] == np.float32(train[3, 1, 2]) / np.float32(255)
    assert torch.equal(signals.coords[7], torch.tensor([0.0, 0.0]))


def test_class_labels_keep_their_numbers_and_names(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "x", random_images(20, 3, 5), random_images(4, 3, 5))

    signals = ImagesConfig(path=str(folder)).open()

    assert signals.labels is not None
    assert signals.labels.tolist() == [i % 3 for i in range(20)] + [0, 1, 2, 0]
    assert signals.class_names == ("cat", "dog", "eel")


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    train = random_images(20, 3, 5, 3)
    train[..., 2] //= 4
    folder = hub_folder(tmp_path / "x", train, random_images(4, 3, 5, 3))

    signals = ImagesConfig(path=str(folder)).open()

    chosen = train[:18].reshape(-1, 3) / 255
    assert signals.mean == pytest.approx(chosen.mean(0), rel=1e-6)
    assert signals.std == pytest.approx(chosen.std(0), rel=1e-6)


def test_given_statistics_are_used_and_not_computed(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "x", random_images(20, 3, 5), random_images(4, 3, 5))

    signals = ImagesConfig(path=str(folder), mean=(0.25,), std=(0.5,)).open()

    assert (signals.mean, signals.std) == ((0.25,), (0.5,))
    raw = signals.values.read([1])
    torch.testing.assert_close(signals.targets([1]), (raw - 0.25) / 0.5)


def test_an_image_folder_gives_colours_classes_and_both_splits(tmp_path: Path) -> None:
    images = random_images(14, 4, 2, 3)
    names = [f"train/{c}/{i}.png" for c in ("ant", "bee") for i in range(5)]
    names += [f"test/{c}/{i}.png" for c in ("ant", "bee") for i in range(2)]
    folder = save_images(tmp_path / "insects", dict(zip(names, images, strict=True)))

    signals = ImagesConfig(path=str(folder)).open()

    assert (signals.grid_shape, signals.num_channels) == ((4, 2), 3)
    assert [len(split) for split in signals.splits] == [9, 1, 4]
    assert np.array_equal(pixels(signals), images)
    assert signals.class_names == ("ant", "bee")
    assert signals.labels is not None
    assert signals.labels.tolist() == [0] * 5 + [1] * 5 + [0, 0, 1, 1]


def test_a_flat_folder_has_no_labels_and_one_split(tmp_path: Path) -> None:
    images = random_images(10, 4, 4)
    folder = flat_folder(tmp_path / "x", list(images))

    signals = ImagesConfig(path=str(folder), **THREE_PARTS).open()

    assert (signals.labels, signals.class_names) == (None, ())
    assert np.array_equal(pixels(signals)[..., 0], images)
    assert [len(split) for split in signals.splits] == [6, 2, 2]


def test_a_parquet_file_with_names_as_labels(tmp_path: Path) -> None:
    images = random_images(10, 4, 4)
    words = ["b", "c", "a", "b", "10", "9", "a", None, "c", "²"]
    path = save_table(tmp_path / "one.parquet", images, words, datasets.Value("string"))

    signals = ImagesConfig(path=str(path), **THREE_PARTS).open()

    assert signals.name == "one"
    # Numbers first and by value, then words; a missing label is -1.
    assert signals.class_names == ("9", "10", "a", "b", "c", "²")
    assert signals.labels is not None
    assert signals.labels.tolist() == [3, 4, 2, 3, 1, 0, 2, -1, 4, 5]
    assert np.array_equal(pixels(signals)[..., 0], images)


def test_plain_numbers_as_labels_become_classes_in_order(tmp_path: Path) -> None:
    numbers = [7, 3, 10, 3, 7, 10, 3, 3, 7, 7]
    path = save_table(
        tmp_path / "x.parquet", random_images(10, 4, 4), numbers, datasets.Value("int64")
    )

    signals = ImagesConfig(path=str(path), **THREE_PARTS).open()

    assert signals.class_names == ("3", "7", "10")
    assert signals.labels is not None
    assert signals.labels.tolist() == [1, 0, 2, 0, 1, 2, 0, 0, 1, 1]


def test_columns_of_other_names_are_found_or_chosen(tmp_path: Path) -> None:
    path = save_table(
        tmp_path / "x.parquet",
        random_images(10, 4, 4),
        ["a", "b"] * 5,
        datasets.Value("string"),
        image_column="scan",
        label_column="genus",
    )

    found = ImagesConfig(path=str(path), **THREE_PARTS).open()
    chosen = ImagesConfig(
        path=str(path), image_column="scan", label_column="genus", **THREE_PARTS
    ).open()

    assert found.labels is None
    assert chosen.class_names == ("a", "b")
    assert np.array_equal(pixels(found), pixels(chosen))


def test_indices_count_through_the_splits_of_the_source(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "x", random_images(20, 3, 3), random_images(4, 3, 3, seed=1))

    signals = ImagesConfig(
        path=str(folder), train="test[1:3]", validation="train[5:7]", test="train[-2:]"
    ).open()

    assert signals.indices.tolist() == [21, 22, 5, 6, 18, 19]
    assert signals.indices.dtype == torch.int64


def test_the_index_of_an_image_does_not_depend_on_the_selection(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "x", random_images(20, 3, 3), random_images(4, 3, 3, seed=1))
    everything = ImagesConfig(path=str(folder)).open()
    by_index = dict(zip(everything.indices.tolist(), pixels(everything), strict=True))

    some = ImagesConfig(
        path=str(folder), train="train[3:6]", validation="test[:1]", test="test[-1:]"
    ).open()

    for index, image in zip(some.indices.tolist(), pixels(some), strict=True):
        assert np.array_equal(image, by_index[index])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("train", range(10)),
        ("train[:]", range(10)),
        ("train[:3]", range(3)),
        ("train[7:]", range(7, 10)),
        ("train[2:4]", range(2, 4)),
        ("train[-3:]", range(7, 10)),
        ("train[:-8]", range(2)),
        ("train[-4:-2]", range(6, 8)),
        ("train[50%:]", range(5, 10)),
        ("train[:34%]", range(3)),
        ("train[:36%]", range(4)),
        ("train[-20%:]", range(8, 10)),
        ("train[20%:-50%]", range(2, 5)),
        ("train[:99]", range(10)),
    ],
)
def test_split_expressions_select_as_slices_do(
    tmp_path: Path, expression: str, expected: range
) -> None:
    path = tmp_path / "x"
    save_table(path / "train.parquet", random_images(10, 2, 2))
    save_table(path / "test.parquet", random_images(2, 2, 2))

    signals = ImagesConfig(
        path=str(path), train=expression, validation="test[:1]", test="test[1:]"
    ).open()

    offset = 0 if list(signals.indices[-2:]) == [10, 11] else 2  # splits as the library orders them
    train = signals.splits[0]
    assert (signals.indices[train.start : train.stop] - offset).tolist() == list(expected)


@pytest.mark.parametrize("key", ["train", "validation", "test"])
@pytest.mark.parametrize("part", ["[5:5]", "[8:2]", "[10:]", "[:0]", "[-11:]", "[:4%]"])
def test_an_expression_that_selects_nothing_is_refused(tmp_path: Path, key: str, part: str) -> None:
    path = save_table(tmp_path / "x.parquet", random_images(10, 2, 2))
    keys = {**dict.fromkeys(("train", "validation", "test"), "train"), key: f"train{part}"}

    assert complaint(path=str(path), **keys) == (
        f"signals.{key} = 'train{part}' selects nothing: split 'train' has 10 signals"
    )


def test_an_unknown_split_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    path = save_table(tmp_path / "x.parquet", random_images(10, 2, 2))

    assert complaint(path=str(path)) == (
        f"{path} has no split 'test' (it has train); "
        f"set signals.test, for example --set 'signals.test=train[90%:]'"
    )


def test_unknown_columns_are_refused(tmp_path: Path) -> None:
    path = save_table(
        tmp_path / "x.parquet", random_images(10, 2, 2), [0] * 10, datasets.Value("int64")
    )

    assert complaint(path=str(path), image_column="pics", **THREE_PARTS) == (
        "x: split 'train' has no column 'pics'"
    )
    assert complaint(path=str(path), label_column="genus", **THREE_PARTS) == (
        f"{path} has no column 'genus' (signals.label_column)"
    )


def test_a_table_without_images_is_refused_with_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    datasets.Dataset.from_dict({"a": [1, 2, 3], "b": ["x", "y", "z"]}).to_parquet(path)

    assert complaint(
        path=str(path), train="train[:1]", validation="train[1:2]", test="train[2:]"
    ) == (f"{path} has no image column (columns: a, b); set signals.image_column")


@pytest.mark.parametrize(
    ("odd", "described", "remedy"),
    [
        (random_images(1, 4, 5)[0], "4x5 L", "--set 'signals.size=[4, 4]'"),
        (random_images(1, 5, 4)[0], "5x4 L", "--set 'signals.size=[4, 4]'"),
        (random_images(1, 4, 4, 3)[0], "4x4 RGB", "--set signals.mode=RGB"),
        (
            random_images(1, 5, 4, 3)[0],
            "5x4 RGB",
            "--set 'signals.size=[4, 4]' --set signals.mode=RGB",
        ),
        (
            Image.fromarray(random_images(1, 4, 4)[0]).convert("1"),
            "4x4 1",
            "--set signals.mode=RGB",
        ),
    ],
)
def test_images_that_differ_are_named_with_their_position_and_the_remedy(
    tmp_path: Path, odd: np.ndarray | Image.Image, described: str, remedy: str
) -> None:
    folder = flat_folder(tmp_path / "x", [*random_images(9, 4, 4), odd])

    assert complaint(path=str(folder), **THREE_PARTS) == (
        f"x: images differ: 4x4 L at position 0, {described} at position 9; "
        f"a neural dataset needs one size and one colour mode, give them with {remedy}"
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_images_of_other_modes_are_refused(tmp_path: Path, mode: str) -> None:
    images = [
        Image.fromarray(image).convert("RGB").convert(mode) for image in random_images(10, 4, 4)
    ]
    folder = flat_folder(tmp_path / "x", images)

    assert complaint(path=str(folder), **THREE_PARTS) == (
        f"x: images of mode {mode!r}; expected grey (L) or RGB, "
        f"convert them with --set signals.mode=RGB"
    )


def test_black_and_white_images_are_grey(tmp_path: Path) -> None:
    masks = random_images(10, 4, 4) > 127
    folder = flat_folder(tmp_path / "x", [Image.fromarray(mask) for mask in masks])

    signals = ImagesConfig(path=str(folder), **THREE_PARTS).open()

    assert np.array_equal(pixels(signals)[..., 0], masks * np.uint8(255))


def test_a_file_that_is_no_image_is_named_with_its_position(tmp_path: Path) -> None:
    images: list[Any] = list(random_images(10, 4, 4))
    images[7] = b"this is not a picture"
    folder = flat_folder(tmp_path / "x", images)

    assert complaint(path=str(folder), **THREE_PARTS) == (
        f"x: the image at position 7 (007.png) does not open; {LEAVE_OUT}"
    )


def png_bytes(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["cut short", "flipped bits"])
def test_a_damaged_image_is_named_with_its_position_when_it_is_read(
    tmp_path: Path, how: str
) -> None:
    images: list[Any] = list(random_images(10, 64, 64))
    whole = png_bytes(images[7])
    half = len(whole) // 2
    images[7] = (
        whole[:half] if how == "cut short" else whole[:100] + b"\xff" * half + whole[100 + half :]
    )
    folder = flat_folder(tmp_path / "x", images)
    signals = ImagesConfig(path=str(folder), **THREE_PARTS).open()
    assert signals.values.read([6, 8]).shape == (2, 4096, 1)

    with pytest.raises(SignalError) as caught:
        signals.values.read([6, 7])
    assert str(caught.value) == f"x: the image at position 7 (007.png) is damaged; {LEAVE_OUT}"


def test_a_row_without_an_image_is_named_with_its_position(tmp_path: Path) -> None:
    pictures: list[Any] = [Image.fromarray(image) for image in random_images(10, 4, 4)]
    pictures[3] = None
    path = tmp_path / "x.parquet"
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": pictures}, features=features).to_parquet(path)

    assert complaint(path=str(path), **THREE_PARTS) == (
        f"x: there is no image at position 3; {LEAVE_OUT}"
    )


@pytest.mark.parametrize("path", ["./missing", "/missing/folder", "~/missing", "missing.parquet"])
def test_a_missing_path_is_refused_without_asking_the_hub(path: str) -> None:
    assert complaint(path=path) == f"no such file or folder: {path}"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()

    assert complaint(path=str(tmp_path / "x")) == (
        f"{tmp_path / 'x'} is empty; expected Parquet files or images"
    )


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "x", {"a.xyz": b"1", "b.xyz": b"2"})

    assert complaint(path=str(folder)).startswith(f"{folder} does not open as a dataset: ")


def test_a_folder_of_texts_is_refused_for_want_of_images(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "x", {"a.txt": b"one\ntwo\nthree\n"})

    assert complaint(
        path=str(folder), train="train[:1]", validation="train[1:2]", test="train[2:]"
    ) == (f"{folder} has no image column (columns: text); set signals.image_column")


@pytest.mark.parametrize("name", ["a.png", "a.zip", "a.mnist"])
def test_a_file_that_is_no_table_is_refused_without_asking_the_hub(
    tmp_path: Path, name: str
) -> None:
    # The library takes an unknown ending for the name of a dataset on the Hub.
    (tmp_path / name).write_bytes(b"x")

    assert complaint(path=str(tmp_path / name)) == (
        f"{tmp_path / name}: expected a Parquet file or a folder (unpack archives)"
    )


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 this is not Parquet PAR1")

    assert complaint(path=str(path)).startswith(f"{path} does not open as a dataset: ")


def test_a_name_on_the_hub_fails_at_once_when_offline(tmp_path: Path) -> None:
    script = (
        "from nefbench.errors import SignalError\n"
        "from nefbench.signals import ImagesConfig\n"
        "try:\n"
        "    ImagesConfig(path='nobody-here/no-such-dataset').open()\n"
        "except SignalError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    (line,) = done.stdout.splitlines()
    assert line.startswith("cannot load 'nobody-here/no-such-dataset' from the Hub (")
    assert line.endswith("); check the name and the network, or give the path of a local copy")


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,) * 3, (0.5,)), ((0.5,), (0.5,) * 3), ((0.5,) * 3, (0.5,) * 3)]
)
def test_statistics_for_another_number_of_channels_are_refused(
    tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    path = save_table(tmp_path / "x.parquet", random_images(10, 2, 2))

    assert complaint(path=str(path), mean=mean, std=std, **THREE_PARTS) == (
        f"x: signals have 1 channel(s), signals.mean has {len(mean)} "
        f"and signals.std {len(std)} number(s); give one number per channel"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"mean": [0.5]}, "mean and std go together: give both or neither"),
        ({"std": [0.5]}, "mean and std go together: give both or neither"),
        ({"mean": [0.5], "std": [0]}, "expected std > 0 and finite (got (0.0,))"),
        ({"mean": [0.5], "std": [float("inf")]}, "expected std > 0 and finite (got (inf,))"),
        ({"mean": [0.5], "std": [float("nan")]}, "expected std > 0 and finite (got (nan,))"),
        ({"mean": [float("nan")], "std": [1]}, "expected a finite mean (got (nan,))"),
        (
            {"train": "train[5]"},
            "train: 'train[5]' is not a split expression such as 'train[:1000]'",
        ),
        (
            {"test": "test[:1000"},
            "test: 'test[:1000' is not a split expression such as 'train[:1000]'",
        ),
        (
            {"validation": ""},
            "validation: '' is not a split expression such as 'train[:1000]'",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(SignalsConfig, {"kind": "images", "path": "x", **keys})
    assert str(caught.value) == expected


def test_a_channel_that_never_varies_is_refused(tmp_path: Path) -> None:
    images = random_images(10, 2, 2, 3)
    images[..., 1] = 77
    folder = flat_folder(tmp_path / "x", list(images))

    assert complaint(path=str(folder), **THREE_PARTS) == (
        "x: channel 1 is constant over split 'train'; there is nothing to fit"
    )


def test_the_source_is_described_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "tiny", random_images(20, 3, 5), random_images(4, 3, 5))

    signals = ImagesConfig(path=str(folder)).open()

    assert signals.source == "tiny (train: train[0:18], validation: train[18:20], test: test[0:4])"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, "scans-v1.5"), ({"name": "scans"}, "scans")],
)
def test_signals_are_called_like_the_folder_unless_named(
    tmp_path: Path, keys: dict[str, Any], expected: str
) -> None:
    folder = flat_folder(tmp_path / "scans-v1.5", list(random_images(10, 2, 2)))

    assert ImagesConfig(path=f"{folder}/", **keys, **THREE_PARTS).open().name == expected


def test_a_path_may_begin_with_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(10, 2, 2)
    flat_folder(tmp_path / "pics", list(images))
    monkeypatch.setenv("HOME", str(tmp_path))

    signals = ImagesConfig(path="~/pics", **THREE_PARTS).open()

    assert np.array_equal(pixels(signals)[..., 0], images)
    assert signals.source.startswith("pics (")


def test_changed_images_are_seen_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    path = save_table(tmp_path / "x.parquet", random_images(10, 2, 2))
    before = ImagesConfig(path=str(path), **THREE_PARTS).open().fingerprint
    images = random_images(10, 2, 2, seed=1)
    save_table(path, images)

    again = ImagesConfig(path=str(path), **THREE_PARTS).open()

    assert np.array_equal(pixels(again)[..., 0], images)
    assert again.fingerprint != before


def test_the_same_images_have_one_fingerprint_however_they_are_stored(tmp_path: Path) -> None:
    images = random_images(10, 3, 2)
    folder = flat_folder(tmp_path / "folder", list(images))
    path = save_table(tmp_path / "file.parquet", images)

    from_folder = ImagesConfig(path=str(folder), **THREE_PARTS).open()
    from_table = ImagesConfig(path=str(path), **THREE_PARTS).open()

    assert from_folder.fingerprint == from_table.fingerprint


def test_the_recorded_configuration_opens_the_same_signals(tmp_path: Path) -> None:
    path = save_table(tmp_path / "x.parquet", random_images(10, 2, 2))
    first = ImagesConfig(path=str(path), mean=(0.5,), std=(0.25,), **THREE_PARTS).open()
    assert first.config is not None

    again = config_from_mapping(SignalsConfig, first.config).open()

    assert again.fingerprint == first.fingerprint
    assert (again.mean, again.std) == (first.mean, first.std)


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_image_signals_survive_pickling(tmp_path: Path, kind: str) -> None:
    images = random_images(10, 3, 2)
    path = (
        flat_folder(tmp_path / "x", list(images))
        if kind == "folder"
        else save_table(tmp_path / "x.parquet", images)
    )
    signals = ImagesConfig(path=str(path), **THREE_PARTS).open()

    restored = pickle.loads(pickle.dumps(signals))

    assert restored.fingerprint == signals.fingerprint
    assert torch.equal(restored.targets([9, 0]), signals.targets([9, 0]))


def test_opening_leaves_the_verbosity_of_the_library_alone(tmp_path: Path) -> None:
    path = save_table(tmp_path / "x.parquet", random_images(10, 2, 2))
    datasets.enable_progress_bars()
    before = datasets.logging.get_verbosity()

    ImagesConfig(path=str(path), **THREE_PARTS).open()

    assert not datasets.are_progress_bars_disabled()
    assert datasets.logging.get_verbosity() == before


def test_splits_that_share_signals_are_refused(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "x", random_images(10, 2, 2), random_images(2, 2, 2))

    message = complaint(path=str(folder), train="train", validation="train[-2:]")

    assert "signals.train and signals.validation share 2 signals (train[8:10])" in message


def test_a_revision_of_a_local_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no revisions"):
        ImagesConfig(path=str(tmp_path), revision="main")
