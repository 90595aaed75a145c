"""Rows with labels, split and checked: the input of every classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from classifiers.config import CLASS
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.config import nearest
from nefbench.errors import TrainingError
from nefbench.signals import SPLIT_NAMES, GridSignals
from nefbench.signals.shapes import BOX_SIDE
from nefbench.weights import FieldRows, NeuralDataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledRows:
    """Rows ``[N, P]`` with what is to be predicted.

    Attributes:
        rows: Weights, or raw values.
        labels: Classes, int64 ``[N]``; or values of ``T`` properties, float64 ``[N, T]``.
    """

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
        class_names: One per class; empty where properties are predicted.
        splits: ``train``, ``validation`` and ``test``. Of a signal with several fields (refits,
            views) all are in ``train``, the first alone in the others.
        num_excluded: Fields left out because their fit diverged.
        digest: Of what the rows were made from.
        property_names: What the labels are where they are no classes.
        num_skipped: Fields left out because their weights are not finite.
    """

    name: str
    space: WeightSpace
    class_names: tuple[str, ...]
    splits: Mapping[str, LabelledRows]
    num_excluded: int
    digest: str
    property_names: tuple[str, ...] = ()
    num_skipped: int = 0

    @property
    def num_outputs(self) -> int:
        """Numbers that a network has to give per row."""
        return len(self.property_names or self.class_names)


def space_of_dataset(dataset: NeuralDataset) -> WeightSpace:
    """Return what the rows of a neural dataset mean."""
    entry = dataset.entry
    half_side = BOX_SIDE / 2 if dataset.is_of_shapes else 1.0
    return space_of(entry.field, entry.in_dim, entry.out_dim, half_side=half_side)


def examples_from_dataset(
    dataset: NeuralDataset,
    target: str | tuple[str, ...] = CLASS,
    *,
    on_nan: Literal["stop", "skip"] = "stop",
) -> Examples:
    """Read a neural dataset for classification or regression.

    Diverged fields are left out and counted.

    Args:
        dataset: Finished, with the splits train, validation and test.
        target: ``class``, or one or several numeric properties.
        on_nan: What to do with weights that are not finite although the fit ended well.

    Raises:
        TrainingError: If labels, properties or splits are missing, weights are not finite, or a
            class is too small.
        DatasetFormatError: If the dataset is unfinished or damaged.
    """
    dataset.require_complete()
    name = f"{dataset.folder} ({dataset.name})"
    properties: tuple[str, ...] = ()
    if target != CLASS:
        properties = (target,) if isinstance(target, str) else target
        _require_properties(name, properties, dataset.entry.properties)
    elif not dataset.class_names:
        raise TrainingError(f"{name} has no labels; a classifier needs signals with classes")
    _require_splits(name, dataset.split_names)
    splits = {}
    num_excluded = num_skipped = 0
    for split in SPLIT_NAMES:
        rows = dataset.split(split)
        is_finite = rows.weights.isfinite().all(1)
        if on_nan == "stop":
            _require_finite(f"{name}, split {split!r}", is_finite | ~rows.is_ok)
        num_excluded += int((~rows.is_ok).sum())
        num_skipped += int((rows.is_ok & ~is_finite).sum())
        good = rows.select(rows.is_ok & is_finite)
        if split != "train":
            good = good.select(is_first_of_signal(good))
        splits[split] = LabelledRows(good.weights, _labels(good, properties))
    if num_excluded:
        logger.warning("%s: %d diverged field(s) left out", name, num_excluded)
    if num_skipped:
        logger.warning("%s: %d field(s) with NaN or infinite weights left out", name, num_skipped)
    examples = Examples(
        name=name,
        space=space_of_dataset(dataset),
        class_names=() if properties else dataset.class_names,
        splits=splits,
        num_excluded=num_excluded,
        digest=dataset.entry.digest,
        property_names=properties,
        num_skipped=num_skipped,
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
        _require_finite(f"{signals.name}, split {split.name!r}", values.isfinite().all(1))
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


def _require_finite(where: str, is_good: Tensor) -> None:
    """Raise with the positions in the split where the boolean ``[N]`` is false."""
    bad = (~is_good).nonzero().flatten().tolist()
    if bad:
        raise TrainingError(
            f"{where}: {len(bad)} row(s) hold NaN or infinite weights "
            f"(first: {', '.join(map(str, bad[:5]))}); fit them again, or leave them out with "
            f"on_nan = 'skip'"
        )


def _require_properties(name: str, wanted: tuple[str, ...], known: tuple[str, ...]) -> None:
    for wish in wanted:
        if wish not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise TrainingError(
                f"target: {name} has no property {wish!r}{nearest(wish, known)}; {has}"
            )


def _labels(rows: FieldRows, properties: tuple[str, ...]) -> Tensor:
    if properties:
        return torch.stack([rows.properties[name].double() for name in properties], dim=1)
    assert rows.labels is not None, "a dataset with class names has labels"
    return rows.labels


def is_first_of_signal(rows: FieldRows) -> Tensor:
    """Boolean ``[N]``: the first field of every signal, in its first view."""
    view = rows.provenance.get("view", torch.zeros_like(rows.signal_index))
    seen: set[int] = set()
    chosen = []
    for index, number in zip(rows.signal_index.tolist(), view.tolist(), strict=True):
        chosen.append(number == 0 and index not in seen)
        if chosen[-1]:
            seen.add(index)
    return torch.tensor(chosen, dtype=torch.bool)


def _check(examples: Examples) -> None:
    for split, part in examples.splits.items():
        where = f"{examples.name}, split {split!r}"
        if not len(part):
            left_out = examples.num_excluded
            why = f" ({left_out:,} diverged fields were left out)" if left_out else ""
            raise TrainingError(f"{where} is empty{why}")
        if examples.property_names:
            _check_values(where, part.labels, examples.property_names)
            continue
        unlabelled = int((part.labels < 0).sum())
        if unlabelled:
            raise TrainingError(f"{where}: {unlabelled} of {len(part)} rows have no label")
    if not examples.property_names:
        _check_classes(examples)


def _check_values(where: str, values: Tensor, names: tuple[str, ...]) -> None:
    for name, column in zip(names, values.unbind(1), strict=True):
        unknown = int((~column.isfinite()).sum())
        if unknown:
            raise TrainingError(f"{where}: {unknown} of {len(column)} rows have no {name!r}")
        if bool((column == column[0]).all()):
            raise TrainingError(
                f"{where}: {name!r} is {column[0]:g} in every row; there is nothing to predict"
            )


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
