from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from classifiers.models.settings import (
    check_at_least,
    check_positive,
    check_shares,
    check_siren,
)
from classifiers.space import space_of
from nefbench.errors import TrainingError
from nefbench.fields import RFFNet, Siren


@dataclass(frozen=True)
class Settings:
    width: int | None = 1
    widths: tuple[int, ...] = (1, 2)
    share: float = 0.0
    spread: float = 1.0


def test_settings_within_their_bounds_pass() -> None:
    for settings in (Settings(), Settings(width=None), Settings(widths=()), Settings(share=0.99)):
        check_at_least(1, settings, "width", "widths")
        check_shares(settings, "share")
        check_positive(settings, "spread")


def test_a_setting_below_its_bound_is_named_with_its_value() -> None:
    with pytest.raises(ValueError, match=r"expected width >= 1 \(got 0\)"):
        check_at_least(1, Settings(width=0), "width", "widths")
    with pytest.raises(ValueError, match=r"expected widths >= 1 \(got \(2, 0\)\)"):
        check_at_least(1, Settings(widths=(2, 0)), "width", "widths")


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ValueError, match=r"expected 0 <= share < 1 \(got "):
        check_shares(Settings(share=share), "share")


@pytest.mark.parametrize("spread", [0.0, math.inf, math.nan])
def test_a_positive_number_is_finite(spread: float) -> None:
    with pytest.raises(ValueError, match=r"expected spread > 0 and finite \(got "):
        check_positive(Settings(spread=spread), "spread")


def test_only_sirens_are_sirens() -> None:
    assert check_siren("m", space_of(Siren(hidden_dim=4), 2, 1)) == Siren(hidden_dim=4)
    with pytest.raises(TrainingError, match=r"model 'm' reads fields of kind siren \(got "):
        check_siren("m", space_of(RFFNet(hidden_dim=4), 2, 1))
