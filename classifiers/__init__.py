"""Weights to labels: classifiers that read neural fields."""

from classifiers.augmentation import Augmentation
from classifiers.checkpoint import TrainedClassifier, load_classifier, save_classifier
from classifiers.config import ClassifierConfig
from classifiers.examples import Examples, examples_from_dataset, examples_from_signals
from classifiers.models import MLP, ModelConfig
from classifiers.report import ClassifierReport, RegressionReport
from classifiers.space import WeightSpace, space_of
from classifiers.train import train_classifier, train_on_examples, train_regressor

__all__ = [
    "MLP",
    "Augmentation",
    "ClassifierConfig",
    "ClassifierReport",
    "Examples",
    "ModelConfig",
    "RegressionReport",
    "TrainedClassifier",
    "WeightSpace",
    "examples_from_dataset",
    "examples_from_signals",
    "load_classifier",
    "save_classifier",
    "space_of",
    "train_classifier",
    "train_on_examples",
    "train_regressor",
]
