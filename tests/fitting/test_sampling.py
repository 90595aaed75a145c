from __future__ import annotations

import pytest
import torch

from fitting.sampling import GridShare, Windows


def test_a_share_of_the_grid_is_drawn_anew_in_every_step_without_repetition() -> None:
    sampling = GridShare(seed=3, num_points=20, num_sampled=7)

    drawn = [sampling.points(step) for step in range(1, 5)]

    assert all(len(points.unique()) == 7 and int(points.max()) < 20 for points in drawn)
    assert len({tuple(points.tolist()) for points in drawn}) == 4
    assert torch.equal(drawn[1], GridShare(3, 20, 7).points(2))
    assert not torch.equal(drawn[0], GridShare(4, 20, 7).points(1))


def test_windows_follow_each_other_in_every_range_and_wrap() -> None:
    sampling = Windows(((5, 2), (3, 2)))

    steps = [sampling.points(step).tolist() for step in range(1, 5)]

    assert sampling.num_sampled == 4
    assert steps == [[0, 1, 5, 6], [2, 3, 7, 5], [4, 0, 6, 7], [1, 2, 5, 6]]


@pytest.mark.parametrize("step", [1, 2, 1000])
def test_a_window_as_wide_as_its_range_takes_all_of_it(step: int) -> None:
    points = Windows(((4, 4),)).points(step)

    assert sorted(points.tolist()) == [0, 1, 2, 3]


def test_equal_samplings_share_a_hash() -> None:
    assert hash(Windows(((4, 2),))) == hash(Windows(((4, 2),)))
    assert len({GridShare(0, 4, 2), GridShare(0, 4, 2), GridShare(1, 4, 2)}) == 2
