"""Studies repeat the whole sentence: presets, search spaces, grids and searches."""

from studies.design import Grid, Search, StudyConfig
from studies.space import (
    Choice,
    ClassifierSpace,
    FitSpace,
    Integer,
    Real,
    suggest_classifier_config,
    suggest_fit_config,
)

__all__ = [
    "Choice",
    "ClassifierSpace",
    "FitSpace",
    "Grid",
    "Integer",
    "Real",
    "Search",
    "StudyConfig",
    "suggest_classifier_config",
    "suggest_fit_config",
]
