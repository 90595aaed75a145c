from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals import GridSignals, signals_from_array
from nefbench.signals import array as array_module
from nefbench.signals.array_file import ArrayFileConfig, FileValues

IMAGES = np.random.default_rng(0).random((20, 3, 4, 2)).astype(np.float32)
LABELS = np.arange(20) % 3


def save(path: Path, array: Any) -> str:
    np.save(path, np.asarray(array))
    return str(path)


def complaint(**keys: Any) -> str:
    with pytest.raises(SignalError) as caught:
        ArrayFileConfig(**keys).open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def images(tmp_path: Path) -> str:
    return save(tmp_path / "images.npy", IMAGES)


def expected_signals(array: np.ndarray, signals: GridSignals, **options: Any) -> GridSignals:
    order = signals.indices.numpy()
    splits = [(split.name, len(split)) for split in signals.splits]
    return signals_from_array(array[order], splits=splits, indices=signals.indices, **options)


def test_a_file_gives_the_signals_of_its_array(tmp_path: Path, images: str) -> None:
    labels = save(tmp_path / "labels.npy", LABELS)

    signals = ArrayFileConfig(path=images, labels=labels, class_names=("a", "b", "c")).open()

    order = signals.indices.numpy()
    assert sorted(order.tolist()) == list(range(20))
    assert order.tolist() != list(range(20))
    assert [(s.name, len(s)) for s in signals.splits] == [
        ("train", 14),
        ("validation", 2),
        ("test", 4),
    ]
    assert np.array_equal(signals.values.read(range(20)).reshape(20, 3, 4, 2), IMAGES[order])
    assert signals.labels is not None
    assert signals.labels.tolist() == LABELS[order].tolist()
    same = expected_signals(IMAGES, signals, labels=LABELS[order], class_names=("a", "b", "c"))
    assert (signals.fingerprint, signals.mean, signals.std) == (
        same.fingerprint,
        same.mean,
        same.std,
    )
    assert (signals.name, signals.source) == ("images", "images.npy (20x3x4x2, float32)")
    assert signals.value_range == (0.0, 1.0)


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 7, 3), (9, 2, 3, 4, 1), (9, 2, 2, 2, 2, 5)])
def test_grids_of_any_dimension_and_channel_count_are_read(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).random(shape)

    signals = ArrayFileConfig(path=save(tmp_path / "x.npy", array), shuffle=False).open()

    assert (signals.grid_shape, signals.num_channels) == (shape[1:-1], shape[-1])
    expected = array[[8, 0]].astype(np.float32).reshape(2, -1, shape[-1])
    assert np.array_equal(signals.values.read([8, 0]).numpy(), expected)


@pytest.mark.parametrize("dtype", ["u1", "<f2", ">f4", "<f8", "<i2", ">u4", "?"])
def test_every_type_of_number_gives_the_values_of_the_array_in_memory(
    tmp_path: Path, dtype: str
) -> None:
    draw = np.random.default_rng(0)
    array = draw.integers(0, 2, (10, 4, 1)).astype(dtype)

    signals = ArrayFileConfig(path=save(tmp_path / "x.npy", array)).open()

    assert signals.values.read([0]).dtype == torch.float32
    assert signals.fingerprint == expected_signals(array, signals).fingerprint


def test_columns_first_order_is_read_alike(tmp_path: Path, images: str) -> None:
    path = tmp_path / "fortran.npy"
    np.save(path, np.asfortranarray(IMAGES))

    signals = ArrayFileConfig(path=str(path)).open()

    assert signals.fingerprint == ArrayFileConfig(path=images).open().fingerprint


