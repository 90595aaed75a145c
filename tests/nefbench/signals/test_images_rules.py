"""Images brought to one size and colour mode, permuted, and without the damaged ones."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals import GridSignals, ImagesConfig, SignalsConfig
from nefbench.signals.pictures import PictureRule

THREE_PARTS: dict[str, Any] = {
    "train": "train[:6]",
    "validation": "train[6:8]",
    "test": "train[8:]",
}
GIVEN: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows by 2 per row and green by 2 per column: position can be read off the colour."""
    rows, columns = np.mgrid[:height, :width] * 2
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


def save(folder: Path, pictures: Mapping[str, Any]) -> Path:
    for name, picture in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
            image.save(path)
    return folder


def ten(folder: Path, *pictures: Any) -> Path:
    """Save the pictures, the last one repeated until there are ten."""
    repeated = [*pictures, *[pictures[-1]] * (10 - len(pictures))]
    return save(folder, {f"{i:03d}.png": picture for i, picture in enumerate(repeated)})


def opened(folder: Path, **keys: Any) -> GridSignals:
    return ImagesConfig(path=str(folder), **{**THREE_PARTS, **GIVEN, **keys}).open()


def image(signals: GridSignals, position: int = 0) -> np.ndarray:
    """Values times 255 as one image ``[H, W, c]``."""
    values = signals.values.read([position])
    pixels: np.ndarray = (values * 255).numpy().reshape(*signals.grid_shape, -1)
    return pixels


def test_a_centre_crop_keeps_pixels_of_the_original(tmp_path: Path) -> None:
    picture = noise(9, 12, 3)

    signals = opened(ten(tmp_path / "x", picture, noise(20, 8, 3)), crop=6, mode="RGB")

    # (9 - 6) / 2 = 1.5 rounds to 2, the even one; (12 - 6) / 2 = 3.
    assert np.array_equal(image(signals).round(), picture[2:8, 3:9])
    assert np.array_equal(image(signals, 1).round(), noise(20, 8, 3)[7:13, 1:7])
    assert signals.source.endswith("; centre crop 6, RGB)")


@pytest.mark.parametrize(
    ("offset", "rows", "columns"),
    [((1, -2), (4, 8), (2, 6)), ((50, 0), (6, 10), (4, 8)), ((0, -50), (3, 7), (0, 4))],
    ids=["moved", "ends at the lower edge", "ends at the left edge"],
)
def test_a_crop_is_moved_down_and_right_but_not_out_of_the_picture(
    tmp_path: Path, offset: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    # In the middle, the crop is at row (10 - 4) / 2 = 3 and column (12 - 4) / 2 = 4.
    picture = noise(10, 12, 3)

    signals = opened(ten(tmp_path / "x", picture), crop=4, crop_offset=offset)

    assert np.array_equal(image(signals).round(), picture[slice(*rows), slice(*columns)])


def test_the_crop_of_celeba_is_that_of_the_study(tmp_path: Path) -> None:
    picture = ramp(109, 89)  # half of 218 x 178, so that the ramp fits 8 bits

    signals = opened(ten(tmp_path / "x", picture), crop=64, crop_offset=(8, 0))

    # Rows from round(45 / 2) + 8 = 30 on, columns from round(25 / 2) = 12 on; 2 per pixel.
    assert image(signals)[0, 0].tolist() == pytest.approx([60, 24, 7], abs=1e-3)
    assert image(signals)[-1, -1].tolist() == pytest.approx([186, 150, 7], abs=1e-3)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (8, 8)])
