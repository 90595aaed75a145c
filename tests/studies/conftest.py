"""A study that takes seconds: digits, tiny fields, a short training."""

from __future__ import annotations

import pytest

from classifiers import MLP, ClassifierConfig
from fitting import FitConfig
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig
from studies.design import Grid, StudyConfig
from studies.space import Choice, ClassifierSpace, FitSpace


@pytest.fixture
def tiny_study() -> StudyConfig:
    """A grid of four trials: two starts, two numbers of steps."""
    return StudyConfig(
        name="tiny",
        sources={"digits": DigitsConfig(max_signals=150, validation_size=30, test_size=30)},
        fields={
            "siren": FitSpace(
                fit=FitConfig(field=Siren(hidden_dim=4), engine="vmapped"),
                space={
                    "init.kind": Choice(values=("shared", "random")),
                    "num_steps": Choice(values=(2, 6)),
                },
            )
        },
        classifiers={
            "mlp": ClassifierSpace(
                classifier=ClassifierConfig(
                    model=MLP(hidden_dims=(16,)), num_epochs=2, seeds=(0, 1)
                )
            )
        },
        design=Grid(),
    )
