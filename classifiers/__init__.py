"""Weights to labels: classifiers that read neural fields."""

from classifiers.checkpoint import TrainedClassifier, load_classifier, save_classifier
from classifiers.config import ClassifierConfig
from classifiers.examples import Examples, examples_from_dataset, examples_from_signals
from classifiers.mlp import MLP
from classifiers.report import ClassifierReport
from classifiers.train import train_classifier, train_on_examples

__all__ = [
    "MLP",
    "ClassifierConfig",
    "ClassifierReport",
    "Examples",
    "TrainedClassifier",
    "examples_from_dataset",
    "examples_from_signals",
    "load_classifier",
    "save_classifier",
    "train_classifier",
    "train_on_examples",
]