def test_only_the_signals_asked_for_are_read(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    read = FileValues.read

    def watched(values: FileValues, positions: Sequence[int]) -> torch.Tensor:
        blocks.append(len(positions))
        return read(values, positions)

    monkeypatch.setattr(array_module, "_BLOCK_NUMBERS", 3 * IMAGES[0].size)
    monkeypatch.setattr(FileValues, "read", watched)

    signals = ArrayFileConfig(path=images, mean=(0.5, 0.5), std=(1.0, 1.0)).open()

    assert isinstance(signals.values, FileValues)
    assert isinstance(signals.values._array, np.memmap)
    assert max(blocks) == 3


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_signals_travel_to_another_process_without_their_values(
    tmp_path: Path, ending: str
) -> None:
    array = np.random.default_rng(0).random((20, 50, 50, 1))
    path = tmp_path / f"x.{ending}"
    if ending == "npy":
        np.save(path, array)
    else:
        np.savez(path, signals=array)
    signals = ArrayFileConfig(path=str(path)).open()
    before = signals.fingerprint

    travelling = pickle.dumps(signals)
    restored = pickle.loads(travelling)

    assert len(travelling) < 10_000
    assert restored.fingerprint == before
    assert torch.equal(restored.targets([19, 0]), signals.targets([19, 0]))


def test_a_relative_path_is_found_from_another_folder(
    tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signals = ArrayFileConfig(path=Path(images).name).open()
    travelling = pickle.dumps(signals)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert torch.equal(pickle.loads(travelling).targets([1]), signals.targets([1]))


def test_a_file_that_was_replaced_is_noticed_by_another_process(
    tmp_path: Path, images: str
) -> None:
    travelling = pickle.dumps(ArrayFileConfig(path=images).open())
    (tmp_path / "images.npy").unlink()
    save(tmp_path / "images.npy", IMAGES[:9])

    with pytest.raises(SignalError, match=r"images\.npy has changed since it was opened"):
        pickle.loads(travelling).targets([0])


def test_an_archive_brings_its_labels(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", signals=IMAGES, labels=LABELS)

    signals = ArrayFileConfig(path=str(tmp_path / "x.npz"), shuffle=False).open()

    assert signals.labels is not None
    assert signals.labels.tolist() == LABELS.tolist()
    assert signals.class_names == ("0", "1", "2")
    assert np.array_equal(signals.values.read(range(20)).reshape(IMAGES.shape), IMAGES)


def test_labels_of_their_own_go_before_those_of_the_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", signals=IMAGES, labels=LABELS)
    labels = save(tmp_path / "y.npy", 1 - LABELS % 2)

    signals = ArrayFileConfig(path=str(tmp_path / "x.npz"), labels=labels, shuffle=False).open()

    assert signals.labels is not None
    assert signals.labels.tolist() == (1 - LABELS % 2).tolist()


def test_an_archive_without_labels_has_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", signals=IMAGES)

    assert ArrayFileConfig(path=str(tmp_path / "x.npz")).open().labels is None


def test_an_archive_brings_the_properties_that_are_named(tmp_path: Path) -> None:
    viscosity, mass = np.linspace(0.1, 2, 20), np.arange(20)
    np.savez(tmp_path / "x.npz", signals=IMAGES, viscosity=viscosity, mass=mass, other=mass)

    config = ArrayFileConfig(path=str(tmp_path / "x.npz"), properties=("viscosity", "mass"))
    signals = config.open()

    order = signals.indices.numpy()
    assert list(signals.properties) == ["viscosity", "mass"]
    assert signals.properties["viscosity"].tolist() == viscosity[order].tolist()
    assert signals.properties["mass"].dtype == torch.float64
    assert signals.config is not None
    again = config_from_mapping(ArrayFileConfig, signals.config).open()
    assert again.fingerprint == signals.fingerprint
    assert ArrayFileConfig(path=str(tmp_path / "x.npz")).open().fingerprint != again.fingerprint


def test_properties_that_are_not_there_or_not_finite_are_named(tmp_path: Path, images: str) -> None:
    path = str(tmp_path / "x.npz")
    np.savez(path, signals=IMAGES, mass=np.where(np.arange(20) == 7, np.nan, 1.0))

    assert complaint(path=path, properties=("mas",)) == (
        f"{path} has no array 'mas' (it has signals, mass)"
    )
    assert complaint(path=path, properties=("mass",)) == (
        "x: property 'mass' of 1 signal(s) is NaN or infinite (positions 7); remove or repair them"
    )
    assert complaint(path=images, properties=("mass",)) == (
        f"{images} holds one array; properties (mass) are arrays of a .npz file"
    )
    with pytest.raises(ValueError, match="a property is named twice"):
        ArrayFileConfig(path=path, properties=("mass", "mass"))


def test_values_outside_0_to_1_need_a_value_range(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", IMAGES * 6 - 3)

    assert complaint(path=path).startswith("x: values must lie in [0, 1] (got -2.9")
    signals = ArrayFileConfig(path=path, value_range=(-3, 3)).open()
    assert signals.value_range == (-3, 3)
    unit = signals.unit_values(signals.raw_values(range(20)))
    assert 0 <= float(unit.min()) < float(unit.max()) <= 1


def test_values_out_of_range_are_found_in_every_split(tmp_path: Path) -> None:
    for position in (0, 19):
        array = IMAGES.copy()
        array[position, 2, 3, 1] = 1.25
        path = save(tmp_path / "x.npy", array)

        message = complaint(path=path, shuffle=False, mean=(0.5, 0.5), std=(1.0, 1.0))
        assert message.endswith("to 1.25); give value_range or rescale them")


def test_bad_values_are_named_by_their_position_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_module, "_BLOCK_NUMBERS", 2 * IMAGES[0].size)
    array = IMAGES.astype(np.float64)
    array[4, 0, 0, 0] = np.nan
    array[17, 2, 3, 1] = 1e300  # too large for float32

    assert complaint(path=save(tmp_path / "x.npy", array)) == (
        "x: 2 signal(s) hold NaN or infinite values (positions 4, 17); remove or repair them"
    )


def test_sizes_are_numbers_or_shares_and_zero_leaves_a_split_out(images: str) -> None:
    def sizes(**keys: Any) -> list[tuple[str, int]]:
        signals = ArrayFileConfig(path=images, **keys).open()
        return [(split.name, len(split)) for split in signals.splits]

    assert sizes(validation_size=3, test_size=0.25) == [
        ("train", 12),
        ("validation", 3),
        ("test", 5),
    ]
    assert sizes(validation_size=0, test_size=0.01) == [("train", 19), ("test", 1)]
    assert sizes(validation_size=0, test_size=0) == [("train", 20)]
    assert sizes(max_signals=10) == [("train", 7), ("validation", 1), ("test", 2)]


def test_without_shuffling_signals_keep_the_order_of_the_file(images: str) -> None:
    signals = ArrayFileConfig(path=images, shuffle=False, max_signals=12).open()

    assert signals.indices.tolist() == list(range(12))


def test_a_trial_keeps_the_first_signals_of_the_permutation(images: str) -> None:
    full, trial = ArrayFileConfig(path=images), ArrayFileConfig(path=images, max_signals=10)

    assert torch.equal(trial.open().indices, full.open().indices[:10])


def test_another_seed_gives_another_order(images: str) -> None:
    orders = [ArrayFileConfig(path=images, split_seed=seed).open().indices for seed in (0, 0, 1)]

    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_given_statistics_are_taken(images: str) -> None:
    signals = ArrayFileConfig(path=images, mean=(0.5, 0.25), std=(0.5, 2.0)).open()

    assert (signals.mean, signals.std) == ((0.5, 0.25), (0.5, 2.0))
    assert complaint(path=images, mean=(0.5,), std=(0.5,)) == (
        "images: signals have 2 channel(s), signals.mean has 1 and signals.std 1 number(s); "
        "give one number per channel"
    )


def test_the_recorded_configuration_opens_the_same_signals(tmp_path: Path, images: str) -> None:
    labels = save(tmp_path / "y.npy", LABELS)
    first = ArrayFileConfig(
        path=images, labels=labels, value_range=(-1, 2), split_seed=4, name="z", max_signals=11
    ).open()
    assert first.config is not None

    again = config_from_mapping(ArrayFileConfig, first.config).open()

    assert again.fingerprint == first.fingerprint
    assert (again.name, again.value_range) == ("z", (-1, 2))


@pytest.mark.parametrize("name", ["no.npy", "no.npz", "folder/no.npy"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert complaint(path=str(tmp_path / name)) == f"no such file: {tmp_path / name}"


def test_a_missing_file_of_labels_is_named(tmp_path: Path, images: str) -> None:
    labels = str(tmp_path / "no.npy")
    assert complaint(path=images, labels=labels) == f"no such file: {labels}"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert complaint(path=str(tmp_path)) == (
        f"{tmp_path} is a folder; expected a .npy or .npz file"
    )


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickled_objects_are_refused(tmp_path: Path, name: str) -> None:
    objects = np.array([{}, 1], dtype=object)
    if name == "x.npy":
        np.save(tmp_path / name, objects, allow_pickle=True)
    else:
        np.savez(tmp_path / name, signals=objects)

    assert complaint(path=str(tmp_path / name)) == (
        f"{tmp_path / name} does not open as a NumPy file: it holds Python objects; "
        f"save an array of numbers"
    )


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1, 2])])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)

    assert complaint(path=str(tmp_path / "x.npy")) == (
        f"{tmp_path / 'x.npy'} does not open as a NumPy file: it is neither a .npy nor a .npz file"
    )


