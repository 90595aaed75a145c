"""What training found: results per seed, and what they have to be compared with."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from classifiers.config import ClassifierConfig
from classifiers.evaluation import Calibration, PropertyErrors
from classifiers.models.base import Access


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the training of one seed took; no part of its result.

    Attributes:
        epoch_seconds: Wall time of every epoch, validation included.
        step_seconds: Wall time of all training steps together.
        rows_per_s: Training rows per second of these steps.
        cpu_seconds: Time of all processors together.
    """

    epoch_seconds: tuple[float, ...]
    step_seconds: float
    rows_per_s: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        loss: Mean cross-entropy over the training rows as they were seen; None if not finite.
        train_accuracy: Share of them classified correctly as they were seen, with augmentation,
            noise and dropout; None with mixup.
        validation_accuracy: Share of validation rows classified correctly.
        learning_rate: Of the last step.
    """

    loss: float | None
    train_accuracy: float | None = None
    validation_accuracy: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One trained classifier, taken at its best validation epoch.

    Attributes:
        seed: Of its initial weights, batches, augmentation, dropout and noise.
        best_epoch: From 1.
        train_accuracy: On the training split, without augmentation, noise and dropout.
        validation_accuracy: What it was chosen by.
        test_accuracy: Measured once, after the choice.
        class_accuracy: Share of each class's test rows classified correctly; None without rows.
        confusion: ``(class, the class taken for, test rows)``, where there are any.
        calibration: On the test split.
        epochs: Course of the training.
    """

    seed: int
    best_epoch: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    class_accuracy: tuple[float | None, ...]
    confusion: tuple[tuple[int, int, int], ...]
    calibration: Calibration
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, kw_only=True)
class ClassifierReport:
    """Result of ``train_classifier``.

    Attributes:
        name: What was classified.
        config: The recipe.
        access: Whether the model looks at weights, or only at what the field computes with them.
        class_names: One per class.
        results: One per seed.
        timings: One per seed.
        num_parameters: Of the classifier.
        num_rows: Rows per split.
        num_excluded: Diverged fields left out.
        num_skipped: Fields left out because their weights are not finite.
        chance_accuracy: One over the number of classes.
        majority_accuracy: Test accuracy of always naming the commonest training class.
        dataset_digest: Of what the rows were made from.
        seconds: Wall time of all seeds.
    """

    name: str
    config: ClassifierConfig
    access: Access
    class_names: tuple[str, ...]
    results: tuple[SeedResult, ...]
    timings: tuple[Timing, ...]
    num_parameters: int
    num_rows: dict[str, int]
    num_excluded: int
    num_skipped: int
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
        return spread(result.test_accuracy for result in self.results)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, mean over seeds."""
        return statistics.fmean(result.calibration.error for result in self.results)

    @property
    def confusion(self) -> list[list[int]]:
        """Test rows of all seeds by their class (first index) and what they were taken for."""
        counts = [[0] * len(self.class_names) for _ in self.class_names]
        for result in self.results:
            for label, other, count in result.confusion:
                counts[label][other] += count
        return counts

    @property
    def train_accuracy(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(result.train_accuracy for result in self.results)

    @property
    def validation_accuracy(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(result.validation_accuracy for result in self.results)


@dataclass(frozen=True, kw_only=True)
class RegressionEpoch:
    """One pass over the training split.

    Attributes:
        loss: Mean squared error of the standardised properties; None if not finite.
        validation_r2: Mean over properties; None if not finite.
        learning_rate: Of the last step.
    """

    loss: float | None
    validation_r2: float | None
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class RegressionResult:
    """One trained regressor, taken at its best validation epoch.

    Attributes:
        seed: Of its initial weights, batches, augmentation, dropout and noise.
        best_epoch: From 1.
        train_r2: Mean over properties, on the training split as it is stored.
        validation_r2: What it was chosen by.
        test_r2: Measured once, after the choice.
        properties: Errors on the test split, one entry per property.
        epochs: Course of the training.
    """

    seed: int
    best_epoch: int
    train_r2: float
    validation_r2: float
    test_r2: float
    properties: tuple[PropertyErrors, ...]
    epochs: tuple[RegressionEpoch, ...]


@dataclass(frozen=True, kw_only=True)
class RegressionReport:
    """Result of ``train_regressor``.

    Attributes:
        name: What was read.
        config: The recipe.
        access: Whether the model looks at weights, or only at what the field computes with them.
        results: One per seed.
        timings: One per seed.
        num_parameters: Of the network.
        num_rows: Rows per split.
        num_excluded: Diverged fields left out.
        num_skipped: Fields left out because their weights are not finite.
        baseline: Test errors of always naming the mean of the training split.
        dataset_digest: Of what the rows were made from.
        seconds: Wall time of all seeds.
    """

    name: str
    config: ClassifierConfig
    access: Access
    results: tuple[RegressionResult, ...]
    timings: tuple[Timing, ...]
    num_parameters: int
    num_rows: dict[str, int]
    num_excluded: int
    num_skipped: int
    baseline: tuple[PropertyErrors, ...]
    dataset_digest: str
    seconds: float

    @property
    def test_r2(self) -> float:
        """Mean over properties and seeds."""
        return statistics.fmean(result.test_r2 for result in self.results)

    @property
    def test_r2_sd(self) -> float:
        """Sample standard deviation over seeds; 0 with a single seed."""
        return spread(result.test_r2 for result in self.results)


def spread(values: Iterable[float]) -> float:
    """Sample standard deviation; 0 of a single value."""
    known = list(values)
    return statistics.stdev(known) if len(known) > 1 else 0.0
