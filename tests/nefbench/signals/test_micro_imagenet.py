from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals import GridSignals
from nefbench.signals.imagenet_classes import SUPER_CLASSES
from nefbench.signals.micro_imagenet import MicroImageNetConfig

WNIDS = [wnid for group in SUPER_CLASSES for wnid in group.wnids]
PER_WNID = 2
SMALL: dict[str, Any] = {"per_class": 8, "crop": 16, "size": (4, 4)}


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def colour(label: int, wnid: str, number: int) -> tuple[int, int, int]:
    """A colour that says what an image is: super-class, class, file."""
    group = SUPER_CLASSES[label]
    return 20 * label + 20, 2 * group.wnids.index(wnid), 100 * number + 50


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small PNG files called JPEG per class, of several sizes and one of them grey."""
    folder = tmp_path_factory.mktemp("imagenet")
    for label, group in enumerate(SUPER_CLASSES):
        for wnid in group.wnids:
            inner = folder / "train" / wnid
            inner.mkdir(parents=True)
            for number in reversed(range(PER_WNID)):
                side = (20, 30) if number else (12, 17)  # the second is smaller than the crop
                pixels = np.full((*side, 3), colour(label, wnid, number), np.uint8)
                Image.fromarray(pixels).save(inner / f"{wnid}_{number}.JPEG", "PNG")
    (folder / "train" / "n01440764").mkdir()  # tench: a class of no super-class
    return folder


def seen(signals: GridSignals) -> list[tuple[int, ...]]:
    """Colour of every image, all of whose pixels must be the same."""
    values = (signals.values.read(range(len(signals))) * 255).round().to(torch.int64)
    assert torch.equal(values.amin(1), values.amax(1))
    return [tuple(row) for row in values[:, 0].tolist()]


def pool() -> list[tuple[int, ...]]:
    """Colours of all images in the order of the pools."""
    return [
        colour(label, wnid, number)
        for label, group in enumerate(SUPER_CLASSES)
        for wnid in group.wnids
        for number in range(PER_WNID)
    ]


def complaint(**keys: Any) -> str:
    with pytest.raises(SignalError) as caught:
        MicroImageNetConfig(**keys).open()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_super_classes_are_those_of_the_study_in_its_order() -> None:
    assert [group.name for group in SUPER_CLASSES] == [
        "amphibian", "electronic equipment", "birds", "primates", "dogs",
        "cats", "houses", "fungus", "trucks", "cars",
    ]  # fmt: skip
    # ImageNet has 1,300 images of most classes: 6,000 need five of them.
    sizes = [len(group.wnids) for group in SUPER_CLASSES]
    assert sizes == [8, 13, 59, 20, 118, 5, 5, 7, 7, 10]
    assert len(set(WNIDS)) == len(WNIDS) == 252


def test_well_known_classes_are_where_they_belong() -> None:
    number_of = {
        wnid: (group.name, number)
        for group in SUPER_CLASSES
        for wnid, number in zip(group.wnids, group.numbers, strict=True)
    }
    assert number_of["n01632777"] == ("amphibian", 29)  # axolotl
    assert number_of["n02085620"] == ("dogs", 151)  # Chihuahua, the first dog
    assert number_of["n02113978"] == ("dogs", 268)  # Mexican hairless, the last
    assert number_of["n02123045"] == ("cats", 281)  # tabby
    assert number_of["n03584254"] == ("electronic equipment", 605)  # iPod
    assert number_of["n13052670"] == ("fungus", 996)  # hen-of-the-woods
    assert number_of["n03770679"] == ("cars", 656)  # minivan: a truck as well
    assert number_of["n03417042"] == ("trucks", 569)  # garbage truck
    assert "n02128385" not in number_of  # leopard: a cat only in a wider sense


@pytest.mark.parametrize("group", SUPER_CLASSES, ids=lambda group: group.name)
def test_names_and_numbers_grow_together(group: Any) -> None:
    assert list(group.wnids) == sorted(group.wnids)
    assert list(group.numbers) == sorted(group.numbers)
    assert all(0 <= number < 1000 for number in group.numbers)


def test_every_super_class_gives_the_same_number_of_images(imagenet: Path) -> None:
    signals = MicroImageNetConfig(path=str(imagenet), **SMALL).open()

    assert signals.labels is not None
    assert signals.labels.bincount().tolist() == [8] * 10
    assert signals.class_names[:2] == ("amphibian", "electronic equipment")
    assert [len(split) for split in signals.splits] == [61, 6, 13]  # a twelfth and a sixth
    assert signals.shape_text == "4x4x3"


def test_images_labels_and_indices_belong_together(imagenet: Path) -> None:
    signals = MicroImageNetConfig(path=str(imagenet), **SMALL).open()

    assert signals.labels is not None
    colours = seen(signals)
    everything = pool()
    assert [everything[index] for index in signals.indices] == colours
    assert [(red - 20) // 20 for red, _, _ in colours] == signals.labels.tolist()
    # Without replacement, and no image in two splits.
    assert len(set(signals.indices.tolist())) == len(signals) == 80


def test_the_classes_are_mixed_and_the_draws_follow_the_seed(imagenet: Path) -> None:
    config = MicroImageNetConfig(path=str(imagenet), **SMALL)
    one, again = config.open(), config.open()
    other = MicroImageNetConfig(path=str(imagenet), seed=7, **SMALL).open()

    assert torch.equal(one.indices, again.indices)
    assert one.fingerprint == again.fingerprint
    assert not torch.equal(one.indices, other.indices)
    assert one.labels is not None
    assert len(one.labels[:20].unique()) > 5


def test_the_draws_never_change(imagenet: Path) -> None:
    # Golden value: with other draws, sets that were made before could not be repeated.
    signals = MicroImageNetConfig(path=str(imagenet), **SMALL).open()

    drawn = hashlib.sha256(signals.indices.numpy().astype("<i8").tobytes()).hexdigest()
    assert drawn[:16] == "800b4123d0e1b3df"


def test_the_order_of_the_directory_does_not_matter(imagenet: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for wnid in reversed(WNIDS):
        (copy / wnid).mkdir(parents=True)
        for path in sorted((imagenet / "train" / wnid).iterdir()):
            shutil.copy(path, copy / wnid)
        (copy / wnid / "._hidden.JPEG").write_bytes(b"left by another system")

    original = MicroImageNetConfig(path=str(imagenet), **SMALL).open()
    signals = MicroImageNetConfig(path=str(copy), **SMALL).open()

    assert signals.fingerprint == original.fingerprint


@pytest.mark.parametrize("inner", [".", "train", "ILSVRC/Data/CLS-LOC/train"])
def test_the_classes_may_lie_where_the_archives_put_them(
    imagenet: Path, tmp_path: Path, inner: str
) -> None:
    (tmp_path / "x" / inner).parent.mkdir(parents=True, exist_ok=True)
    if inner == ".":
        (tmp_path / "x").symlink_to(imagenet / "train")
    else:
        (tmp_path / "x" / inner).symlink_to(imagenet / "train")

    signals = MicroImageNetConfig(path=str(tmp_path / "x"), **SMALL).open()

    assert len(signals) == 80


def test_small_images_fill_the_crop(imagenet: Path) -> None:
    # In the released code these would be thin crops with other proportions.
    signals = MicroImageNetConfig(path=str(imagenet), per_class=8, crop=100, size=(6, 6)).open()

    assert signals.values.read(range(80)).shape == (80, 36, 3)
    assert set(seen(signals)) <= set(pool())


def test_the_constants_are_the_study_s() -> None:
    config = MicroImageNetConfig(path="x")

    assert config.num_signals == 60_000
    assert config.split_sizes == (45_000, 5_000, 10_000)
    assert (config.crop, config.size, config.seed) == (256, (64, 64), 42)
    assert config.mean == (0.46433758, 0.43394157, 0.38213177)
    assert config.std == (0.18949764, 0.18707175, 0.21445987)


def test_targets_are_standardised_by_the_constants(imagenet: Path) -> None:
    signals = MicroImageNetConfig(path=str(imagenet), **SMALL).open()

    raw = signals.values.read([3])
    expected = (raw - torch.tensor(signals.mean)) / torch.tensor(signals.std)
    torch.testing.assert_close(signals.targets([3]), expected)


def table(path: Path, names: list[str], labels: list[int], colours: list[Any]) -> Path:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    images = [Image.fromarray(np.full((20, 20, 3), c, np.uint8)) for c in colours]
    rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    path.mkdir(parents=True)
    rows.to_parquet(path / "train-00000-of-00001.parquet")
    return path


def imagenet_table(path: Path) -> Path:
    """The same images as a table, last class first, with the labels of the Hub's copy."""
    names = ["tench, Tinca tinca", *(f"class {i}" for i in range(1, 1000))]
    rows = [
        (number, colour(label, wnid, i))
        for label, group in enumerate(SUPER_CLASSES)
        for wnid, number in zip(group.wnids, group.numbers, strict=True)
        for i in range(PER_WNID)
    ]
    rows.append((0, (1, 1, 1)))
    rows.sort(key=lambda row: -row[0])  # stable: files of a class keep their order
    return table(path, names, [n for n, _ in rows], [c for _, c in rows])


