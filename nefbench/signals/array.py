"""Signals from an array in memory, and the checks of arrays wherever they are held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.signals.base import (
    SPLIT_NAMES,
    ArrayValues,
    GridSignals,
    Split,
    Values,
    channel_statistics,
    check_finite,
    make_splits,
)

UNIT_RANGE = (0.0, 1.0)
"""Range of values that nothing else is said about."""

BYTE_PEAK = 255.0
"""What 1.0 is in an array of bytes."""

_BLOCK_NUMBERS = 2**22  # checked at a time: 16 MB


def signals_from_array(
    array: npt.ArrayLike | Tensor,
    labels: npt.ArrayLike | Tensor | None = None,
    *,
    splits: Sequence[tuple[str, int]] | None = None,
    class_names: Sequence[str] = (),
    properties: Mapping[str, npt.ArrayLike | Tensor] | None = None,
    value_range: tuple[float, float] = UNIT_RANGE,
    name: str = "array",
    indices: Tensor | None = None,
    source: str = "an array in memory",
    licence: str = "unknown",
) -> GridSignals:
    """Wrap an array as signals, normalised by the training split.

    Args:
        array: ``[N, n_1, …, n_d, c]``: signal, grid axes (slowest first), channel; for example
            waves ``[N, n, c]``, images ``[N, H, W, c]``, volumes ``[N, D, H, W, c]``. uint8 counts
            as 0 to 255 and becomes [0, 1]; all other numbers are values as they are.
        labels: Class numbers ``[N]`` from 0, or None.
        splits: ``(name, size)`` in order of the array; all of it is ``train`` if left out.
        class_names: One per class; the numbers themselves if left out.
        properties: Name to numbers ``[N]`` that belong to the signals.
        value_range: Lowest and highest value there can be; every value must lie in it. Quality is
            measured with this range mapped to [0, 1].
        name: What a reader calls it.
        indices: Position of every signal in its source; 0 to N - 1 if left out.
        source: Where it came from.
        licence: Licence of the source.

    Raises:
        SignalError: If shapes, values, labels, properties or split sizes do not fit.
    """
    raw = _as_numpy(array)
    try:
        check_value_range(value_range)
    except ValueError as error:
        raise SignalError(f"{name}: {error}") from error
    peak = check_array(raw.shape, raw.dtype, value_range, name)
    held = ArrayValues(_as_tensor(raw).reshape(len(raw), -1, raw.shape[-1]), peak)
    if raw.dtype != np.uint8:
        check_values(held, value_range, name)
    ranges = make_splits(splits or [("train", len(raw))])
    _check_splits(ranges, len(raw), name)
    classes, names = checked_labels(labels, class_names, len(raw), name)
    if indices is not None and indices.shape != (len(raw),):
        raise SignalError(f"{name}: expected {len(raw)} indices (got shape {tuple(indices.shape)})")
    mean, std = channel_statistics(held, ranges[0], name)
    return GridSignals(
        name=name,
        source=source,
        grid_shape=tuple(raw.shape[1:-1]),
        values=held,
        value_range=(float(value_range[0]), float(value_range[1])),
        indices=torch.arange(len(raw)) if indices is None else indices,
        splits=ranges,
        mean=mean,
        std=std,
        labels=classes,
        class_names=names,
        properties=checked_properties(properties or {}, len(raw), name),
        licence=licence,
    )


def check_value_range(value_range: tuple[float, float]) -> None:
    """Raise ``ValueError`` unless the range goes from a lower to a higher number."""
    low, high = value_range
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(
            f"expected a finite value_range, the lower number first (got {tuple(value_range)})"
        )


def check_array(
    shape: Sequence[int], dtype: np.dtype[np.generic], value_range: tuple[float, float], name: str
) -> float:
    """Check that an array ``[N, grid…, c]`` can hold signals; return what 1.0 is in it.

    Raises:
        SignalError: If it has too few axes, an empty one, or holds something other than numbers.
    """
    if len(shape) < 3 or 0 in shape:
        raise SignalError(f"{name}: expected [N, grid…, c] (got shape {tuple(shape)})")
    if dtype.kind not in "biuf":
        raise SignalError(f"{name}: expected an array of real numbers (got {dtype})")
    if dtype != np.uint8:
        return 1.0
    if tuple(value_range) != UNIT_RANGE:
        raise SignalError(
            f"{name}: bytes count as 0 to 255 and become [0, 1]; leave value_range out, "
            f"or convert them to another type"
        )
    return BYTE_PEAK


def check_values(
    values: Values, value_range: tuple[float, float], name: str, indices: Tensor | None = None
) -> None:
    """Read all values once, block by block, and check that they are finite and within a range.

    Args:
        values: What to read.
        value_range: Lowest and highest value allowed, both rounded to float32 like the values.
        name: For messages.
        indices: What signals are called in messages; their positions if left out.

    Raises:
        SignalError: Naming the signals that are not finite, or the range found.
    """
    called = range(len(values)) if indices is None else indices.tolist()
    first = values.read([0])
    size = max(1, _BLOCK_NUMBERS // first.numel())
    low, high = float(first.min()), float(first.max())
    # Marks, one per signal, to name all that are not finite, not only those of the first block.
    marks = torch.zeros(len(values), 1)
    for start in range(0, len(values), size):
        block = values.read(range(start, min(start + size, len(values)))).flatten(1)
        marks[start : start + size, 0].masked_fill_(~block.isfinite().all(1), math.nan)
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    check_finite(marks, called, name)
    lowest, highest = torch.tensor(value_range, dtype=torch.float32).tolist()
    if low < lowest or high > highest:
        allowed = f"[{value_range[0]:g}, {value_range[1]:g}]"
        raise SignalError(
            f"{name}: values must lie in {allowed} (got {low:.6g} to {high:.6g}); "
            f"give value_range or rescale them"
        )


def checked_labels(
    labels: npt.ArrayLike | Tensor | None, class_names: Sequence[str], size: int, name: str
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return labels as int64 ``[N]`` and the name of every class, or None and no names.

    Raises:
        SignalError: If the labels are not ``size`` whole numbers from 0, each with a name.
    """
    if labels is None:
        return None, tuple(class_names)
    whole = _whole_numbers(labels, name)
    if whole.shape != (size,):
        raise SignalError(f"{name}: expected {size} labels (got shape {tuple(whole.shape)})")
    lowest, highest = int(whole.min()), int(whole.max())
    names = tuple(class_names) or tuple(str(number) for number in range(highest + 1))
    if lowest < 0 or highest >= len(names):
        raise SignalError(
            f"{name}: labels must lie from 0 to {len(names) - 1} (got {lowest} to {highest})"
        )
    return whole, names


