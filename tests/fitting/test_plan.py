from __future__ import annotations

import itertools

import numpy as np

from fitting import FitConfig
from fitting.plan import Shard, field_splits, plan_shards
from nefbench.signals import GridSignals, Split, signals_from_array
from nefbench.signals.views import Views


def make_signals() -> GridSignals:
    return signals_from_array(
        np.random.default_rng(0).random((12, 3, 3, 1)),
        splits=[("train", 7), ("validation", 2), ("test", 3)],
    )


def test_every_split_is_cut_into_ranges_of_at_most_so_many_fields() -> None:
    assert plan_shards(make_signals(), FitConfig(part_rows=3)) == [
        Shard("train", 0, 3),
        Shard("train", 3, 6),
        Shard("train", 6, 7),
        Shard("validation", 7, 9),
        Shard("test", 9, 12),
    ]
    assert plan_shards(make_signals(), FitConfig(part_rows=1000)) == [
        Shard("train", 0, 7),
        Shard("validation", 7, 9),
        Shard("test", 9, 12),
    ]


def test_refits_repeat_every_split_and_views_the_training_split() -> None:
    config = FitConfig(part_rows=5, num_refits=2, views=Views(count=3, flip=True, crop=0.9))
    signals = make_signals()

    splits = field_splits(signals, config)
    shards = plan_shards(signals, config)

    assert splits == (Split("train", 0, 42), Split("validation", 42, 46), Split("test", 46, 52))
    assert [(shard.start, shard.stop) for shard in shards] == list(
        itertools.pairwise([0, *np.cumsum([len(shard.signals) for shard in shards])])
    ), "without gaps"
    fields = [
        (shard.split, shard.refit, shard.view, signal)
        for shard in shards
        for signal in shard.signals
    ]
    expected = [
        *(("train", r, v, s) for r in range(2) for v in range(3) for s in range(7)),
        *(("validation", r, 0, s) for r in range(2) for s in (7, 8)),
        *(("test", r, 0, s) for r in range(2) for s in (9, 10, 11)),
    ]
    assert fields == expected
    assert max(len(shard.signals) for shard in shards) == 5
    for split in splits:
        covered = [s for s in shards if s.split == split.name]
        assert (covered[0].start, covered[-1].stop) == (split.start, split.stop)
