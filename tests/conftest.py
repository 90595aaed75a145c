"""What several test folders share: small fitted datasets, and how to change them validly."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from fitting import FitConfig, Shared, fit_dataset
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig, signals_from_array
from nefbench.weights import (
    FieldRows,
    NeuralDataset,
    load_neural_dataset,
    read_manifest,
    write_manifest,
)
from nefbench.weights.parts import read_part, write_part

Snapshot = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: at test sizes several only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def fitted_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 300 fitted digits (180, 60, 60) in four parts; not to be changed."""
    folder = tmp_path_factory.mktemp("fitted") / "digits"
    signals = DigitsConfig(max_signals=300, validation_size=60, test_size=60).open()
    config = FitConfig(
        field=Siren(hidden_dim=8, omega_0=9.0), init=Shared(), num_steps=60, part_rows=100
    )
    fit_dataset(signals, config, folder)
    return folder


@pytest.fixture
def digits_copy(fitted_digits: Path, tmp_path: Path) -> Path:
    """A copy of ``fitted_digits`` that a test may change: ``tmp_path / "digits"``."""
    return Path(shutil.copytree(fitted_digits, tmp_path / "digits"))


@pytest.fixture
def fit_tiny(tmp_path: Path) -> Callable[..., NeuralDataset]:
    """Fit small random images with given labels: ``fit_tiny(labels, splits)``, in milliseconds."""

    def fit(
        labels: Sequence[int] | None,
        splits: Sequence[tuple[str, int]],
        *,
        class_names: Sequence[str] = (),
        folder: str = "tiny",
    ) -> NeuralDataset:
        size = sum(number for _, number in splits)
        images = torch.rand(size, 4, 4, 1, generator=torch.Generator().manual_seed(0))
        signals = signals_from_array(images, labels, splits=splits, class_names=class_names)
        config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
        return fit_dataset(signals, config, tmp_path / folder)

    return fit


@pytest.fixture
def rewrite_rows() -> Callable[[Path, str, Callable[[FieldRows], FieldRows]], NeuralDataset]:
    """Replace the rows of a split so that checksums and manifest agree with the change."""

    def rewrite(
        folder: Path, split: str, change: Callable[[FieldRows], FieldRows]
    ) -> NeuralDataset:
        dataset = load_neural_dataset(folder)
        name, entry = dataset.name, dataset.entry
        parts = [
            write_part(
                folder, name, entry, split, part.start, change(read_part(folder, name, entry, part))
            )
            if part.split == split
            else part
            for part in entry.parts
        ]
        changed = dataclasses.replace(entry, parts=tuple(parts))
        write_manifest(folder, read_manifest(folder).with_config(name, changed))
        return load_neural_dataset(folder)

    return rewrite


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Return the bytes of every file below a folder, by relative path."""
    return lambda folder: {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def stoppable() -> list[str]:
    """Arguments of ``nefbench fit`` for ten parts of some tenths of a second each."""
    settings = (
        "signals.max_signals=60", "signals.validation_size=12", "signals.test_size=12",
        "field.hidden_dim=8", "num_steps=40000", "part_rows=6",
    )  # fmt: skip
    return ["digits-siren", *(word for setting in settings for word in ("--set", setting))]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> dict[str, bytes]:
    """Every byte that ``nefbench fit`` with ``stoppable`` writes when nothing stops it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    signals = DigitsConfig(max_signals=60, validation_size=12, test_size=12).open()
    config = FitConfig(
        field=Siren(hidden_dim=8, omega_0=9.0), init=Shared(), num_steps=40_000, part_rows=6
    )
    fit_dataset(signals, config, folder)
    return snapshot(folder)