@pytest.mark.parametrize("ending", ["npy", "npz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_files_that_are_cut_short_are_refused(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"x.{ending}"
    if ending == "npy":
        np.save(path, IMAGES)
    else:
        np.savez_compressed(path, signals=IMAGES)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    assert complaint(path=str(path)).startswith(f"{path} does not open as a NumPy file: ")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, signals=IMAGES)
    content = bytearray(path.read_bytes())
    content[900:910] = bytes(10)
    path.write_bytes(content)

    assert complaint(path=str(path)).startswith(f"{path} does not open as a NumPy file: Bad CRC")


def test_an_archive_of_other_names_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)

    assert complaint(path=str(tmp_path / "x.npz")) == (
        f"{tmp_path / 'x.npz'} has no array 'signals' (it has images, labels)"
    )


@pytest.mark.parametrize(
    ("array", "keys", "expected"),
    [
        (IMAGES[:, 0, 0], {}, "x: expected [N, grid…, c] (got shape (20, 2))"),
        (IMAGES[:0], {}, "x: expected [N, grid…, c] (got shape (0, 3, 4, 2))"),
        (IMAGES.astype(str), {}, "x: expected an array of real numbers (got <U"),
        (IMAGES * 1j, {}, "x: expected an array of real numbers (got complex64)"),
        (
            (IMAGES * 255).astype(np.uint8),
            {"value_range": (0, 255)},
            "x: bytes count as 0 to 255 and become [0, 1]; leave value_range out",
        ),
        (IMAGES, {"max_signals": 2}, "x: 2 signals leave none to train on beside 1 for valid"),
        (IMAGES, {"test_size": 30}, "x: 20 signals leave none to train on beside 2 for valid"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, array: Any, keys: dict[str, Any], expected: str
) -> None:
    assert complaint(path=save(tmp_path / "x.npy", array), **keys).startswith(expected)


def test_labels_must_be_as_many_as_the_signals_of_the_file(tmp_path: Path, images: str) -> None:
    labels = save(tmp_path / "y.npy", LABELS[:10])

    assert complaint(path=images, labels=labels, max_signals=10) == (
        "images: expected 20 labels (got shape (10,))"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"validation_size": -0.1}, "validation_size to be a number, or a share below 1 (got -0.1"),
        ({"test_size": 1.5}, "expected test_size to be a number, or a share below 1 (got 1.5)"),
        ({"split_seed": -1}, "expected split_seed from 0 to 2**63 - 1 (got -1)"),
        ({"max_signals": 0}, "expected max_signals >= 1 (got 0)"),
        ({"value_range": [1, 0]}, "expected a finite value_range, the lower number first (got (1"),
        ({"mean": [0.5]}, "mean and std go together: give both or neither"),
        ({"std": [0.0], "mean": [0.0]}, "expected std > 0 and finite (got (0.0,))"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(ArrayFileConfig, {"path": "x", **keys})
    assert expected in str(caught.value)
