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

    ``phase-1-FIELD-SOURCE-BUDGET`` searches one field;
    ``phase-2-SOURCE-BUDGET`` is the grid of all of them.
    """
    first, second = _study_table("phase-1"), _study_table("phase-2")
    sources, budgets = list(_study_table("sources")), list(second["budgets"])
    ends = [f"{source}-{budget}" for source in sources for budget in budgets]
    searches = [f"phase-1-{field}-{end}" for field in first["fields"] for end in ends]
    return [*searches, *(f"phase-2-{end}" for end in ends)]


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
        names = study_preset_names()
        if source not in names:
            raise ConfigError(
                f"no study preset {source!r}{nearest(source, names)}; presets: "
                f"phase-1-FIELD-SOURCE-BUDGET and phase-2-SOURCE-BUDGET, fields "
                f"{', '.join(_study_table('phase-1')['fields'])}, sources "
                f"{', '.join(_study_table('sources'))}, budgets "
                f"{', '.join(_study_table('phase-2')['budgets'])}; or the path of a .toml "
                f"or .json file"
            )
        mapping = _study_preset(source)
    return config_from_mapping(StudyConfig, apply_overrides(mapping, overrides))


def _study_preset(name: str) -> dict[str, Any]:
    """Put a preset together: a phase, what its budget changes, and a source of signals."""
    parts = name.split("-")
    phase, source, budget = "-".join(parts[:2]), parts[-2], parts[-1]
    table = _study_table(phase)
    changes = table.pop("budgets")[budget]
    each = changes.pop("each_field", {})
    table = _merged(table, changes)
    chosen = parts[2:-2] or list(table["fields"])
    table["fields"] = {field: _merged(table["fields"][field], each) for field in chosen}
    signals = _study_table("sources")[source]
    signals = _merged(signals, signals.pop("budgets").get(budget, {}))
    return {"name": name, "sources": {source: signals}, **table}


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
