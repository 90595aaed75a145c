from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from classifiers import ClassifierConfig
from fitting import FitConfig, WarmupCosine, run_fit
from nefbench.signals import Signals
from nefbench.weights import load_neural_dataset
from studies.design import StudyConfig
from studies.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

Snapshot = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def signals(tiny_study: StudyConfig) -> Signals:
    return tiny_study.sources["digits"].open()


@pytest.fixture
def fit(tiny_study: StudyConfig) -> FitConfig:
    return tiny_study.fields["siren"].config({"num_steps": 2})


def test_a_dataset_is_fitted_once(tmp_path: Path, signals: Signals, fit: FitConfig) -> None:
    store = Store(tmp_path)

    key, report = store.fit(signals, fit)
    again, nothing = store.fit(signals, dataclasses.replace(fit, name="other"))

    assert report is not None
    assert report.num_fitted == 150
    assert (again, nothing) == (key, None)


def test_a_dataset_of_the_store_holds_what_a_fit_of_its_own_gives(
    tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    store = Store(tmp_path / "store")
    key, _ = store.fit(signals, fit, steps=(6,))
    alone = run_fit(signals, fit, tmp_path / "alone").dataset

    dataset = store.dataset(key)

    assert dataset is not None
    kept = [part.sha256 for part in dataset.entry.parts]
    rows, expected = dataset.split("train"), alone.split("train")
    assert rows.weights.equal(expected.weights)
    assert len(kept) == len(alone.entry.parts)


def test_one_fit_yields_all_numbers_of_steps(
    tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    store = Store(tmp_path)
    store.fit(signals, fit, steps=(2, 4, 6))

    key, report = store.fit(signals, dataclasses.replace(fit, num_steps=6))

    assert report is None
    dataset = store.dataset(key)
    assert dataset is not None
    assert dataset.entry.fit["num_steps"] == 6


def test_where_the_schedule_forbids_a_series_every_fit_stands_for_itself(
    tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    store = Store(tmp_path)
    fit = dataclasses.replace(fit, schedule=WarmupCosine(warmup_steps=0))
    store.fit(signals, fit, steps=(6,))

    _, report = store.fit(signals, dataclasses.replace(fit, num_steps=6))

    assert report is not None


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_steps": 3}, {"part_rows": 50}])
def test_another_recipe_is_another_dataset(
    change: dict[str, int], tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    store = Store(tmp_path)

    assert store.key(signals, fit) != store.key(signals, dataclasses.replace(fit, **change))  # type: ignore[arg-type]


def test_the_engine_is_no_part_of_the_key(tmp_path: Path, signals: Signals, fit: FitConfig) -> None:
    store = Store(tmp_path)

    assert store.key(signals, fit) == store.key(signals, dataclasses.replace(fit, engine="auto"))


def test_a_dataset_that_was_begun_counts_as_missing_and_is_finished(
    tmp_path: Path, signals: Signals, fit: FitConfig, snapshot: Snapshot
) -> None:
    store = Store(tmp_path)
    key, _ = store.fit(signals, dataclasses.replace(fit, part_rows=40))
    whole = snapshot(tmp_path / "datasets")
    lost = next((tmp_path / "datasets" / key).rglob("part-000040*"))
    lost.unlink()
    run_fit(signals, dataclasses.replace(fit, part_rows=40, name="fields"),
            tmp_path / "datasets" / key, only=(0, 40))  # fmt: skip

    assert store.dataset(key) is None
    _, report = store.fit(signals, dataclasses.replace(fit, part_rows=40))

    assert report is not None
    assert report.num_fitted == 40
    assert snapshot(tmp_path / "datasets") == whole


def test_a_training_is_run_once_and_then_read(
    tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    store = Store(tmp_path)
    key, _ = store.fit(signals, fit)
    config = ClassifierConfig(num_epochs=2, seeds=(0,))
    epochs: list[int] = []
    first = store.train(key, config, on_epoch=lambda _, epoch, __: epochs.append(epoch))

    second = store.train(key, config, on_epoch=lambda _, epoch, __: epochs.append(epoch))

    assert second == first
    assert epochs == [1, 2]
    assert (store.training_folder(first[0]) / "report.json").exists()


def test_another_training_has_another_place(
    tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    store = Store(tmp_path)
    key, _ = store.fit(signals, fit)

    keys = {store.train(key, ClassifierConfig(num_epochs=n, seeds=(0,)))[0] for n in (1, 2)}

    assert len(keys) == 2


def test_a_dataset_of_the_store_is_one_like_any_other(
    tmp_path: Path, signals: Signals, fit: FitConfig
) -> None:
    key, _ = Store(tmp_path).fit(signals, fit)

    assert load_neural_dataset(tmp_path / "datasets" / key).entry.num_fields == 150
