"""Rows with labels, split and checked: the input of every classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.signals import SPLIT_NAMES, GridSignals
from nefbench.signals.shapes import BOX_SIDE
from nefbench.weights import NeuralDataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledRows:
    """Rows ``[N, P]`` with their classes ``[N]``."""

    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Number of rows ``N``."""
        return len(self.rows)


@dataclass(frozen=True)
class Examples:
    """What a classifier is trained, selected and tested on.

    Attributes:
        name: For reports.
        space: What a row means.
        class_names: One per class.
        splits: ``train``, ``validation`` and ``test``.
        num_excluded: Fields left out because their fit diverged.
        digest: Of what the rows were made from.
    """

    name: str
    space: WeightSpace
    class_names: tuple[str, ...]
    splits: Mapping[str, LabelledRows]
    num_excluded: int
    digest: str


def examples_from_dataset(dataset: NeuralDataset) -> Examples:
    """Read a neural dataset for classification; diverged fields are left out and counted.

    Raises:
        TrainingError: If labels or splits are missing, weights are not finite, or a class is too
            small.
        DatasetFormatError: If the dataset is unfinished or damaged.
    """
    dataset.require_complete()
    name = f"{dataset.folder} ({dataset.name})"
    if not dataset.class_names:
        raise TrainingError(f"{name} has no labels; a classifier needs signals with classes")
    _require_splits(name, dataset.split_names)
    splits = {}
    num_excluded = 0
    for split in SPLIT_NAMES:
        rows = dataset.split(split)
        _require_finite(f"{name}, split {split!r}", rows.weights, rows.is_ok)
        good = rows.select(rows.is_ok)
        num_excluded += len(rows) - len(good)
        assert good.labels is not None, "a dataset with class names has labels"
        splits[split] = LabelledRows(good.weights, good.labels)
    if num_excluded:
        logger.warning("%s: %d diverged field(s) left out", name, num_excluded)
    entry = dataset.entry
    half_side = BOX_SIDE / 2 if dataset.is_of_shapes else 1.0
    space = space_of(entry.field, entry.in_dim, entry.out_dim, half_side=half_side)
    examples = Examples(
        name, space, dataset.class_names, splits, num_excluded, dataset.entry.digest
    )
    _check(examples)
    return examples


def examples_from_signals(signals: GridSignals) -> Examples:
    """Take the raw values of signals as rows: the ceiling that weights are compared with.

    Raises:
        TrainingError: As ``examples_from_dataset``.
    """
    if signals.labels is None:
        raise TrainingError(f"{signals.name} has no labels; a classifier needs classes")
    _require_splits(signals.name, [split.name for split in signals.splits])
    splits = {}
    for split in signals.splits:
        positions = range(split.start, split.stop)
        values = signals.values.read(positions).flatten(1)
        _require_finite(f"{signals.name}, split {split.name!r}", values)
        splits[split.name] = LabelledRows(values, signals.labels[split.start : split.stop])
    space = space_of_values((signals.num_points, signals.num_channels))
    examples = Examples(
        f"{signals.name} (raw values)", space, signals.class_names, splits, 0, signals.fingerprint
    )
    _check(examples)
    return examples


def _require_splits(name: str, present: tuple[str, ...] | list[str]) -> None:
    missing = [split for split in SPLIT_NAMES if split not in present]
    if missing:
        raise TrainingError(
            f"{name} has no {' and no '.join(missing)} split; a classifier is fitted on train, "
            f"chosen on validation and measured once on test"
        )


def _require_finite(where: str, rows: Tensor, counted: Tensor | None = None) -> None:
    """Raise with positions in the split; rows outside the mask ``counted`` ``[N]`` are free."""
    is_bad = ~rows.isfinite().all(1)
    bad = (is_bad if counted is None else is_bad & counted).nonzero().flatten().tolist()
    if bad:
        raise TrainingError(
            f"{where}: {len(bad)} row(s) hold NaN or infinite weights "
            f"(first: {', '.join(map(str, bad[:5]))}); fit them again or mark them diverged"
        )


def _check(examples: Examples) -> None:
    for split, part in examples.splits.items():
        where = f"{examples.name}, split {split!r}"
        if not len(part):
            raise TrainingError(f"{where} is empty")
        unlabelled = int((part.labels < 0).sum())
        if unlabelled:
            raise TrainingError(f"{where}: {unlabelled} of {len(part)} rows have no label")
    _check_classes(examples)


def _check_classes(examples: Examples) -> None:
    counts = {
        split: torch.bincount(part.labels, minlength=len(examples.class_names))
        for split, part in examples.splits.items()
    }
    occurs = sum(counts.values(), torch.zeros_like(counts["train"])) > 0
    if int(occurs.sum()) < 2:
        raise TrainingError(f"{examples.name} has fewer than two classes; nothing to tell apart")
    for label, name in enumerate(examples.class_names):
        if not occurs[label]:
            continue
        in_train = int(counts["train"][label])
        if in_train < 2:
            raise TrainingError(
                f"{examples.name}: class {name!r} has {in_train} member(s) in the training split, "
                f"at least 2 are needed; leave the class out or add signals"
            )
        for split in ("validation", "test"):
            if not counts[split][label]:
                logger.warning("%s: split %r has no %r", examples.name, split, name)
