"""Train a classifier on weight rows: fit on train, choose on validation, touch test once."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from classifiers.checkpoint import TrainedClassifier, checkpoint_name, save_classifier
from classifiers.config import ClassifierConfig
from classifiers.examples import Examples, LabelledRows, examples_from_dataset
from classifiers.reader import WeightReader, build_reader
from classifiers.report import ClassifierReport, Epoch, SeedResult
from nefbench import files
from nefbench.config import config_to_mapping
from nefbench.seeding import derive_seed
from nefbench.weights import NeuralDataset

_EVALUATION_BATCH = 4096
REPORT_NAME = "report.json"

Progress = Callable[[int, int, float], None]
"""Told ``(index of the seed, epoch, validation accuracy)`` after every epoch."""


def train_classifier(
    dataset: NeuralDataset,
    config: ClassifierConfig,
    out: Path | str | None = None,
    *,
    device: str = "cpu",
    on_epoch: Progress = lambda *_: None,
) -> ClassifierReport:
    """Train one classifier per seed on the weights of a neural dataset.

    Args:
        dataset: Weights with labels and the splits train, validation, test.
        config: The recipe.
        out: Folder for ``report.json`` and one checkpoint per seed; nothing is written if None.
        device: ``cpu`` or ``cuda``.
        on_epoch: Progress.

    Raises:
        TrainingError: If the dataset cannot be classified as it is.
        DatasetFormatError: If it is unfinished or damaged.
    """
    examples = examples_from_dataset(dataset)
    return train_on_examples(examples, config, out, device=device, on_epoch=on_epoch)


def train_on_examples(
    examples: Examples,
    config: ClassifierConfig,
    out: Path | str | None = None,
    *,
    device: str = "cpu",
    on_epoch: Progress = lambda *_: None,
) -> ClassifierReport:
    """Train one classifier per seed on any labelled rows; see ``train_classifier``."""
    begin = time.perf_counter()
    splits = {
        name: LabelledRows(part.rows.to(device), part.labels.to(device))
        for name, part in examples.splits.items()
    }
    results = []
    num_parameters = 0
    for index, seed in enumerate(config.seeds):
        network, result = _train_seed(examples, splits, config, seed, partial(on_epoch, index))
        num_parameters = sum(p.numel() for p in network.parameters())
        results.append(result)
        if out is not None:
            trained = TrainedClassifier(
                network.cpu(), config, examples.space, examples.class_names, examples.digest
            )
            save_classifier(trained, Path(out) / checkpoint_name(seed))
    report = ClassifierReport(
        name=examples.name,
        config=config,
        results=tuple(results),
        num_parameters=num_parameters,
        num_rows={name: len(part) for name, part in splits.items()},
        num_excluded=examples.num_excluded,
        chance_accuracy=1 / len(examples.class_names),
        majority_accuracy=_majority_accuracy(splits),
        dataset_digest=examples.digest,
        seconds=time.perf_counter() - begin,
    )
    if out is not None:
        files.write_json(Path(out) / REPORT_NAME, config_to_mapping(report))
    return report


def _train_seed(
    examples: Examples,
    splits: dict[str, LabelledRows],
    config: ClassifierConfig,
    seed: int,
    on_epoch: Callable[[int, float], None],
) -> tuple[WeightReader, SeedResult]:
    train, validation = splits["train"], splits["validation"]
    device = train.rows.device
    cuda_devices = [device] if device.type == "cuda" else []
    # Dropout has no generator argument: borrow the global one, seeded per epoch, and give it back.
    with torch.random.fork_rng(devices=cuda_devices):
        torch.manual_seed(derive_seed(seed, "classifier/init"))
        network = build_reader(config.model, examples.space, len(examples.class_names)).to(device)
        network.normalisation.measure(train.rows)
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            amsgrad=config.amsgrad,
            fused=True,  # one pass over the weights instead of ten
        )
        epochs: list[Epoch] = []
        best_epoch, best_state = 0, copy.deepcopy(network.state_dict())
        for epoch in range(1, config.num_epochs + 1):
            torch.manual_seed(derive_seed(seed, "classifier/epoch", epoch))
            loss = _train_epoch(network, optimizer, train, config)
            accuracy = _accuracy(network, validation)
            known_loss = loss if math.isfinite(loss) else None
            epochs.append(Epoch(loss=known_loss, validation_accuracy=accuracy))
            on_epoch(epoch, accuracy)
            if not best_epoch or accuracy > epochs[best_epoch - 1].validation_accuracy:
                best_epoch, best_state = epoch, copy.deepcopy(network.state_dict())
            if config.patience is not None and epoch - best_epoch >= config.patience:
                break
    network.load_state_dict(best_state)
    return network, SeedResult(
        seed=seed,
        best_epoch=best_epoch,
        train_accuracy=_accuracy(network, train),
        validation_accuracy=epochs[best_epoch - 1].validation_accuracy,
        test_accuracy=_accuracy(network, splits["test"]),
        epochs=tuple(epochs),
    )


def _train_epoch(
    network: WeightReader,
    optimizer: torch.optim.Optimizer,
    train: LabelledRows,
    config: ClassifierConfig,
) -> float:
    """Pass once over the training rows; returns the mean loss."""
    network.train()
    rows, labels = train.rows, train.labels
    noise = config.noise_std * network.normalisation.std
    total, num_seen = torch.zeros((), device=rows.device), 0
    for batch in torch.randperm(len(rows)).split(config.batch_size):
        if len(batch) == 1:
            continue  # batch normalisation has no variance of one row
        chosen = batch.to(rows.device)
        inputs = rows[chosen]
        if config.noise_std:
            inputs = inputs + noise * torch.randn_like(inputs)
        loss = F.cross_entropy(network(inputs), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(batch)
        num_seen += len(batch)
    return float(total) / num_seen


def _accuracy(network: nn.Module, part: LabelledRows) -> float:
    network.eval()
    correct = 0
    with torch.no_grad():
        for rows, labels in zip(
            part.rows.split(_EVALUATION_BATCH), part.labels.split(_EVALUATION_BATCH), strict=True
        ):
            correct += int((network(rows).argmax(1) == labels).sum())
    return correct / len(part)


def _majority_accuracy(splits: dict[str, LabelledRows]) -> float:
    commonest = splits["train"].labels.mode().values
    return float((splits["test"].labels == commonest).to(torch.float64).mean())