def test_a_crop_of_a_smaller_picture_is_full_and_not_distorted(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    picture = ramp(*shape)

    got = image(opened(ten(tmp_path / "x", picture), crop=16))

    assert got.shape == (16, 16, 3)
    # The shorter side is doubled to 16, so 8 original pixels remain along both axes, centred;
    # away from the edges one new pixel is half an old one, so colours grow by 1 per pixel.
    inner = got[2:-2, 2:-2]
    assert np.abs(np.diff(inner[..., 0], axis=0) - 1).max() <= 1  # rounding to whole numbers
    assert inner[-1, 0, 0] - inner[0, 0, 0] == pytest.approx(11, abs=1)
    assert inner[0, -1, 1] - inner[0, 0, 1] == pytest.approx(11, abs=1)
    middle = got[7:9, 7:9].mean((0, 1))
    assert middle[:2] == pytest.approx(np.array(shape) - 1.0, abs=1)  # 2 * (n - 1) / 2


def test_scaling_is_bilinear_with_antialiasing(tmp_path: Path) -> None:
    # A picture of stripes one pixel wide: sampling alone would give stripes or one of them.
    stripes = np.zeros((8, 32, 3), np.uint8)
    stripes[:, ::2] = 200

    got = image(opened(ten(tmp_path / "x", stripes), size=(2, 8)))

    assert got.shape == (2, 8, 3)
    # The triangle over 8 source pixels weighs even and odd columns alike: 100.
    assert np.abs(got[:, 1:-1] - 100).max() <= 1


def test_scaling_agrees_with_torch(tmp_path: Path) -> None:
    picture = noise(20, 30, 3)

    got = image(opened(ten(tmp_path / "x", picture), size=(8, 12)))

    planes = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, (8, 12), mode="bilinear", antialias=True)
    # Pillow rounds to whole numbers after each of two passes: at most one step apart.
    assert np.abs(got - expected[0].permute(1, 2, 0).numpy()).max() <= 1.01


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((20, 40), (0, 20), (10, 30)), ((40, 20), (10, 30), (0, 20))],
)
def test_without_a_crop_the_centre_that_fits_is_kept(
    tmp_path: Path, shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    got = image(opened(ten(tmp_path / "x", ramp(*shape)), size=(10, 10)))

    # Pixel i of 10 covers two original ones, 2i and 2i + 1: mean colour 2 * (start + 2i + 0.5).
    steps = 4 * np.arange(1, 9) + 1.0
    assert got[1:-1, 5, 0] == pytest.approx(2 * rows[0] + steps, abs=1)
    assert got[5, 1:-1, 1] == pytest.approx(2 * columns[0] + steps, abs=1)


def test_sizes_need_not_be_square(tmp_path: Path) -> None:
    signals = opened(ten(tmp_path / "x", ramp(40, 40), ramp(31, 57)), size=(6, 9), mode="RGB")

    assert signals.shape_text == "6x9x3"
    assert signals.values.read([0, 1]).shape == (2, 54, 3)


def test_a_crop_can_be_scaled_as_well(tmp_path: Path) -> None:
    got = image(opened(ten(tmp_path / "x", ramp(60, 100)), crop=32, size=(8, 8)))

    # Rows from 14, columns from 34, four to a pixel: 2 * (start + 4i + 1.5).
    assert got[1:-1, 4, 0] == pytest.approx(2 * (14 + 4 * np.arange(1, 7) + 1.5), abs=1)
    assert got[4, 1:-1, 1] == pytest.approx(2 * (34 + 4 * np.arange(1, 7) + 1.5), abs=1)


def test_a_square_crop_scaled_to_another_shape_is_not_distorted(tmp_path: Path) -> None:
    got = image(opened(ten(tmp_path / "x", ramp(60, 100)), crop=32, size=(4, 8)))

    # Of the crop's 32 rows the middle 16, from 14 + 8 on; columns as above.
    assert got[1:-1, 4, 0] == pytest.approx(2 * (22 + 4 * np.arange(1, 3) + 1.5), abs=1)
    assert got[2, 1:-1, 1] == pytest.approx(2 * (34 + 4 * np.arange(1, 7) + 1.5), abs=1)


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    crop=st.none() | st.integers(1, 200),
    offset=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
)
def test_every_shape_can_be_brought_to_every_size(
    shape: tuple[int, int], size: tuple[int, int], crop: int | None, offset: tuple[int, int]
) -> None:
    rule = PictureRule(crop=crop, crop_offset=offset if crop else (0, 0), size=size)

    changed = rule.apply(Image.new("RGB", (shape[1], shape[0]), (9, 99, 199)))

    assert (changed.height, changed.width) == size
    assert changed.getextrema() == ((9, 9), (99, 99), (199, 199))


def test_an_image_of_the_right_size_is_left_as_it_is(tmp_path: Path) -> None:
    picture = noise(6, 9, 3)

    signals = opened(ten(tmp_path / "x", picture), size=(6, 9))

    assert np.array_equal(image(signals).round(), picture)


