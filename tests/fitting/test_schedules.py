from __future__ import annotations

import math

import pytest

from fitting import Constant, WarmupCosine


def test_a_constant_schedule_has_the_peak_at_every_step() -> None:
    assert Constant().rates(0.3, 4) == [0.3, 0.3, 0.3, 0.3]


def test_warm_up_and_decay_pass_through_the_values_worked_out_by_hand() -> None:
    schedule = WarmupCosine(warmup_steps=2, start_rate=0.2, end_rate=0.4)

    rates = schedule.rates(1.0, 6)

    # Steps 0 and 1 lie on the line from 0.2 to 1, which step 2 reaches. Then half a cosine of
    # length 4: at a quarter 0.4 + 0.6 (1 + cos 45°) / 2, in the middle 0.7.
    quarter = 0.3 * math.sqrt(0.5)
    assert rates == pytest.approx([0.2, 0.6, 1.0, 0.7 + quarter, 0.7, 0.7 - quarter], rel=1e-12)


def test_without_warm_up_the_first_step_uses_the_peak() -> None:
    rates = WarmupCosine(warmup_steps=0, end_rate=0.0).rates(0.5, 4)

    # Half a cosine of length 4, its end one step after the last.
    assert rates[0] == 0.5
    assert rates[2] == pytest.approx(0.25, rel=1e-12)
    assert rates[3] == pytest.approx(0.25 * (1 - math.sqrt(0.5)), rel=1e-12)


def test_the_published_schedule_of_fit_a_nef_is_reproduced() -> None:
    """Warm-up 1e-6 to 1e-3 in 10 steps, end at step 1000; longer fits stay at the end."""
    rates = WarmupCosine(warmup_steps=10, decay_steps=1000).rates(1e-3, 1200)

    assert rates[0] == 1e-6
    assert rates[5] == pytest.approx((1e-6 + 1e-3) / 2, rel=1e-12)
    assert rates[10] == 1e-3
    assert rates[505] == pytest.approx((1e-6 + 1e-3) / 2, rel=1e-12)
    assert rates[1000:] == [1e-6] * 200
    assert rates[999] > 1e-6
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_decay_that_ends_early_stays_at_the_end_rate() -> None:
    rates = WarmupCosine(warmup_steps=1, end_rate=0.125, decay_steps=3).rates(1.0, 7)

    assert rates[1] == 1.0
    assert rates[2] == pytest.approx(0.5625, rel=1e-12)
    assert rates[3:] == [0.125] * 4


def test_a_decay_that_ends_late_is_cut_by_the_number_of_steps() -> None:
    whole = WarmupCosine(warmup_steps=2, decay_steps=100).rates(1.0, 100)

    assert WarmupCosine(warmup_steps=2, decay_steps=100).rates(1.0, 7) == whole[:7]


def test_fewer_steps_than_the_warm_up_stay_on_its_line() -> None:
    rates = WarmupCosine(warmup_steps=10, start_rate=0.0).rates(1.0, 3)

    assert rates == pytest.approx([0.0, 0.1, 0.2], rel=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 11, 12])
def test_there_is_one_rate_per_step(num_steps: int) -> None:
    assert len(WarmupCosine().rates(1.0, num_steps)) == num_steps
    assert len(Constant().rates(1.0, num_steps)) == num_steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_steps": -1}, "expected warmup_steps >= 0"),
        ({"warmup_steps": 10, "decay_steps": 10}, "expected decay_steps > warmup_steps = 10"),
        ({"warmup_steps": 0, "decay_steps": 0}, "expected decay_steps > warmup_steps = 0"),
        ({"start_rate": -1e-6}, "expected start_rate >= 0"),
        ({"start_rate": math.nan}, "expected start_rate >= 0"),
        ({"end_rate": -1.0}, "expected end_rate >= 0"),
        ({"end_rate": math.inf}, "expected end_rate >= 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarmupCosine(**settings)  # type: ignore[arg-type]