def checked_properties(
    properties: Mapping[str, npt.ArrayLike | Tensor], size: int, name: str
) -> dict[str, Tensor]:
    """Return numbers that belong to signals as float64 ``[N]`` by name.

    Raises:
        SignalError: If a name is no identifier, or its numbers are not ``size`` finite ones.
    """
    checked = {}
    for key, numbers in properties.items():
        if not key.isidentifier():
            raise SignalError(
                f"{name}: expected a property name of letters, digits and '_' (got {key!r})"
            )
        raw = _as_numpy(numbers)
        if raw.dtype.kind not in "biuf":
            raise SignalError(f"{name}: property {key!r} must be real numbers (got {raw.dtype})")
        if raw.shape != (size,):
            raise SignalError(
                f"{name}: expected {size} numbers of property {key!r} (got shape {raw.shape})"
            )
        exact = torch.from_numpy(raw.astype(np.float64))
        if bad := (~exact.isfinite()).nonzero().flatten().tolist():
            listed = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
            raise SignalError(
                f"{name}: property {key!r} of {len(bad)} signal(s) is NaN or infinite "
                f"(positions {listed}); remove or repair them"
            )
        checked[key] = exact
    return checked


def _as_numpy(array: npt.ArrayLike | Tensor) -> npt.NDArray[np.generic]:
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    return np.asarray(array)


def _as_tensor(raw: npt.NDArray[np.generic]) -> Tensor:
    """Share the memory of an array, or copy it if torch cannot: read-only, another byte order."""
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    wide = native.astype(np.float32) if native.dtype == np.longdouble else native
    return torch.from_numpy(np.require(wide, requirements=["C", "W"]))


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
    raw = _as_numpy(labels)
    with np.errstate(invalid="ignore"):  # NaN, which then differs from any whole number
        whole = raw.astype(np.int64) if raw.dtype.kind in "biuf" else None
    if whole is None or not np.array_equal(whole, raw):
        raise SignalError(f"{name}: labels must be whole numbers; give names as class_names")
    return torch.from_numpy(whole)
