from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from nefbench.errors import SignalError
from nefbench.signals import Split, signals_from_array
from nefbench.signals import array as array_module

IMAGES = np.random.default_rng(0).random((6, 2, 3, 2))


def complaint(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SignalError) as caught:
        signals_from_array(*arguments, **options)
    return str(caught.value)


def test_bytes_count_as_0_to_255() -> None:
    raw = np.array([[[[0], [51]]], [[[255], [102]]]], dtype=np.uint8)

    signals = signals_from_array(raw)

    values = signals.values.read([0, 1])
    torch.testing.assert_close(values, torch.tensor([[[0.0], [0.2]], [[1.0], [0.4]]]))
    assert signals.mean == pytest.approx((0.4,))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(dtype: type[Any]) -> None:
    signals = signals_from_array(IMAGES.astype(dtype))

    expected = torch.from_numpy(IMAGES.astype(dtype).astype(np.float32)).reshape(6, 6, 2)
    assert torch.equal(signals.values.read(range(6)), expected)


def test_lists_and_tensors_are_arrays_too() -> None:
    from_list = signals_from_array(IMAGES.tolist())
    from_tensor = signals_from_array(torch.from_numpy(IMAGES))

    assert from_list.fingerprint == from_tensor.fingerprint


def test_grid_axes_lie_between_signal_and_channel() -> None:
    for shape in [(4, 5, 1), (4, 3, 2, 1), (4, 2, 3, 2, 2)]:
        raw = np.random.default_rng(0).random(shape).astype(np.float32)
        signals = signals_from_array(raw)

        assert signals.grid_shape == shape[1:-1]
        assert signals.coords.shape == (signals.num_points, len(shape) - 2)
        assert np.array_equal(signals.values.read([2])[0].numpy(), raw[2].reshape(-1, shape[-1]))


def test_statistics_are_those_of_the_training_split() -> None:
    signals = signals_from_array(IMAGES, splits=[("train", 4), ("test", 2)])

    train = IMAGES[:4].reshape(-1, 2)
    assert signals.mean == pytest.approx(train.mean(0), rel=1e-6)
    assert signals.std == pytest.approx(train.std(0), rel=1e-6)


def test_left_out_arguments_have_plain_defaults() -> None:
    signals = signals_from_array(IMAGES)

    assert signals.splits == (Split("train", 0, 6),)
    assert signals.indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert (signals.labels, signals.class_names) == (None, ())
    assert (signals.name, signals.licence) == ("array", "unknown")


def test_splits_follow_the_order_of_the_array() -> None:
    sizes = [("train", 3), ("validation", 1), ("test", 2)]

    assert signals_from_array(IMAGES, splits=sizes).splits == (
        Split("train", 0, 3),
        Split("validation", 3, 4),
        Split("test", 4, 6),
    )


def test_labels_name_their_classes_by_number_or_by_the_names_given() -> None:
    labels = [0, 2, 1, 0, 0, 2]

    numbered = signals_from_array(IMAGES, labels)
    named = signals_from_array(IMAGES, np.array(labels), class_names=["a", "b", "c", "d"])

    assert numbered.labels is not None
    assert (numbered.labels.tolist(), numbered.labels.dtype) == (labels, torch.int64)
    assert numbered.class_names == ("0", "1", "2")
    assert named.class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("labels", [[0.0, 1.0] * 3, [False, True] * 3, torch.tensor([0, 1] * 3)])
def test_whole_numbers_of_any_type_are_labels(labels: Any) -> None:
    signals = signals_from_array(IMAGES, labels)

    assert signals.labels is not None
    assert signals.labels.tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1], "x: expected 6 labels (got shape (2,))"),
        ([[0]] * 6, "x: expected 6 labels (got shape (6, 1))"),
        ([0, 1, 2, 3, 4, -1], "x: labels must lie from 0 to 4 (got -1 to 4)"),
        ([math.nan] * 6, "x: labels must be whole numbers; give names as class_names"),
        ([0.5] * 6, "x: labels must be whole numbers; give names as class_names"),
        (["cat"] * 6, "x: labels must be whole numbers; give names as class_names"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, expected: str) -> None:
    assert complaint(IMAGES, labels, name="x") == expected


