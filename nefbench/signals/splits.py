"""Training, validation and test signals of sources that are not split; their statistics."""

from __future__ import annotations

import math

from nefbench.errors import SignalError
from nefbench.signals.base import Split, Values, channel_statistics, make_splits


def check_split_sizes(validation_size: float, test_size: float, split_seed: int) -> None:
    """Raise ``ValueError`` unless each size is 0, a share below 1 or a whole number."""
    for key, size in (("validation_size", validation_size), ("test_size", test_size)):
        if not (0 <= size < 1 or (size >= 1 and float(size).is_integer())):
            raise ValueError(f"expected {key} to be a number, or a share below 1 (got {size:g})")
    if not 0 <= split_seed < 2**63:
        raise ValueError(f"expected split_seed from 0 to 2**63 - 1 (got {split_seed})")


def cut_splits(
    num_signals: int, validation_size: float, test_size: float, name: str
) -> tuple[Split, ...]:
    """Lay out training, validation and test signals; a share is rounded, but to one at least.

    Raises:
        SignalError: If none are left to train on.
    """
    sizes = [
        max(1, round(size * num_signals)) if 0 < size < 1 else int(size)
        for size in (validation_size, test_size)
    ]
    train_size = num_signals - sum(sizes)
    if train_size < 1:
        raise SignalError(
            f"{name}: {num_signals} signals leave none to train on beside "
            f"{sizes[0]} for validation and {sizes[1]} for the test; "
            f"set validation_size and test_size"
        )
    named = [("train", train_size), ("validation", sizes[0]), ("test", sizes[1])]
    return make_splits([(key, size) for key, size in named if size])


def check_statistics(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    """Raise ``ValueError`` if a configured mean and spread cannot normalise anything."""
    if (mean is None) != (std is None):
        raise ValueError("mean and std go together: give both or neither")
    if std is not None and not all(0 < value < math.inf for value in std):
        raise ValueError(f"expected std > 0 and finite (got {std})")
    if mean is not None and not all(map(math.isfinite, mean)):
        raise ValueError(f"expected a finite mean (got {mean})")


def given_or_measured(
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    values: Values,
    split: Split,
    name: str,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, measured over one split if not given.

    Raises:
        SignalError: If those given are for another number of channels.
    """
    if mean is None or std is None:
        return channel_statistics(values, split, name)
    num_channels = values.read([split.start]).shape[-1]
    if not len(mean) == len(std) == num_channels:
        raise SignalError(
            f"{name}: signals have {num_channels} channel(s), "
            f"signals.mean has {len(mean)} and signals.std {len(std)} number(s); "
            f"give one number per channel"
        )
    return mean, std
