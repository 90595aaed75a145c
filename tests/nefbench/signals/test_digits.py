from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals import DigitsConfig, Signals, SignalsConfig


@pytest.fixture(scope="module")
def digits() -> Signals:
    return DigitsConfig().open()


def test_all_digits_are_there_in_splits_of_the_given_sizes(digits: Signals) -> None:
    assert len(digits) == 1797
    assert [(split.name, len(split)) for split in digits.splits] == [
        ("train", 1257),
        ("validation", 180),
        ("test", 360),
    ]
    assert (digits.grid_shape, digits.num_channels) == ((8, 8), 1)
    assert digits.class_names == tuple("0123456789")


def test_splits_are_disjoint_and_cover_the_source(digits: Signals) -> None:
    parts = [set(digits.indices[split.start : split.stop].tolist()) for split in digits.splits]

    assert [len(part) for part in parts] == [1257, 180, 360]
    assert set.union(*parts) == set(range(1797))


def test_every_signal_is_the_row_of_the_source_that_its_index_names(digits: Signals) -> None:
    images, labels = load_digits(return_X_y=True)
    order = digits.indices.numpy()

    values = digits.values.read(range(1797))

    # Sixteenths are exact in float32.
    assert np.array_equal(values[..., 0].numpy() * 16, images[order])
    assert digits.labels is not None
    assert np.array_equal(digits.labels.numpy(), labels[order])


def test_the_file_order_is_broken_up(digits: Signals) -> None:
    classes = digits.labels[1437:].bincount(minlength=10)  # type: ignore[index]

    assert (digits.indices != torch.arange(1797)).float().mean() > 0.99
    # 36 of each class on average in the test split.
    assert classes.min() > 18


def test_a_trial_keeps_the_first_signals_of_the_permutation(digits: Signals) -> None:
    trial = DigitsConfig(max_signals=60, validation_size=10, test_size=20).open()

    assert torch.equal(trial.indices, digits.indices[:60])
    assert [len(split) for split in trial.splits] == [30, 10, 20]
    assert torch.equal(trial.values.read([7, 59]), digits.values.read([7, 59]))


def test_another_seed_gives_another_order(digits: Signals) -> None:
    other = DigitsConfig(split_seed=1).open()

    assert not torch.equal(other.indices, digits.indices)
    assert other.fingerprint != digits.fingerprint


def test_opening_twice_gives_the_same_signals(digits: Signals) -> None:
    again = DigitsConfig().open()

    assert again.fingerprint == digits.fingerprint
    assert (again.mean, again.std) == (digits.mean, digits.std)


def test_too_few_signals_for_the_splits_are_refused() -> None:
    with pytest.raises(SignalError, match=r"540 signals leave none to train on"):
        DigitsConfig(max_signals=540).open()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"max_signals": 0}, "expected max_signals >= 1 (got 0)"),
        ({"max_signals": -5}, "expected max_signals >= 1 (got -5)"),
        ({"validation_size": 0}, "expected validation_size >= 1 (got 0)"),
        ({"test_size": -1}, "expected test_size >= 1 (got -1)"),
        ({"split_seed": -1}, "expected split_seed from 0 to 2**63 - 1 (got -1)"),
    ],
)
def test_numbers_out_of_range_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(SignalsConfig, {"kind": "digits", **keys})
    assert str(caught.value) == expected


def test_the_recorded_configuration_opens_the_same_signals() -> None:
    first = DigitsConfig(max_signals=60, validation_size=10, test_size=20, split_seed=3).open()
    assert first.config is not None

    again = config_from_mapping(SignalsConfig, first.config).open()

    assert again.fingerprint == first.fingerprint


def test_digits_survive_pickling(digits: Signals) -> None:
    restored = pickle.loads(pickle.dumps(digits))

    assert restored.fingerprint == digits.fingerprint
