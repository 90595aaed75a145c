from __future__ import annotations

import re

import pytest

from nefbench.errors import SignalError
from nefbench.signals.splits import check_split_sizes, cut_splits


@pytest.mark.parametrize(
    ("validation_size", "test_size", "expected"),
    [
        (0.1, 0.2, [("train", 7), ("validation", 1), ("test", 2)]),
        (0, 0.01, [("train", 9), ("test", 1)]),
        (3, 1.0, [("train", 6), ("validation", 3), ("test", 1)]),
        (0, 0, [("train", 10)]),
    ],
)
def test_splits_follow_one_another(
    validation_size: float, test_size: float, expected: list[tuple[str, int]]
) -> None:
    check_split_sizes(validation_size, test_size, 0)
    splits = cut_splits(10, validation_size, test_size, "x")

    assert [(split.name, len(split)) for split in splits] == expected
    assert [split.start for split in splits] == [0, *(split.stop for split in splits[:-1])]


@pytest.mark.parametrize("sizes", [(0.5, 0.5), (10, 0), (0.95, 0.2)])
def test_something_is_left_to_train_on(sizes: tuple[float, float]) -> None:
    with pytest.raises(SignalError, match=r"^x: 10 signals leave none .* set validation_size and"):
        cut_splits(10, *sizes, "x")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((-0.1, 0.2, 0), "expected validation_size to be a number, or a share below 1 (got -0.1)"),
        ((0.1, 1.5, 0), "expected test_size to be a number, or a share below 1 (got 1.5)"),
        ((0.1, 0.2, 2**63), "expected split_seed from 0 to 2**63 - 1 (got 9223372036854775808)"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: tuple[float, float, int], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        check_split_sizes(*sizes)