def mixed_modes() -> list[Image.Image]:
    grey = Image.fromarray(np.full((8, 8), 100, np.uint8))
    colour = Image.fromarray(np.full((8, 8, 3), (200, 100, 0), np.uint8))
    transparent = Image.fromarray(np.full((8, 8, 4), (200, 100, 0, 9), np.uint8))
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE)
    return [grey, colour, transparent, palette, grey.convert("1"), grey.convert("LA")]


def test_mixed_modes_become_colour(tmp_path: Path) -> None:
    signals = opened(ten(tmp_path / "x", *mixed_modes()), mode="RGB")

    got = [image(signals, i)[0, 0].round().tolist() for i in (0, 1, 2, 3, 5)]
    assert got == [[100] * 3, [200, 100, 0], [200, 100, 0], [200, 100, 0], [100] * 3]
    assert signals.num_channels == 3


def test_mixed_modes_become_grey(tmp_path: Path) -> None:
    signals = opened(ten(tmp_path / "x", *mixed_modes()), mode="L", mean=(0.0,), std=(1.0,))

    # ITU-R 601: 0.299 * 200 + 0.587 * 100 = 118.5.
    assert image(signals, 0)[0, 0, 0] == pytest.approx(100, abs=1e-3)
    assert image(signals, 1)[0, 0, 0] == pytest.approx(118.5, abs=0.6)
    assert signals.num_channels == 1


def test_black_and_white_is_scaled_as_grey(tmp_path: Path) -> None:
    # Pillow scales a picture of mode 1 by picking pixels.
    stripes = Image.fromarray(np.tile(np.array([True, False]), (8, 8)))

    got = image(opened(ten(tmp_path / "x", stripes), size=(4, 8), mean=(0.0,), std=(1.0,)))

    assert np.abs(got[:, 1:-1] - 127.5).max() <= 1


