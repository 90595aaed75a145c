"""Presets and files that describe a whole run: signals and how to fit them, or a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from classifiers import ClassifierConfig
from fitting import FitConfig
from nefbench.config import apply_overrides, config_from_mapping, load_toml, nearest
from nefbench.errors import ConfigError
from nefbench.signals import SignalsConfig


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
