"""What training found: accuracies per seed, and what they have to be compared with."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from classifiers.config import ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        loss: Mean cross-entropy over the training rows as they were seen; None if not finite.
        validation_accuracy: Share of validation rows classified correctly.
    """

    loss: float | None
    validation_accuracy: float


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One trained classifier, taken at its best validation epoch.

    Attributes:
        seed: Of its initial weights, batches, dropout and noise.
        best_epoch: From 1.
        train_accuracy: On the training split, without noise and dropout.
        validation_accuracy: What it was chosen by.
        test_accuracy: Measured once, after the choice.
        epochs: Course of the training.
    """

    seed: int
    best_epoch: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, kw_only=True)
class ClassifierReport:
    """Result of ``train_classifier``.

    Attributes:
        name: What was classified.
        config: The recipe.
        results: One per seed.
        num_parameters: Of the classifier.
        num_rows: Rows per split.
        num_excluded: Diverged fields left out.
        chance_accuracy: One over the number of classes.
        majority_accuracy: Test accuracy of always naming the commonest training class.
        dataset_digest: Of what the rows were made from.
        seconds: Wall time of all seeds.
    """

    name: str
    config: ClassifierConfig
    results: tuple[SeedResult, ...]
    num_parameters: int
    num_rows: dict[str, int]
    num_excluded: int
    chance_accuracy: float
    majority_accuracy: float
    dataset_digest: str
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(result.test_accuracy for result in self.results)

    @property
    def test_accuracy_sd(self) -> float:
        """Sample standard deviation over seeds; 0 with a single seed."""
        if len(self.results) < 2:
            return 0.0
        return statistics.stdev(result.test_accuracy for result in self.results)

    @property
    def train_accuracy(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(result.train_accuracy for result in self.results)

    @property
    def validation_accuracy(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(result.validation_accuracy for result in self.results)
