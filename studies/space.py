"""Search spaces: which keys of a recipe are varied, and over what.

A space belongs to a recipe: its keys are the dotted keys of ``nefbench fit --set`` (or ``train``),
and what no key names stays as the recipe has it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from classifiers import ClassifierConfig
from fitting import FitConfig
from nefbench.config import config_from_mapping, config_to_mapping, with_values
from nefbench.errors import ConfigError

if TYPE_CHECKING:  # fits and trainings are described where Optuna is not installed
    from optuna import Trial

Value = bool | int | float | str
"""What a key can be set to."""
Condition = dict[str, Value]
"""Values of other keys of the space under which a key exists."""
ConfigT = TypeVar("ConfigT", FitConfig, ClassifierConfig)


def _always() -> Condition:
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One of several values."""

    kind: Literal["choice"] = "choice"
    values: tuple[Value, ...]
    when: Condition = dataclasses.field(default_factory=_always)
    """Only together with these values of keys listed before."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("expected at least one value")
        if len(set(map(repr, self.values))) < len(self.values):
            raise ValueError(f"expected different values (got {self.values})")

    @property
    def examples(self) -> tuple[Value, ...]:
        """Values that all have to be valid."""
        return self.values

    def suggest(self, trial: Trial, name: str) -> Value:
        """Ask the trial for a value."""
        return cast(Value, trial.suggest_categorical(name, self.values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Integer:
    """A whole number from ``low`` to ``high``, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    """Whether to search its logarithm."""
    multiple_of: int = 1
    """What is suggested is rounded down to a multiple of this."""
    when: Condition = dataclasses.field(default_factory=_always)
    """Only together with these values of keys listed before."""

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)
        if not 1 <= self.multiple_of <= max(1, self.low):
            raise ValueError(
                f"expected multiple_of from 1 to low = {self.low} (got {self.multiple_of})"
            )

    @property
    def examples(self) -> tuple[Value, ...]:
        """Values that all have to be valid."""
        return (self._rounded(self.low), self._rounded(self.high))

    def suggest(self, trial: Trial, name: str) -> Value:
        """Ask the trial for a value."""
        return self._rounded(trial.suggest_int(name, self.low, self.high, log=self.log))

    def _rounded(self, value: int) -> int:
        return value - value % self.multiple_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Real:
    """A number from ``low`` to ``high``, both included."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    """Whether to search its logarithm."""
    when: Condition = dataclasses.field(default_factory=_always)
    """Only together with these values of keys listed before."""

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    @property
    def examples(self) -> tuple[Value, ...]:
        """Values that all have to be valid."""
        return (self.low, self.high)

    def suggest(self, trial: Trial, name: str) -> Value:
        """Ask the trial for a value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)


Dimension = Choice | Integer | Real
"""Everything that a key can be varied over."""
Space = dict[str, Dimension]
"""Dotted keys of a recipe and what they are varied over."""


def _no_keys() -> Space:
    return {}


@dataclass(frozen=True, kw_only=True)
class FitSpace:
    """A fit, and the keys of it that a study varies."""

    fit: FitConfig = FitConfig()
    space: Space = dataclasses.field(default_factory=_no_keys)

    def __post_init__(self) -> None:
        _check_space(self.space, self.config)

    def config(self, values: Mapping[str, Value]) -> FitConfig:
        """Return the fit with values set.

        Raises:
            ConfigError: If a key or value is not one of this fit.
        """
        return _with_values(self.fit, values)


@dataclass(frozen=True, kw_only=True)
class ClassifierSpace:
    """A classifier's training, and the keys of it that a study varies."""

    classifier: ClassifierConfig = ClassifierConfig()
    space: Space = dataclasses.field(default_factory=_no_keys)

    def __post_init__(self) -> None:
        _check_space(self.space, self.config)

    def config(self, values: Mapping[str, Value]) -> ClassifierConfig:
        """Return the training with values set.

        Raises:
            ConfigError: If a key or value is not one of this training.
        """
        return _with_values(self.classifier, values)


def suggest_fit_config(trial: Trial, space: FitSpace, prefix: str = "") -> FitConfig:
    """Let an Optuna trial choose a fit.

    Args:
        trial: The trial.
        space: The fit and its varied keys.
        prefix: Put before every key in the names of the trial's parameters.
    """
    return space.config(suggest_values(trial, space.space, prefix))


def suggest_classifier_config(
    trial: Trial, space: ClassifierSpace, prefix: str = ""
) -> ClassifierConfig:
    """Let an Optuna trial choose a classifier; see ``suggest_fit_config``."""
    return space.config(suggest_values(trial, space.space, prefix))


def suggest_values(trial: Trial, space: Space, prefix: str = "") -> dict[str, Value]:
    """Ask a trial for a value of every key whose condition holds."""
    values: dict[str, Value] = {}
    for key, dimension in space.items():
        if _holds(dimension.when, values):
            values[key] = dimension.suggest(trial, f"{prefix}{key}")
    return values


def grid_values(space: Space) -> Iterator[dict[str, Value]]:
    """Yield every combination of the choices of a space, the first key varying slowest.

    Raises:
        ConfigError: If a key is varied over a range.
    """
    for key, dimension in space.items():
        if not isinstance(dimension, Choice):
            raise ConfigError(
                f"space {key!r}: a grid needs choices, not a range; set kind = 'choice'"
            )
    yield from _combinations(list(space.items()), {})


def _combinations(
    rest: list[tuple[str, Dimension]], values: dict[str, Value]
) -> Iterator[dict[str, Value]]:
    if not rest:
        yield values
        return
    (key, dimension), *others = rest
    if not _holds(dimension.when, values):
        yield from _combinations(others, values)
        return
    for value in dimension.examples:
        yield from _combinations(others, {**values, key: value})


def _holds(condition: Condition, values: Mapping[str, Value]) -> bool:
    return all(key in values and values[key] == value for key, value in condition.items())


def _with_values(config: ConfigT, values: Mapping[str, Value]) -> ConfigT:
    # A kind first: it drops the other keys of its table.
    ordered = sorted(values, key=lambda key: not key.endswith(".kind"))
    mapping = with_values(config_to_mapping(config), {key: values[key] for key in ordered})
    return config_from_mapping(type(config), mapping)


def _check_space(space: Space, config: Callable[[Mapping[str, Value]], object]) -> None:
    """Try the ends of every range, and every choice, each for itself."""
    config({})
    known: list[str] = []
    for key, dimension in space.items():
        for other in dimension.when:
            if other not in known:
                raise ConfigError(
                    f"space {key!r}: its condition names {other!r}, which is not a key of the "
                    f"space listed before it"
                )
        for value in dimension.examples:
            try:
                config({**dimension.when, key: value})
            except ConfigError as error:
                raise ConfigError(f"space {key!r} = {value!r}: {error}") from error
        known.append(key)


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"expected low <= high (got {low} and {high})")
    if log and low <= 0:
        raise ValueError(f"expected low > 0 for a logarithm (got {low})")
