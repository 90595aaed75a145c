from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.signals import GridSignals, Split, grid_coords, signals_from_array
from nefbench.signals.base import (
    ArrayValues,
    channel_statistics,
    check_finite,
    make_splits,
)


def some_signals(count: int = 10, seed: int = 0) -> GridSignals:
    images = np.random.default_rng(seed).random((count, 4, 3, 2))
    labels = np.arange(count) % 3
    return signals_from_array(images, labels, splits=[("train", count - 3), ("test", 3)])


def test_a_square_grid_goes_row_by_row_with_the_column_first() -> None:
    assert grid_coords((3, 3)).tolist() == [
        [-1, -1],
        [0, -1],
        [1, -1],
        [-1, 0],
        [0, 0],
        [1, 0],
        [-1, 1],
        [0, 1],
        [1, 1],
    ]


def test_component_zero_of_an_oblong_grid_is_the_column() -> None:
    coords = grid_coords((2, 3)).reshape(2, 3, 2)

    assert coords[..., 0].tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert coords[..., 1].tolist() == [[-1, -1, -1], [1, 1, 1]]


def test_grids_of_one_and_three_axes_end_at_one() -> None:
    assert grid_coords((5,)).tolist() == [[-1], [-0.5], [0], [0.5], [1]]
    coords = grid_coords((2, 3, 5)).reshape(2, 3, 5, 3)
    # Component 0 belongs to the last axis, component 2 to the first.
    assert coords[1, 0, 1].tolist() == [-0.5, -1, 1]
    assert coords[0, 2, 4].tolist() == [1, 1, -1]


def test_signals_know_their_sizes_and_coordinates() -> None:
    signals = some_signals()

    assert (len(signals), signals.num_points, signals.num_channels) == (10, 12, 2)
    assert torch.equal(signals.coords, grid_coords((4, 3)))
    assert signals.coords.dtype == torch.float32


def test_array_values_are_read_in_the_order_asked_for() -> None:
    values = ArrayValues(torch.arange(6, dtype=torch.uint8).reshape(3, 2, 1), peak=4.0)

    assert len(values) == 3
    assert values.read([2, 0]).tolist() == [[[1.0], [1.25]], [[0.0], [0.25]]]
    assert values.read(range(1)).dtype == torch.float32


@pytest.mark.parametrize("count", [3, 1023, 1024, 1025, 2500])
def test_channel_statistics_equal_those_of_numpy_whatever_the_blocks(count: int) -> None:
    raw = np.random.default_rng(1).random((count + 5, 3, 2)).astype(np.float32)
    raw[..., 1] = 0.9 + 0.01 * raw[..., 1]

    mean, std = channel_statistics(
        ArrayValues(torch.from_numpy(raw)), Split("train", 2, count + 2), "x"
    )

    chosen = raw[2 : count + 2].astype(np.float64).reshape(-1, 2)
    assert mean == pytest.approx(chosen.mean(0), rel=1e-12)
    assert std == pytest.approx(chosen.std(0), rel=1e-9)