def test_a_label_beyond_the_class_names_is_refused() -> None:
    message = complaint(IMAGES, [0, 1, 2, 0, 1, 2], class_names=["a", "b"], name="x")

    assert message == "x: labels must lie from 0 to 1 (got 0 to 2)"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (IMAGES - 0.5, "x: values must lie in [0, 1] (got -0.4"),
        (IMAGES * 3, "x: values must lie in [0, 1] (got "),
        ((IMAGES * 255).astype(np.int64), "x: values must lie in [0, 1] (got "),
        ((IMAGES * 65535).astype(np.uint16), "x: values must lie in [0, 1] (got "),
        (IMAGES.astype(str), "x: expected an array of real numbers (got <U"),
        (IMAGES * 1j, "x: expected an array of real numbers (got complex128)"),
        (np.full((2, 3, 1), None), "x: expected an array of real numbers (got object)"),
        (np.zeros((6, 0, 2, 1)), "x: expected [N, grid…, c] (got shape (6, 0, 2, 1))"),
        (np.zeros((6, 2)), "x: expected [N, grid…, c] (got shape (6, 2))"),
        (np.zeros((0, 2, 2, 1)), "x: expected [N, grid…, c] (got shape (0, 2, 2, 1))"),
        (np.full((6, 2, 2, 1), 0.5), "x: channel 0 is constant over split 'train'"),
    ],
)
def test_values_that_do_not_fit_are_refused(array: np.ndarray, expected: str) -> None:
    assert complaint(array, name="x").startswith(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (-0.3, 0.1), (0.0, 1e4)])
def test_a_value_range_holds_with_its_ends(
    value_range: tuple[float, float], dtype: type[Any]
) -> None:
    # 0.1 and 0.3 are rounded outwards in float32.
    array = np.linspace(*value_range, 24).reshape(2, 12, 1).astype(dtype)

    signals = signals_from_array(array, value_range=value_range)

    assert signals.value_range == value_range
    unit = signals.unit_values(signals.raw_values([0, 1]))
    assert (float(unit.min()), float(unit.max())) == pytest.approx((0, 1), abs=1e-6)
    assert np.array_equal(signals.values.read([1])[0].numpy(), array[1].astype(np.float32))


def test_a_value_outside_its_range_is_refused_with_the_range_found_and_the_remedy() -> None:
    waves = np.linspace(-0.5, 1.25, 24).reshape(2, 12, 1)

    assert complaint(waves, name="x") == (
        "x: values must lie in [0, 1] (got -0.5 to 1.25); give value_range or rescale them"
    )
    assert complaint(waves, value_range=(-1, 1), name="x") == (
        "x: values must lie in [-1, 1] (got -0.5 to 1.25); give value_range or rescale them"
    )


def test_the_range_found_is_that_of_all_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_module, "_BLOCK_NUMBERS", 30)  # two signals, then two, then one
    for position in range(5):
        array = np.full((5, 4, 3), 0.5)
        array[position, 0, 0], array[position, 3, 2] = -7, 8

        assert "(got -7 to 8)" in complaint(array)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint16, np.uint32])
def test_other_whole_numbers_are_values_as_they_are(dtype: type[Any]) -> None:
    array = np.arange(100).reshape(4, 25, 1).astype(dtype)

    signals = signals_from_array(array, value_range=(0, 127))

    assert signals.values.read([3, 1])[:, 0, 0].tolist() == [75.0, 25.0]
    assert signals.mean == pytest.approx((49.5,))


def test_bytes_have_a_range_of_their_own() -> None:
    raw = np.arange(24, dtype=np.uint8).reshape(2, 12, 1)

    assert complaint(raw, value_range=(0, 255), name="x") == (
        "x: bytes count as 0 to 255 and become [0, 1]; leave value_range out, "
        "or convert them to another type"
    )


