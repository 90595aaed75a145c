"""Models that read weights: one file each, one line each in ``ModelConfig``."""

from classifiers.models.base import Model
from classifiers.models.mlp import MLP

ModelConfig = MLP
"""Every model that can be named in a configuration."""

__all__ = ["MLP", "Model", "ModelConfig"]