class Constant:
    """Ten million points of one value that take no memory."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __len__(self) -> int:
        return 10_000

    def read(self, positions: Sequence[int]) -> Tensor:
        return torch.full((1, 1, 1), self.value).expand(len(positions), 1000, 1)


@pytest.mark.parametrize("value", [0.0, 0.7, 0.9, 1.0])
def test_a_constant_channel_is_found_however_many_points_there_are(value: float) -> None:
    # E[x^2] - E[x]^2 gives 0.9 a spread of 1.5e-8 here.
    with pytest.raises(SignalError) as caught:
        channel_statistics(Constant(value), Split("train", 0, 10_000), "x")
    assert str(caught.value) == (
        "x: channel 0 is constant over split 'train'; there is nothing to fit"
    )


def test_targets_have_mean_zero_and_spread_one_over_the_training_split() -> None:
    signals = some_signals()

    targets = signals.targets(range(7))

    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.mean((0, 1)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.std((0, 1), correction=0), torch.ones(2), rtol=1e-5, atol=0)


def test_targets_equal_the_hand_computation() -> None:
    signals = dataclasses.replace(some_signals(), mean=(0.5, 0.25), std=(0.5, 2.0))

    raw = signals.values.read([3])
    expected = (raw - torch.tensor([0.5, 0.25])) / torch.tensor([0.5, 2.0])
    assert torch.equal(signals.targets([3]), expected)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), positions=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_denormalising_inverts_the_targets(seed: int, positions: list[int]) -> None:
    signals = some_signals(seed=seed)

    restored = signals.denormalise(signals.targets(positions))

    # float32 near 1: a few units of 6e-8.
    torch.testing.assert_close(restored, signals.values.read(positions), rtol=0, atol=5e-7)


def test_denormalising_keeps_dtype_and_leading_axes() -> None:
    signals = some_signals()
    outputs = torch.zeros(5, 4, 2, dtype=torch.float64)

    values = signals.denormalise(outputs)

    assert values.dtype == torch.float64
    assert values[4, 3].tolist() == pytest.approx(signals.mean)


def test_targets_name_the_signals_that_are_not_finite() -> None:
    raw = torch.rand(4, 6, 1, generator=torch.Generator().manual_seed(0))
    signals = dataclasses.replace(
        some_signals(4), values=ArrayValues(raw), grid_shape=(2, 3), mean=(0.5,), std=(1.0,)
    )
    raw[2, 5] = float("nan")
    signals.targets([0, 1, 3])

    with pytest.raises(SignalError, match=r"^array: 1 signal\(s\) hold NaN .* \(positions 2\)"):
        signals.targets([3, 2])


def test_at_most_five_positions_are_listed() -> None:
    values = torch.full((7, 2, 1), float("inf"))
    values[1] = 0.0

    with pytest.raises(SignalError) as caught:
        check_finite(values, range(10, 17), "x")
    assert str(caught.value) == (
        "x: 6 signal(s) hold NaN or infinite values (positions 10, 12, 13, 14, 15, …); "
        "remove or repair them"
    )


@pytest.mark.parametrize(
    ("shape", "text"), [((9, 1), "9x1"), ((4, 3, 2), "4x3x2"), ((2, 3, 4, 1), "2x3x4x1")]
)
def test_sizes_in_words_and_numbers_are_those_of_the_grid(
    shape: tuple[int, ...], text: str
) -> None:
    signals = signals_from_array(np.random.default_rng(0).random((3, *shape)))

    assert signals.shape_text == text
    assert signals.in_dim == signals.coords.shape[1] == len(shape) - 1
    assert signals.num_points == signals.coords.shape[0] == math.prod(shape[:-1])
    assert signals.num_channels == shape[-1]


def test_unit_values_map_the_value_range_to_0_and_1_and_are_not_clipped() -> None:
    signals = dataclasses.replace(some_signals(), value_range=(-1.0, 3.0))
    raw = torch.tensor([[-1.0, 0.0], [1.0, 3.0], [-2.0, 5.0]])

    assert signals.unit_values(raw).tolist() == [[0.0, 0.25], [0.5, 1.0], [-0.25, 1.5]]


def test_values_in_0_to_1_are_unit_values_bit_for_bit() -> None:
    signals = some_signals()
    raw = signals.raw_values(range(4))

    assert signals.value_range == (0.0, 1.0)
    assert signals.unit_values(raw) is raw


def test_raw_values_are_those_of_the_source_checked() -> None:
    raw = torch.rand(4, 12, 2, generator=torch.Generator().manual_seed(0))
    signals = dataclasses.replace(some_signals(4), values=ArrayValues(raw))

    assert torch.equal(signals.raw_values([2, 0]), raw[[2, 0]])
    raw[3, 1, 1] = float("inf")
    with pytest.raises(SignalError, match=r"^array: 1 signal\(s\) hold NaN .* \(positions 3\)"):
        signals.raw_values([1, 3])


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (-5.0, 2.0)])
def test_normalising_inverts_denormalising_whatever_the_range(
    value_range: tuple[float, float],
) -> None:
    low, high = value_range
    raw = low + (high - low) * np.random.default_rng(0).random((6, 5, 2))
    signals = signals_from_array(raw, value_range=value_range)

    targets = signals.targets(range(6))

    assert torch.equal(targets, signals.normalise(signals.raw_values(range(6))))
    torch.testing.assert_close(
        signals.denormalise(targets), signals.raw_values(range(6)), rtol=0, atol=2e-6
    )


def test_splits_are_laid_one_after_another() -> None:
    train, test = make_splits([("train", 3), ("test", 2)])

    assert (train, test) == (Split("train", 0, 3), Split("test", 3, 5))
    assert (len(train), len(test)) == (3, 2)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_split_is_refused(size: int) -> None:
    with pytest.raises(SignalError, match=r"^split 'test' is empty"):
        make_splits([("train", 3), ("test", size)])


def variant(what: str) -> GridSignals:
    images = np.arange(24, dtype=np.uint8).reshape(3, 2, 4, 1)
    labels = [0, 1, 2]
    splits = [("train", 2), ("test", 1)]
    names, indices = ("a", "b", "c"), torch.tensor([0, 1, 2])
    if what == "pixel":
        images[1, 1, 2, 0] += 1
    elif what == "shape":
        images = images.reshape(3, 4, 2, 1)
    elif what == "labels":
        labels = [0, 2, 1]
    elif what == "no labels":
        return signals_from_array(images, splits=splits, class_names=names, indices=indices)
    elif what == "class names":
        names = ("a", "b", "d")
    elif what == "indices":
        indices = torch.tensor([0, 1, 3])
    elif what == "splits":
        splits = [("train", 1), ("test", 2)]
    elif what == "order":
        images = images[[0, 2, 1]]
    return signals_from_array(images, labels, splits=splits, class_names=names, indices=indices)


def test_the_fingerprint_is_the_same_in_every_process_and_version() -> None:
    # Recorded with every neural dataset: another number would disown those that exist.
    assert variant("").fingerprint == (
        "f1c45ff969e5027be8861eb4546e9873d74f6c95917d7b4c8884f00ebf8d3b59"
    )


@pytest.mark.parametrize(
    "what",
    ["pixel", "shape", "labels", "no labels", "class names", "indices", "splits", "order"],
)
def test_the_fingerprint_changes_with(what: str) -> None:
    assert variant(what).fingerprint != variant("").fingerprint


def test_the_fingerprint_does_not_depend_on_how_values_are_held() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 3, 1), dtype=np.uint8)

    bytes_held = signals_from_array(images)
    floats_held = signals_from_array(images.astype(np.float32) / np.float32(255))

    assert bytes_held.fingerprint == floats_held.fingerprint


def test_the_fingerprint_samples_64_signals_spread_evenly_and_both_ends() -> None:
    images = np.random.default_rng(0).integers(0, 255, (127, 2, 2, 1), dtype=np.uint8)
    before = signals_from_array(images).fingerprint
    changed = []
    for position in range(127):
        other = images.copy()
        other[position] += 1
        if signals_from_array(other).fingerprint != before:
            changed.append(position)

    # 64 of 127 positions: every second one.
    assert changed == list(range(0, 127, 2))


def test_signals_survive_pickling() -> None:
    signals = some_signals()
    assert signals.coords.shape == (12, 2)  # a cached value travels along

    restored = pickle.loads(pickle.dumps(signals))

    assert restored.splits == signals.splits
    assert restored.fingerprint == signals.fingerprint
    assert torch.equal(restored.targets([1, 9]), signals.targets([1, 9]))
    assert torch.equal(restored.indices, signals.indices)
