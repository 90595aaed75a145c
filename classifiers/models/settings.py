"""Bounds of the settings of models, checked alike; a setting of several numbers is checked in each.

Settings that are None are not checked.
"""

from __future__ import annotations

import math
from typing import Any

from classifiers.space import WeightSpace
from nefbench.errors import TrainingError
from nefbench.fields import Siren


def check_at_least(low: int, model: object, *names: str) -> None:
    """Raise ValueError if a setting is below ``low``."""
    for name in names:
        value = getattr(model, name)
        if any(number < low for number in _numbers(value)):
            raise ValueError(f"expected {name} >= {low} (got {value})")


def check_shares(model: object, *names: str) -> None:
    """Raise ValueError if a setting is no number from 0 to 1, 1 excluded."""
    for name in names:
        value = getattr(model, name)
        if not all(0 <= number < 1 for number in _numbers(value)):
            raise ValueError(f"expected 0 <= {name} < 1 (got {value})")


def check_positive(model: object, *names: str) -> None:
    """Raise ValueError if a setting is not positive, or not finite."""
    for name in names:
        value = getattr(model, name)
        if not all(0 < number < math.inf for number in _numbers(value)):
            raise ValueError(f"expected {name} > 0 and finite (got {value})")


def check_siren(kind: str, space: WeightSpace) -> Siren:
    """Return the field of a space; raise TrainingError if it is no SIREN."""
    if not isinstance(space.field, Siren):
        raise TrainingError(
            f"model {kind!r} reads fields of kind siren (got {space.name}); "
            f"the model 'scale-gmn' reads every family"
        )
    return space.field


def _numbers(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
