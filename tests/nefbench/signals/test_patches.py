from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals import GridSignals
from nefbench.signals.patches import PatchesConfig

ROWS, COLUMNS = 25, 34  # patches of 32 pixels, 16 apart: see the first test


@pytest.fixture(scope="module")
def patches() -> GridSignals:
    return PatchesConfig().open()


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [np.asarray(image) for image in load_sample_images().images]


def corners(signals: GridSignals, size: int, photographs: list[np.ndarray]) -> list[Any]:
    """Find every patch in its photograph by its pixels: ``(photograph, top, left)``."""
    values = (signals.values.read(range(len(signals))) * 255).round().numpy().astype(np.uint8)
    images = values.reshape(len(values), size, size, 3)
    assert signals.labels is not None
    places: dict[bytes, list[tuple[int, int, int]]] = {}
    for number, photograph in enumerate(photographs):
        for top in range(photograph.shape[0] - size + 1):
            for left in range(photograph.shape[1] - size + 1):
                places.setdefault(photograph[top, left : left + size].tobytes(), []).append(
                    (number, top, left)
                )
    found = []
    for image, label in zip(images, signals.labels.tolist(), strict=True):
        matches = [
            (number, top, left)
            for number, top, left in places[image[0].tobytes()]
            if number == label
            and np.array_equal(photographs[number][top : top + size, left : left + size], image)
        ]
        assert len(matches) == 1
        found += matches
    return found


def test_there_are_850_patches_of_each_photograph(patches: GridSignals) -> None:
    # Rows: (427 - 32) // 16 + 1 = 25. Bands of 64 columns in runs of 3, 1, 2, 1, 2, 1 give
    # 11, 3, 7, 3, 7, 3 patches.
    assert [(s.name, len(s)) for s in patches.splits] == [
        ("train", 2 * ROWS * 25),
        ("validation", 2 * ROWS * 3),
        ("test", 2 * ROWS * 6),
    ]
    assert patches.labels is not None
    assert patches.labels.bincount().tolist() == [ROWS * COLUMNS, ROWS * COLUMNS]
    assert patches.class_names == ("china", "flower")
    assert (patches.shape_text, patches.in_dim) == ("32x32x3", 2)


def test_no_pixel_is_in_two_splits_and_values_are_the_photograph_s(
    patches: GridSignals, photographs: list[np.ndarray]
) -> None:
    owner = np.full((2, 427, 640), -1)
    places = corners(patches, 32, photographs)

    for number, split in enumerate(patches.splits):
        for photograph, top, left in places[split.start : split.stop]:
            area = owner[photograph, top : top + 32, left : left + 32]
            assert np.isin(area, (-1, number)).all()
            area[...] = number

    # Nothing but the last rows is left over: 16 * 24 + 32 = 416 of 427.
    assert (owner[:, :416] >= 0).all()
    assert [(owner[:, 0] == number).sum() for number in range(3)] == [896, 128, 256]


@pytest.mark.parametrize(("size", "stride"), [(64, 32), (48, 48), (16, 16)])
def test_other_sizes_keep_the_splits_apart(
    photographs: list[np.ndarray], size: int, stride: int
) -> None:
    signals = PatchesConfig(size=size, stride=stride).open()
    columns: list[set[int]] = []

    places = corners(signals, size, photographs)
    for split in signals.splits:
        lefts = {left for _, _, left in places[split.start : split.stop]}
        columns.append({left + i for left in lefts for i in range(size)})

    assert not columns[0] & columns[1]
    assert not columns[0] & columns[2]
    assert not columns[1] & columns[2]


def test_both_classes_are_in_every_split_and_mixed(patches: GridSignals) -> None:
    assert patches.labels is not None
    for split in patches.splits:
        labels = patches.labels[split.start : split.stop]
        assert labels.bincount().tolist() == [len(split) // 2] * 2
        assert 0.35 < float(labels[: len(split) // 2].float().mean()) < 0.65


def test_every_index_names_one_patch_whatever_is_selected(patches: GridSignals) -> None:
    trial = PatchesConfig(max_signals=200).open()

    assert len(trial) == 200
    assert all(len(split) > 5 for split in trial.splits)
    assert sorted(patches.indices.tolist()) == list(range(1700))
    position = {index: i for i, index in enumerate(patches.indices.tolist())}
    chosen = [position[index] for index in trial.indices.tolist()]
    assert torch.equal(trial.values.read(range(200)), patches.values.read(chosen))


def test_indices_count_row_by_row(patches: GridSignals, photographs: list[np.ndarray]) -> None:
    # 34 patches to a row: 36 is patch 2 of row 1 of the first photograph.
    i = patches.indices.tolist().index(36)

    image = patches.values.read([i]).reshape(32, 32, 3) * 255
    assert np.array_equal(image.round().numpy(), photographs[0][16:48, 32:64])


def test_statistics_are_those_of_the_training_patches(patches: GridSignals) -> None:
    values = patches.values.read(range(len(patches.splits[0]))).flatten(0, 1).double()

    assert patches.mean == pytest.approx(values.mean(0).tolist(), rel=1e-6)
    assert patches.std == pytest.approx(values.std(0, correction=0).tolist(), rel=1e-6)


def test_opening_twice_gives_the_same_signals_and_another_seed_others(
    patches: GridSignals,
) -> None:
    again, other = PatchesConfig().open(), PatchesConfig(seed=1).open()

    assert again.fingerprint == patches.fingerprint
    assert torch.equal(again.indices, patches.indices)
    assert not torch.equal(other.indices, patches.indices)
    assert [len(s) for s in other.splits] == [len(s) for s in patches.splits]


def test_too_few_signals_for_three_splits_are_refused() -> None:
    with pytest.raises(SignalError) as caught:
        PatchesConfig(max_signals=1).open()
    assert str(caught.value) == (
        "patches: 1 signals leave split 'validation' empty; raise signals.max_signals"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"size": 1}, "expected a size from 2 to 64 (got 1)"),
        ({"size": 65}, "expected a size from 2 to 64 (got 65)"),
        ({"stride": 0}, "expected stride >= 1 (got 0)"),
        ({"max_signals": 0}, "expected max_signals >= 1 (got 0)"),
        ({"seed": -1}, "expected a seed from 0 to 2**63 - 1 (got -1)"),
    ],
)
def test_numbers_out_of_range_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(PatchesConfig, {"kind": "patches", **keys})
    assert str(caught.value) == expected


def test_the_recorded_configuration_opens_the_same_signals() -> None:
    first = PatchesConfig(size=24, stride=24, seed=5, max_signals=150).open()
    assert first.config is not None

    again = config_from_mapping(PatchesConfig, first.config).open()

    assert again.fingerprint == first.fingerprint
    assert pickle.loads(pickle.dumps(first)).fingerprint == first.fingerprint
