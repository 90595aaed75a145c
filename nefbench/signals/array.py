"""Signals from an array in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.signals.base import (
    SPLIT_NAMES,
    ArrayValues,
    Signals,
    Split,
    channel_statistics,
    check_finite,
    make_splits,
)


def signals_from_array(
    array: npt.ArrayLike | Tensor,
    labels: npt.ArrayLike | Tensor | None = None,
    *,
    splits: Sequence[tuple[str, int]] | None = None,
    class_names: Sequence[str] = (),
    name: str = "array",
    indices: Tensor | None = None,
    source: str = "an array in memory",
    licence: str = "unknown",
) -> Signals:
    """Wrap an array as signals, normalised by the training split.

    Args:
        array: ``[N, n_1, …, n_d, c]``: signal, grid axes (slowest first), channel. uint8 counts as
            0 to 255; all other types must lie in [0, 1].
        labels: Class numbers ``[N]`` from 0, or None.
        splits: ``(name, size)`` in order of the array; all of it is ``train`` if left out.
        class_names: One per class; the numbers themselves if left out.
        name: What a reader calls it.
        indices: Position of every signal in its source; 0 to N - 1 if left out.
        source: Where it came from.
        licence: Licence of the source.

    Raises:
        SignalError: If shapes, values, labels or split sizes do not fit.
    """
    raw = np.asarray(array)
    values = torch.as_tensor(raw)
    if values.ndim < 3 or values.shape[0] == 0:
        raise SignalError(f"{name}: expected [N, grid…, c] (got shape {tuple(values.shape)})")
    peak = 255.0 if values.dtype == torch.uint8 else 1.0
    held = ArrayValues(values.reshape(len(values), -1, values.shape[-1]), peak)
    if values.dtype != torch.uint8:
        check_finite(held.array, range(len(held)), name)
        low, high = float(raw.min()), float(raw.max())
        if low < 0 or high > 1:
            raise SignalError(
                f"{name}: values must lie in [0, 1] (got {low:.6g} to {high:.6g}); rescale them"
            )
    ranges = make_splits(splits or [("train", len(values))])
    _check_splits(ranges, len(values), name)
    names = tuple(class_names)
    classes = None
    if labels is not None:
        classes = _whole_numbers(labels, name)
        names = _checked_classes(classes, names, len(values), name)
    if indices is not None and indices.shape != (len(values),):
        raise SignalError(
            f"{name}: expected {len(values)} indices (got shape {tuple(indices.shape)})"
        )
    mean, std = channel_statistics(held, ranges[0], name)
    return Signals(
        name=name,
        source=source,
        grid_shape=tuple(values.shape[1:-1]),
        values=held,
        indices=torch.arange(len(values)) if indices is None else indices,
        splits=ranges,
        mean=mean,
        std=std,
        labels=classes,
        class_names=names,
        licence=licence,
    )


def _check_splits(splits: Sequence[Split], size: int, name: str) -> None:
    unknown = [split.name for split in splits if split.name not in SPLIT_NAMES]
    if unknown:
        raise SignalError(f"{name}: split {unknown[0]!r} is not one of {', '.join(SPLIT_NAMES)}")
    names = [split.name for split in splits]
    if len(set(names)) < len(names):
        raise SignalError(f"{name}: a split is named twice ({', '.join(names)})")
    if splits[0].name != "train":
        raise SignalError(f"{name}: the first split is 'train' (got {splits[0].name!r})")
    if splits[-1].stop != size:
        raise SignalError(f"{name}: splits hold {splits[-1].stop} signals, the array {size}")


def _whole_numbers(labels: npt.ArrayLike | Tensor, name: str) -> Tensor:
    raw = np.asarray(labels)
    whole = raw.astype(np.int64) if raw.dtype.kind in "biuf" else None
    if whole is None or not np.array_equal(whole, raw):
        raise SignalError(f"{name}: labels must be whole numbers; give names as class_names")
    return torch.from_numpy(whole)


def _checked_classes(
    labels: Tensor, class_names: tuple[str, ...], size: int, name: str
) -> tuple[str, ...]:
    if labels.shape != (size,):
        raise SignalError(f"{name}: expected {size} labels (got shape {tuple(labels.shape)})")
    highest = int(labels.max())
    names = class_names or tuple(str(number) for number in range(highest + 1))
    if int(labels.min()) < 0 or highest >= len(names):
        raise SignalError(
            f"{name}: labels must lie from 0 to {len(names) - 1} "
            f"(got {int(labels.min())} to {highest})"
        )
    return names