def test_images_of_more_than_8_bits_are_refused_not_clipped(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    folder = ten(tmp_path / "x", noise(8, 8, 3), deep)

    with pytest.raises(SignalError) as caught:
        opened(folder, size=(4, 4), mode="RGB").values.read([1])

    assert str(caught.value) == (
        "x: the image at position 1 (001.png) has mode 'I;16', more than 8 bits per channel; "
        "scale it to 8 bits first"
    )
    with pytest.raises(SignalError, match="position 0 has mode 'I;16', more than 8 bits"):
        opened(ten(tmp_path / "y", deep))


def imagenet_folder(folder: Path) -> Path:
    """JPEG files of mixed sizes and modes in folders of classes, as ImageNet is unpacked."""
    modes = ("RGB", "L", "CMYK", "RGB")
    pictures: dict[str, Any] = {}
    for split, count in (("train", 6), ("val", 2)):
        for number, wnid in enumerate(("n01440764", "n02123045")):
            for i in range(count):
                plain = np.full((20 + 3 * i, 50 - 4 * i, 3), 60 + 120 * number, np.uint8)
                converted = Image.fromarray(plain).convert(modes[i % 4])
                pictures[f"{split}/{wnid}/{wnid}_{i}.JPEG"] = converted
    save(folder, pictures)
    # Like the one PNG file in ImageNet that is called .JPEG: the ending does not count.
    Image.fromarray(np.full((30, 30, 4), 60, np.uint8)).save(
        folder / "train/n01440764/n01440764_9.JPEG", "PNG"
    )
    return folder


def test_a_folder_of_classes_of_mixed_jpegs_opens_with_a_rule(tmp_path: Path) -> None:
    folder = imagenet_folder(tmp_path / "imagenet")

    signals = opened(
        folder,
        train="train[:80%]",
        validation="train[80%:]",
        test="validation",
        shuffle_seed=3,
        crop=24,
        size=(16, 16),
        mode="RGB",
    )

    values = signals.values.read(range(len(signals)))
    assert values.shape == (17, 256, 3)
    assert signals.class_names == ("n01440764", "n02123045")
    # The colour says the class; the way over CMYK and JPEG costs a little.
    assert signals.labels is not None
    expected = (60 + 120 * signals.labels.float()) / 255
    assert (values.mean((1, 2)) - expected).abs().max() < 0.02


def test_no_image_but_the_first_is_looked_at_when_size_and_mode_are_given(tmp_path: Path) -> None:
    folder = ten(tmp_path / "x", noise(8, 8, 3), b"not a picture")

    signals = opened(folder, size=(4, 4), mode="RGB")

    assert signals.values.read([0]).shape == (1, 16, 3)
    with pytest.raises(SignalError, match=r"position 1 \(001.png\) is damaged"):
        signals.values.read([0, 1])


@pytest.mark.parametrize(
    ("keys", "remedy"),
    [
        ({"mode": "RGB"}, "--set 'signals.size=[8, 8]'"),
        ({"size": (4, 4)}, "--set signals.mode=RGB"),
    ],
)
def test_what_a_rule_leaves_open_must_be_the_same(
    tmp_path: Path, keys: dict[str, Any], remedy: str
) -> None:
    folder = ten(tmp_path / "x", noise(8, 8, 3), noise(9, 8))

    with pytest.raises(SignalError) as caught:
        opened(folder, **keys)

    assert str(caught.value).endswith(f"one size and one colour mode, give them with {remedy}")


def test_statistics_are_those_of_the_changed_images(tmp_path: Path) -> None:
    folder = ten(tmp_path / "x", noise(9, 9, 3), noise(12, 8, 3, seed=1))

    signals = opened(folder, size=(4, 4), mean=None, std=None)

    values = signals.values.read(range(6)).flatten(0, 1).double()
    assert signals.mean == pytest.approx(values.mean(0).tolist(), rel=1e-6)
    assert signals.std == pytest.approx(values.std(0, correction=0).tolist(), rel=1e-6)


def cut(path: Path) -> None:
    """Drop the last third of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def damaged_folder(folder: Path) -> Path:
    names = [f"{i:03d}.jpg" for i in range(12)]
    save(folder, {name: noise(40, 40, 3, seed=i) for i, name in enumerate(names)})
    (folder / "002.jpg").write_bytes(b"no picture")
    cut(folder / "007.jpg")
    return folder


def test_damaged_images_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = damaged_folder(tmp_path / "x")
    parts = {"train": "train[:6]", "validation": "train[6:9]", "test": "train[9:]"}

    with caplog.at_level(logging.WARNING, logger="nefbench"):
        signals = opened(folder, drop_damaged=True, **parts)

    (record,) = caplog.records
    assert record.getMessage() == (
        "x: 2 of 12 images are damaged and left out (train[2], train[7])"
    )
    # The others keep the index of their place in the source.
    assert signals.indices.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
    assert [len(split) for split in signals.splits] == [5, 2, 3]
    third = np.asarray(Image.open(folder / "003.jpg"))
    assert np.array_equal(image(signals, 2).round(), third)


def test_nothing_is_said_when_no_image_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ten(tmp_path / "x", noise(8, 8, 3))

    signals = opened(folder, drop_damaged=True)

    assert (len(signals), caplog.records) == (10, [])


def test_labels_of_damaged_images_go_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = {f"train/{c}/{i}.png": noise(9, 9, 3) for c in "ab" for i in range(8)}
    folder = save(tmp_path / "x", pictures)
    cut(folder / "train/a/1.png")

    signals = opened(
        folder, train="train[:12]", validation="train[12:14]", test="train[14:]", drop_damaged=True
    )

    assert signals.labels is not None
    assert signals.labels.tolist() == [0] * 7 + [1] * 8
    assert "1 of 16 images" in caplog.text


def test_a_split_of_damaged_images_only_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ten(tmp_path / "x", *[noise(8, 8, 3)] * 8, b"no picture")

    with pytest.raises(SignalError, match="split 'test' is empty"):
        opened(folder, drop_damaged=True)
    assert "left out (train[8], train[9])" in caplog.text


def test_shuffling_reaches_every_class_in_every_split(tmp_path: Path) -> None:
    pictures = {f"train/{c}/{i:02d}.png": noise(4, 4, 3, seed=i) for c in "ab" for i in range(20)}
    folder = save(tmp_path / "x", pictures)
    cuts = {"train": "train[:20]", "validation": "train[20:30]", "test": "train[30:]"}

    plain = opened(folder, **cuts)
    mixed = opened(folder, shuffle_seed=7, **cuts)

    assert plain.labels is not None
    assert mixed.labels is not None
    assert plain.labels[20:].unique().tolist() == [1]
    for split in mixed.splits:
        assert mixed.labels[split.start : split.stop].unique().tolist() == [0, 1]
    # The same images under the same indices, in another order.
    assert sorted(mixed.indices.tolist()) == list(range(40))
    for position in (0, 11, 39):
        index = int(mixed.indices[position])
        assert np.array_equal(image(mixed, position), image(plain, index))
        assert mixed.labels[position] == plain.labels[index]
    assert "; splits permuted with seed 7" in mixed.source


def test_shuffled_splits_share_no_image_and_follow_the_seed(tmp_path: Path) -> None:
    folder = ten(tmp_path / "x", noise(4, 4, 3))

    one, same, other = (opened(folder, shuffle_seed=seed) for seed in (1, 1, 2))

    assert one.indices.tolist() == same.indices.tolist() != other.indices.tolist()
    with pytest.raises(SignalError, match="share 2 signals"):
        opened(folder, shuffle_seed=1, test="train[4:6]")


def test_every_setting_is_recorded_and_opens_the_same_signals(tmp_path: Path) -> None:
    folder = ten(tmp_path / "x", noise(12, 14, 3), noise(12, 20))
    first = opened(folder, crop=8, crop_offset=(1, -1), size=(4, 6), mode="RGB", shuffle_seed=5)
    assert first.config is not None

    again = config_from_mapping(SignalsConfig, first.config).open()

    assert again.fingerprint == first.fingerprint
    assert again.indices.tolist() == first.indices.tolist()
    assert pickle.loads(pickle.dumps(first)).fingerprint == first.fingerprint


def tiny_imagenet(folder: Path) -> Path:
    wnids = ("n01443537", "n01629819")
    pictures: dict[str, Any] = {}
    lines = []
    for number, wnid in enumerate(wnids):
        for i in range(5):
            value = np.full((8, 8, 3), 40 + 100 * number, np.uint8)
            pictures[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = value
    for i, wnid in enumerate((*reversed(wnids), *wnids)):
        value = np.full((8, 8, 3), 40 + 100 * wnids.index(wnid), np.uint8)
        pictures[f"val/images/val_{i}.JPEG"] = value
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t8\t8\n")
    save(folder, pictures)
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "train" / wnids[0] / f"{wnids[0]}_boxes.txt").write_text("a box")
    return folder


def test_tiny_imagenet_opens_as_it_is_unpacked(tmp_path: Path) -> None:
    folder = tiny_imagenet(tmp_path / "tiny-imagenet-200")

    signals = opened(folder, train="train[:8]", validation="train[8:]", test="valid", mode="RGB")

    assert signals.class_names == ("n01443537", "n01629819")
    assert signals.labels is not None
    assert signals.labels.tolist() == [0] * 5 + [1] * 5 + [1, 0, 0, 1]
    values = signals.values.read(range(14))
    expected = (40 + 100 * signals.labels.float()) / 255
    assert (values.mean((1, 2)) - expected).abs().max() < 0.01
    assert signals.name == "tiny-imagenet-200"


def test_an_incomplete_tiny_imagenet_is_refused(tmp_path: Path) -> None:
    folder = tiny_imagenet(tmp_path / "t")
    with (folder / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_9.JPEG\tn09999999\t0\t0\t8\t8\n")

    with pytest.raises(SignalError) as caught:
        opened(folder, test="valid")

    assert str(caught.value) == (
        "val/val_annotations.txt: class 'n09999999' of 'val_9.JPEG' has no folder in train; "
        f"unpack {folder} again"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"crop": 0}, "expected crop >= 1 (got 0)"),
        ({"crop_offset": [15, 0]}, "crop_offset moves the crop: set crop as well"),
        ({"size": [0, 4]}, "expected a size >= 1 (got [0, 4])"),
        ({"shuffle_seed": -1}, "expected shuffle_seed from 0 to 2**63 - 1 (got -1)"),
        ({"mode": "CMYK"}, "mode: input should be 'L' or 'RGB' (got 'CMYK')"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(SignalsConfig, {"kind": "images", "path": "x", **keys})
    assert str(caught.value) == expected
