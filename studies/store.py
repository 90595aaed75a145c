"""Neural datasets and trainings kept by what they are made of, for all trials and studies.

A dataset lies in ``datasets/DIGEST``, a training in ``trainings/DIGEST``: whoever asks for the same
thing again, in this study or another one, finds it. Locks let one process at a time make a thing;
the system releases those of a process that was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from classifiers import ClassifierConfig, ClassifierReport, train_classifier
from fitting import Executor, FitConfig
from fitting.fit import FitReport, run_fit_series, why_no_series
from fitting.record import fit_digest
from fitting.starts import recorded_config
from nefbench.config import config_to_mapping, digest
from nefbench.errors import DatasetFormatError
from nefbench.seeding import GENERATOR
from nefbench.signals import Signals
from nefbench.weights import NeuralDataset, load_neural_dataset
from studies.measures import DatasetMeasures, measure_dataset, read_measures, write_measures

KEY_DIGITS = 24
"""Hexadecimal digits of a key: the first of a digest."""
_NAME = "fields"
"""Name of the config in every dataset: it is the digest that tells them apart."""

FitProgress = Callable[[int, int], None]
TrainingProgress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Store:
    """A folder of datasets, their measures, and trainings.

    Attributes:
        folder: Where they lie.
    """

    folder: Path

    def key(self, signals: Signals, config: FitConfig) -> str:
        """Digest of a dataset: of signals, recipe and generator of random numbers.

        Neither the engine nor the name of the config is part of it.

        Raises:
            ConfigError: If the recipe is none for these signals.
        """
        recorded = recorded_config(signals, _nameless(config), self.folder / "nothing")
        content = {"fit": fit_digest(signals, recorded), "generator": GENERATOR}
        return digest(content)[:KEY_DIGITS]

    def dataset(self, key: str) -> NeuralDataset | None:
        """Return a finished dataset, or None if it is not there."""
        folder = self._dataset_folder(key)
        if not (folder / "nefbench.json").exists():
            return None
        try:
            dataset = load_neural_dataset(folder)
        except DatasetFormatError:  # nothing is finished yet; fitting reports what is wrong
            return None
        return dataset if dataset.entry.is_complete and dataset.entry.summary else None

    def fit(
        self,
        signals: Signals,
        config: FitConfig,
        *,
        steps: Sequence[int] = (),
        executor: Executor | None = None,
        device: str = "cpu",
        on_progress: FitProgress = lambda *_: None,
    ) -> tuple[str, FitReport | None]:
        """Make sure that a dataset is there.

        Args:
            signals: What to fit.
            config: The recipe.
            steps: Other numbers of steps that will be asked for: the same fit yields them, where
                the schedule allows that.
            executor: Where shards run.
            device: Where to compute.
            on_progress: Told ``(fields done, fields to do)``.

        Returns:
            Its key, and what was done; None if it was there.
        """
        key = self.key(signals, config)
        if self.dataset(key) is not None:
            return key, None
        wanted = sorted({config.num_steps, *steps})
        if why_no_series(config, wanted) is not None:
            wanted = [config.num_steps]
        keys = {
            num_steps: self.key(signals, dataclasses.replace(config, num_steps=num_steps))
            for num_steps in wanted
        }
        with self._locked(keys.values()):
            if self.dataset(key) is not None:  # another process was faster
                return key, None
            missing = {
                num_steps: self._dataset_folder(one)
                for num_steps, one in keys.items()
                if self.dataset(one) is None
            }
            reports = run_fit_series(
                signals, _nameless(config), missing, executor=executor, device=device,
                on_progress=on_progress,
            )  # fmt: skip
        return key, reports[config.num_steps]

    def measures(self, key: str) -> DatasetMeasures:
        """Return the measures of a dataset, taken on first use."""
        path = self.folder / "measures" / f"{key}.json"
        known = read_measures(path)
        if known is None:
            with self._locked([f"measures-{key}"]):
                known = read_measures(path)
                if known is None:
                    dataset = self.dataset(key)
                    assert dataset is not None, "what is measured was fitted"
                    known = measure_dataset(dataset)
                    write_measures(path, known)
        return known

    def train(
        self,
        key: str,
        config: ClassifierConfig,
        *,
        device: str = "cpu",
        on_epoch: TrainingProgress = lambda *_: None,
    ) -> tuple[str, ClassifierReport]:
        """Train a classifier on a dataset, or read what an earlier training found.

        A training that was stopped goes on where it was.

        Returns:
            The key of the training, and its report.

        Raises:
            TrainingError: If the dataset cannot be classified.
        """
        dataset = self.dataset(key)
        assert dataset is not None, "what is classified was fitted"
        content = {"dataset": key, "classifier": config_to_mapping(config)}
        own = digest(content)[:KEY_DIGITS]
        with self._locked([f"training-{own}"]):
            report = train_classifier(
                dataset, config, self.training_folder(own), device=device, on_epoch=on_epoch
            )
        return own, report

    def training_folder(self, key: str) -> Path:
        """Folder of a training's report and checkpoints."""
        return self.folder / "trainings" / key

    def _dataset_folder(self, key: str) -> Path:
        return self.folder / "datasets" / key

    @contextlib.contextmanager
    def _locked(self, names: Iterable[str]) -> Iterator[None]:
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for name in sorted(names):  # one order: no deadlock
                stack.enter_context(FileLock(locks / f"{name}.lock"))
            yield


def _nameless(config: FitConfig) -> FitConfig:
    return dataclasses.replace(config, name=_NAME)