def test_a_table_with_the_thousand_labels_gives_the_same_images(
    imagenet: Path, tmp_path: Path
) -> None:
    path = imagenet_table(tmp_path / "hub")

    from_table = MicroImageNetConfig(path=str(path), **SMALL).open()
    from_folder = MicroImageNetConfig(path=str(imagenet), **SMALL).open()

    # The same here because images of a class are in order of their names in both.
    assert torch.equal(from_table.indices, from_folder.indices)
    assert seen(from_table) == seen(from_folder)
    assert from_table.labels is not None
    assert from_folder.labels is not None
    assert torch.equal(from_table.labels, from_folder.labels)


def test_a_table_whose_labels_are_wnids_is_read_by_name(tmp_path: Path) -> None:
    names = ["n99999999", *reversed(WNIDS)]
    colours = {
        wnid: colour(label, wnid, 0)
        for label, group in enumerate(SUPER_CLASSES)
        for wnid in group.wnids
    }
    labels = list(range(1, len(names)))
    path = table(tmp_path / "hub", names, labels, [colours[names[i]] for i in labels])

    keys = {**SMALL, "per_class": 5}
    signals = MicroImageNetConfig(path=str(path), **keys).open()

    assert signals.labels is not None
    assert [(red - 20) // 20 for red, _, _ in seen(signals)] == signals.labels.tolist()


def test_a_source_that_is_not_imagenet_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "hub", ["cat", "dog"], [0, 1], [(1, 1, 1), (2, 2, 2)])

    assert complaint(path=str(path), **SMALL) == (
        f"{path} is not ImageNet-1k: expected folders called like n01440764, or labels of its "
        f"1,000 classes from 'tench' on; set signals.path"
    )
    assert complaint(path=str(path), split="dev", **SMALL) == (
        f"{path} has no split 'dev' (it has train); set signals.split"
    )


