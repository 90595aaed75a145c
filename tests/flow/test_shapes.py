from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from classifiers import MLP, ClassifierConfig, train_classifier
from fitting import Adam, FitConfig, Processes, WarmupCosine, fit_dataset
from nefbench.fields import Siren
from nefbench.signals import ProceduralShapesConfig
from nefbench.weights import load_neural_dataset
from nefbench.weights.surfaces import field_surface

SIGNALS = ProceduralShapesConfig(
    train_size=48, validation_size=12, test_size=12, num_uniform=6000, num_near_surface=6000,
    num_held_out=1500,
)  # fmt: skip
CONFIG = FitConfig(
    field=Siren(hidden_dim=32, omega_0=20.0), optimizer=Adam(learning_rate=5e-3),
    schedule=WarmupCosine(), num_steps=400, points_per_step=512, part_rows=12,
)  # fmt: skip


@pytest.mark.usefixtures("one_thread")
def test_shapes_are_fitted_stored_meshed_and_classified(tmp_path: Path) -> None:
    signals = SIGNALS.open()

    fit_dataset(signals, CONFIG, tmp_path / "dataset")
    dataset = load_neural_dataset(tmp_path / "dataset")

    test = dataset.split("test")
    assert dataset.entry.signals.output == "occupancy"
    assert test.status == ("ok",) * 12
    assert float(test.quality["iou_uniform"].median()) > 0.75
    assert float(test.quality["iou_near_surface"].median()) > 0.7
    # The mesh has the volume of the shape: the share of uniform points that are inside.
    best = test.quality["iou_uniform"].argsort(descending=True)[:3].tolist()
    first = next(split.start for split in signals.splits if split.name == "test")
    for index in best:
        position = first + index
        samples = signals.shapes.read([position], "held-out").uniform
        expected = float(samples.values.mean()) * 1.1**3
        mesh = field_surface(dataset, test.weights[index], (48, 48, 48))
        corners = mesh.vertices[mesh.faces].double()
        volume = torch.linalg.det(corners).sum() / 6
        assert float(volume) == pytest.approx(expected, rel=0.15)
    # Twelve classes of four shapes each: far from chance (0.083) is all that can be asked.
    classifier = ClassifierConfig(model=MLP(hidden_dims=(64,)), num_epochs=60, seeds=(0,))
    report = train_classifier(dataset, classifier, tmp_path / "classifier")
    assert report.train_accuracy > 0.9
    assert report.test_accuracy > 0.3


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("quantity", ["occupancy", "signed-distance"])
def test_worker_processes_fit_the_same_shapes(tmp_path: Path, quantity: str) -> None:
    few = dataclasses.replace(SIGNALS, train_size=12, quantity=quantity)  # type: ignore[arg-type]
    config = dataclasses.replace(CONFIG, num_steps=10, part_rows=5)
    signals = few.open()

    alone = fit_dataset(signals, config, tmp_path / "alone")
    together = fit_dataset(signals, config, tmp_path / "together", executor=Processes(2))

    for name in alone.split_names:
        first, second = alone.split(name), together.split(name)
        assert torch.equal(first.weights, second.weights)
        for column, values in first.quality.items():
            assert torch.equal(values.nan_to_num(), second.quality[column].nan_to_num())