@pytest.mark.parametrize("bad", [(1, 0), (1, 1), (0, math.inf), (math.nan, 1)])
def test_a_value_range_that_is_none_is_refused(bad: tuple[float, float]) -> None:
    assert complaint(IMAGES, value_range=bad, name="x") == (
        f"x: expected a finite value_range, the lower number first (got {bad})"
    )


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    locked = IMAGES.copy()
    locked.flags.writeable = False
    expected = signals_from_array(IMAGES).fingerprint

    for array in (
        locked,
        IMAGES[::-1][::-1],
        np.asfortranarray(IMAGES),
        IMAGES.astype(">f8"),
        IMAGES.astype(np.longdouble),
        torch.from_numpy(IMAGES).requires_grad_(),
    ):
        assert signals_from_array(array).fingerprint == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_with_their_positions(bad: float) -> None:
    images = IMAGES.copy()
    images[1, 0, 2, 1] = images[4, 1, 1, 0] = bad

    assert complaint(images, name="x") == (
        "x: 2 signal(s) hold NaN or infinite values (positions 1, 4); remove or repair them"
    )


def test_a_channel_constant_over_the_training_split_is_refused() -> None:
    images = IMAGES.copy()
    images[:3, ..., 1] = 0.3

    message = complaint(images, splits=[("train", 3), ("test", 3)], name="x")

    assert message == "x: channel 1 is constant over split 'train'; there is nothing to fit"


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ([("train", 3), ("test", 2)], "x: splits hold 5 signals, the array 6"),
        ([("train", 3), ("test", 4)], "x: splits hold 7 signals, the array 6"),
        ([("train", 6), ("test", 0)], "split 'test' is empty; give it at least one signal"),
        ([("train", 3), ("dev", 3)], "x: split 'dev' is not one of train, validation, test"),
        ([("test", 3), ("train", 3)], "x: the first split is 'train' (got 'test')"),
        ([("train", 3), ("train", 3)], "x: a split is named twice (train, train)"),
    ],
)
def test_splits_that_do_not_fit_are_refused(splits: list[tuple[str, int]], expected: str) -> None:
    assert complaint(IMAGES, splits=splits, name="x") == expected


def test_indices_are_kept_and_must_be_one_per_signal() -> None:
    indices = torch.tensor([9, 3, 5, 0, 1, 2])

    assert torch.equal(signals_from_array(IMAGES, indices=indices).indices, indices)
    assert complaint(IMAGES, indices=indices[:4], name="x") == (
        "x: expected 6 indices (got shape (4,))"
    )


# Properties


def test_properties_are_float64_and_part_of_the_fingerprint() -> None:
    mass = [0.1 + 0.2, 1, 2, 3, 4, 5]

    signals = signals_from_array(IMAGES, properties={"mass": mass, "count": np.arange(6)})

    assert list(signals.properties) == ["mass", "count"]
    assert {numbers.dtype for numbers in signals.properties.values()} == {torch.float64}
    assert signals.properties["mass"].tolist() == mass
    others = [
        signals_from_array(IMAGES),
        signals_from_array(IMAGES, properties={"mass": mass}),
        signals_from_array(IMAGES, properties={"weight": mass, "count": np.arange(6)}),
        signals_from_array(IMAGES, properties={"mass": mass[::-1], "count": np.arange(6)}),
    ]
    assert len({signals.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert signals_from_array(IMAGES).properties == {}


@pytest.mark.parametrize(
    ("name", "numbers", "reason"),
    [
        ("mass", np.arange(5), "expected 6 numbers of property 'mass' (got shape (5,))"),
        ("mass", np.ones((6, 1)), "expected 6 numbers of property 'mass' (got shape (6, 1))"),
        ("mass", ["a"] * 6, "property 'mass' must be real numbers (got <U1)"),
        ("mass", np.ones(6, complex), "property 'mass' must be real numbers (got complex128)"),
        ("a b", np.ones(6), "expected a property name of letters, digits and '_' (got 'a b')"),
        ("", np.ones(6), "expected a property name of letters, digits and '_' (got '')"),
        (
            "mass",
            [0, math.nan, 2, math.inf, 4, 5],
            "property 'mass' of 2 signal(s) is NaN or infinite (positions 1, 3); "
            "remove or repair them",
        ),
    ],
)
def test_properties_that_are_not_a_finite_number_per_signal_are_refused(
    name: str, numbers: Any, reason: str
) -> None:
    assert complaint(IMAGES, properties={name: numbers}) == f"array: {reason}"
