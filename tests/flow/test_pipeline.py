from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from classifiers import load_classifier
from fitting import Adam, FitConfig, fit_dataset
from nefbench.fields import Siren
from nefbench.signals import Signals, signals_from_array
from nefbench.weights import load_neural_dataset

# What another person does another day: open the folder, train, keep the classifier, use it.
ANOTHER_DAY = """
import json
from classifiers import MLP, ClassifierConfig, load_classifier, train_classifier
from nefbench.weights import load_neural_dataset

dataset = load_neural_dataset("dataset")
config = ClassifierConfig(model=MLP(hidden_dims=(16,)), num_epochs=40, seeds=(0,))
report = train_classifier(dataset, config, "classifier")
test = dataset.split("test")
classifier = load_classifier("classifier/classifier-seed0.pt")
print(json.dumps({
    "accuracy": report.test_accuracy,
    "predicted": classifier.predict(test.weights).tolist(),
    "labels": test.labels.tolist(),
    "weights": test.weights.double().sum().item(),
    "pixels": dataset.render(test.weights).flatten().tolist(),
}))
"""


def stripes(count: int) -> Signals:
    """Images of 6x6 with horizontal (class 0) or vertical (class 1) stripes, and noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    wave = (torch.arange(6) % 3 == 0).float() * 0.6 + 0.1
    horizontal, vertical = wave[:, None].expand(6, 6), wave[None, :].expand(6, 6)
    images = torch.where(labels[:, None, None] == 0, horizontal, vertical)
    images = images + 0.2 * torch.rand(count, 6, 6, generator=generator)
    return signals_from_array(
        images[..., None],
        labels,
        splits=[("train", count // 2), ("validation", count // 4), ("test", count // 4)],
        class_names=["horizontal", "vertical"],
        name="stripes",
    )


@pytest.mark.usefixtures("one_thread")
def test_signals_are_fitted_stored_loaded_classified_and_predicted(tmp_path: Path) -> None:
    signals = stripes(120)
    config = FitConfig(
        field=Siren(hidden_dim=8, omega_0=9.0), optimizer=Adam(learning_rate=1e-2), num_steps=60
    )

    fitted = fit_dataset(signals, config, tmp_path / "dataset")
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_DAY],
        cwd=tmp_path, capture_output=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    test = fitted.split("test")
    truth = signals.values.read(range(90, 120))
    # the fields are good, and the other process has read the same ones
    assert float(test.quality["psnr_db"].median()) > 20
    assert found["weights"] == test.weights.double().sum().item()
    pixels = torch.tensor(found["pixels"]).reshape(truth.shape)
    assert float((pixels.clamp(0, 1) - truth).square().mean()) < 0.01
    # the labels went through, and they can be read off the weights
    assert found["labels"] == [index % 2 for index in range(90, 120)]
    assert found["accuracy"] > 0.9
    hits = [p == t for p, t in zip(found["predicted"], found["labels"], strict=True)]
    assert sum(hits) / len(hits) == found["accuracy"]
    # this process reads what the other one has stored
    classifier = load_classifier(tmp_path / "classifier" / "classifier-seed0.pt")
    again = load_neural_dataset(tmp_path / "dataset").split("test")
    assert classifier.predict(again.weights).tolist() == found["predicted"]
    assert classifier.class_names == ("horizontal", "vertical")
    assert classifier.dataset_digest == fitted.entry.digest