def test_missing_classes_are_named(imagenet: Path, tmp_path: Path) -> None:
    for wnid in WNIDS[2:]:
        (tmp_path / "x" / wnid).parent.mkdir(exist_ok=True)
        (tmp_path / "x" / wnid).symlink_to(imagenet / "train" / wnid)

    assert complaint(path=str(tmp_path / "x"), **SMALL) == (
        f"micro-imagenet: {tmp_path / 'x'} lacks 2 of the 252 classes ({WNIDS[0]}, {WNIDS[1]}); "
        f"unpack the whole of ImageNet-1k"
    )


def test_too_few_images_are_refused_with_class_and_count(imagenet: Path) -> None:
    # Five classes of cats, two files each.
    assert complaint(path=str(imagenet), per_class=11) == (
        f"micro-imagenet: {imagenet} has 10 images of 'cats', 11 are asked for; "
        f"set signals.per_class to 10 or fewer"
    )


def test_a_missing_folder_is_refused() -> None:
    assert complaint(path="/nowhere/imagenet") == "no such file or folder: /nowhere/imagenet"


def test_a_damaged_image_is_named(imagenet: Path, tmp_path: Path) -> None:
    shutil.copytree(imagenet / "train", tmp_path / "x")
    for wnid in WNIDS:
        (tmp_path / "x" / wnid / f"{wnid}_1.JPEG").write_bytes(b"no picture")
    config = MicroImageNetConfig(path=str(tmp_path / "x"), per_class=5, crop=8, size=(2, 2))

    with pytest.raises(SignalError, match=r"position \d+ \(n\d{8}_1.JPEG\) .*; replace the file"):
        config.open().values.read(range(50))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"per_class": 0}, "expected per_class >= 1 (got 0)"),
        ({"validation_size": 0}, "expected validation_size >= 1 (got 0)"),
        ({"test_size": -1}, "expected test_size >= 1 (got -1)"),
        ({"seed": -1}, "expected a seed from 0 to 2**63 - 1 (got -1)"),
        ({"size": [0, 4]}, "expected a size >= 1 (got [0, 4])"),
        ({"crop": 0}, "expected crop >= 1 (got 0)"),
        ({"std": [1.0, 1.0, 0.0]}, "expected std > 0 and finite (got (1.0, 1.0, 0.0))"),
        (
            {"per_class": 100, "validation_size": 500, "test_size": 500},
            "per_class 100 gives 1000 signals, which leave none to train on beside "
            "validation_size 500 and test_size 500",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(MicroImageNetConfig, {"path": "x", **keys})
    assert str(caught.value) == expected


def test_the_recorded_configuration_opens_the_same_signals(imagenet: Path) -> None:
    config = MicroImageNetConfig(path=str(imagenet), seed=3, **SMALL)
    first = config.open()
    assert first.config == config_to_mapping(config)

    again = config_from_mapping(MicroImageNetConfig, first.config).open()

    assert again.fingerprint == first.fingerprint
    assert pickle.loads(pickle.dumps(first)).fingerprint == first.fingerprint


def test_the_source_is_described_without_the_folders_of_this_machine(imagenet: Path) -> None:
    signals = MicroImageNetConfig(path=str(imagenet), **SMALL).open()

    assert signals.source == (
        "ImageNet-1k (a local copy, split train): 8 images of each of 10 super-classes, seed 42; "
        "centre crop 16, scaled to 4x4, RGB"
    )
