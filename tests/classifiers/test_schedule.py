from __future__ import annotations

import pytest

from classifiers import ClassifierConfig
from classifiers.schedule import learning_rate_at


def rates(num_steps: int, **settings: object) -> list[float]:
    config = ClassifierConfig(learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return [learning_rate_at(config, step, num_steps) for step in range(num_steps)]


def test_the_rate_is_constant_unless_a_schedule_is_asked_for() -> None:
    assert rates(3) == [1.0, 1.0, 1.0]


def test_the_warm_up_rises_linearly_to_the_rate() -> None:
    assert rates(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_cosine_falls_from_the_rate_to_almost_zero_after_the_warm_up() -> None:
    # (1 + cos(pi s)) / 2 with s = 0, 1/4, 1/2, 3/4; the step after the last would have 0
    expected = [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]
    assert rates(6, warmup_steps=2, schedule="cosine") == pytest.approx(expected)


def test_a_warm_up_longer_than_the_training_only_rises() -> None:
    assert rates(3, warmup_steps=10, schedule="cosine") == [0.1, 0.2, 0.3]
