"""Presets and files that describe a whole run: a fit with its signals, a classifier, a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from classifiers import ClassifierConfig
from fitting import FitConfig
from nefbench.config import (
    apply_overrides,
    config_from_mapping,
    load_json,
    load_toml,
    nearest,
)
from nefbench.errors import ConfigError
from nefbench.signals import SignalsConfig
from studies.design import StudyConfig

_BUDGETS = ("smoke", "laptop", "paper")


@dataclass(frozen=True, kw_only=True)
class FitRecipe(FitConfig):
    """A fit with its signals: the content of a TOML file for ``nefbench fit``."""

    signals: SignalsConfig
    """What to fit."""

    @property
    def fit_config(self) -> FitConfig:
        """The recipe without the signals."""
        names = [field.name for field in dataclasses.fields(FitConfig)]
        return FitConfig(**{name: getattr(self, name) for name in names})


def preset_names(verb: str) -> list[str]:
    """Names of the shipped presets of a verb, ``fit`` or ``train``."""
    folder = resources.files("studies").joinpath("presets", verb)
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir())


def load_fit_recipe(source: str, overrides: Sequence[str] = ()) -> FitRecipe:
    """Read a preset or TOML file for ``nefbench fit`` and apply ``key=value`` overrides.

    Raises:
        ConfigError: If it does not exist or is not valid.
    """
    return config_from_mapping(FitRecipe, apply_overrides(_load("fit", source), overrides))


def load_classifier_config(source: str, overrides: Sequence[str] = ()) -> ClassifierConfig:
    """Read a preset or TOML file for ``nefbench train`` and apply ``key=value`` overrides.

    Raises:
        ConfigError: If it does not exist or is not valid.
    """
    return config_from_mapping(ClassifierConfig, apply_overrides(_load("train", source), overrides))


def study_preset_names() -> list[str]:
    """Names of the shipped presets of ``nefbench study``.

    ``phase-1-FIELD-SOURCE-BUDGET`` searches one field, ``phase-2-SOURCE-BUDGET`` is the grid of all
    of them, ``overfitting-SOURCE-BUDGET`` compares sizes of classifiers.
    """
    return list(_study_presets())


def load_study_config(source: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a preset or file for ``nefbench study`` and apply ``key=value`` overrides.

    Raises:
        ConfigError: If it does not exist or is not valid.
    """
    if source.endswith(".toml"):
        mapping = load_toml(Path(source))
    elif source.endswith(".json"):
        mapping = load_json(Path(source))
    else:
        presets = _study_presets()
        if source not in presets:
            fields, sources = _study_table("phase-1")["fields"], _study_table("sources")
            raise ConfigError(
                f"no study preset {source!r}{nearest(source, presets)}; presets: "
                f"phase-1-FIELD-SOURCE-BUDGET, phase-2-SOURCE-BUDGET, overfitting-SOURCE-BUDGET; "
                f"fields {', '.join(fields)}; sources {', '.join(sources)}; budgets "
                f"{', '.join(_BUDGETS)}; or the path of a .toml or .json file"
            )
        mapping = {"name": source, **presets[source].mapping()}
    return config_from_mapping(StudyConfig, apply_overrides(mapping, overrides))


@dataclass(frozen=True)
class _StudyPreset:
    """A study put together from parts.

    Attributes:
        table: File of what is done.
        field: The only one of its fields that is fitted; None for all.
        source: What is fitted.
        budget: Changes of table and source.
    """

    table: str
    field: str | None
    source: str
    budget: str

    def mapping(self) -> dict[str, Any]:
        table = _study_table(self.table)
        changes = table.pop("budgets")[self.budget]
        each = {
            "fields": changes.pop("each_field", {}),
            "classifiers": changes.pop("each_classifier", {}),
        }
        table = _merged(table, changes)
        if self.field is not None:
            table["fields"] = {self.field: table["fields"][self.field]}
        for what, change in each.items():
            table[what] = {name: _merged(item, change) for name, item in table[what].items()}
        signals = _study_table("sources")[self.source]
        signals = _merged(signals, signals.pop("budgets").get(self.budget, {}))
        return {"sources": {self.source: signals}, **table}


def _study_presets() -> dict[str, _StudyPreset]:
    presets = {}
    fields = list(_study_table("phase-1")["fields"])
    kinds: list[tuple[str, str | None]] = [("phase-1", field) for field in fields]
    for table, field in (*kinds, ("phase-2", None), ("overfitting", None)):
        begin = table if field is None else f"{table}-{field}"
        for source in _study_table("sources"):
            for budget in _BUDGETS:
                preset = _StudyPreset(table, field, source, budget)
                presets[f"{begin}-{source}-{budget}"] = preset
    return presets


def _study_table(name: str) -> dict[str, Any]:
    file = resources.files("studies").joinpath("presets", "study", f"{name}.toml")
    with resources.as_file(file) as path:
        return load_toml(path)


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with the leaves of another one on top."""
    result = dict(table)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def _load(verb: str, source: str) -> dict[str, Any]:
    if source.endswith(".toml"):
        return load_toml(Path(source))
    names = preset_names(verb)
    if source not in names:
        raise ConfigError(
            f"no preset {source!r}{nearest(source, names)}; presets: {', '.join(names)}, "
            f"or the path of a .toml file"
        )
    preset = resources.files("studies").joinpath("presets", verb, f"{source}.toml")
    with resources.as_file(preset) as path:
        return load_toml(path)
