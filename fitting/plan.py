"""Which fields there are, in which order, and how they are cut into shards.

A split's fields go refit by refit, view by view, and through its signals in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fitting.config import FitConfig
from nefbench.signals import Signals, Split
from nefbench.signals.base import make_splits

VIEWED_SPLIT = "train"
"""The split that has views; the others are measured on the signals as they are."""


@dataclass(frozen=True)
class Shard:
    """A half-open range of fields that becomes one part.

    Attributes:
        split: Name of the split that holds the range.
        start: First field.
        stop: One past the last field.
        offset: Number of a field minus the position of its signal.
        refit: Which of the fits of the same signal and view.
        view: Which view of the signals.
    """

    split: str
    start: int
    stop: int
    offset: int = 0
    refit: int = 0
    view: int = 0

    @property
    def signals(self) -> range:
        """Positions of the fields' signals."""
        return range(self.start - self.offset, self.stop - self.offset)


def field_splits(signals: Signals, config: FitConfig) -> tuple[Split, ...]:
    """Return the ranges of fields, one per split of the signals."""
    copies = [(split.name, len(list(_copies(split, config))) * len(split))
              for split in signals.splits]  # fmt: skip
    return make_splits(copies)


def plan_shards(signals: Signals, config: FitConfig) -> list[Shard]:
    """Cut every split into ranges of at most ``part_rows`` fields of one refit and one view."""
    shards = []
    start = 0
    for split in signals.splits:
        for refit, view in _copies(split, config):
            for first in range(split.start, split.stop, config.part_rows):
                stop = start + min(config.part_rows, split.stop - first)
                shards.append(Shard(split.name, start, stop, start - first, refit, view))
                start = stop
    return shards


def _copies(split: Split, config: FitConfig) -> Iterator[tuple[int, int]]:
    num_views = config.views.count if config.views and split.name == VIEWED_SPLIT else 1
    for refit in range(config.num_refits):
        for view in range(num_views):
            yield refit, view
