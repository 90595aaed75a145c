from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classifiers import (
    MLP,
    ClassifierConfig,
    ClassifierReport,
    Examples,
    examples_from_dataset,
    load_classifier,
    train_classifier,
    train_on_examples,
)
from classifiers.examples import LabelledRows
from classifiers.space import WeightSpace
from nefbench.config import config_from_mapping
from nefbench.errors import TrainingError
from nefbench.spec import ParamSpec, TensorSpec
from nefbench.weights import load_neural_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = MLP(hidden_dims=(8,), dropout=0.0)


def config(**settings: Any) -> ClassifierConfig:
    defaults: dict[str, Any] = {
        "model": SMALL, "learning_rate": 1e-2, "batch_size": 32, "num_epochs": 4, "seeds": (0,),
    }  # fmt: skip
    return ClassifierConfig(**(defaults | settings))


def examples(
    sizes: tuple[int, int, int], *, num_classes: int = 2, signal: float = 0.0, width: int = 6
) -> Examples:
    """Normal rows with classes in turn; class k lies at ``signal`` on axis k."""
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for name, size in zip(("train", "validation", "test"), sizes, strict=True):
        labels = torch.randperm(size, generator=generator) % num_classes
        rows = torch.randn(size, width, generator=generator)
        rows[torch.arange(size), labels] += signal
        splits[name] = LabelledRows(rows, labels)
    return Examples(
        name="toy",
        space=WeightSpace(
            ParamSpec(
                (
                    TensorSpec("bias", (2,), (None,)),
                    TensorSpec("kernel", (1, width - 2), (None, None)),
                )
            )
        ),
        class_names=tuple(map(str, range(num_classes))),
        splits=splits,
        num_excluded=0,
        digest="d",
    )


def with_split(
    source: Examples, name: str, *, rows: Tensor | None = None, labels: Tensor | None = None
) -> Examples:
    part = source.splits[name]
    changed = LabelledRows(
        part.rows if rows is None else rows, part.labels if labels is None else labels
    )
    return dataclasses.replace(source, splits={**source.splits, name: changed})


def saved_state(folder: Path, seed: int = 0) -> dict[str, Tensor]:
    return load_classifier(folder / f"classifier-seed{seed}.pt").network.state_dict()


def equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def accuracy(folder: Path, part: LabelledRows, seed: int = 0) -> float:
    predicted = load_classifier(folder / f"classifier-seed{seed}.pt").predict(part.rows)
    return int((predicted == part.labels).sum()) / len(part)


def test_separable_classes_are_learned() -> None:
    report = train_on_examples(examples((200, 50, 200), signal=6.0), config(num_epochs=20))

    assert report.test_accuracy > 0.95
    assert report.train_accuracy > 0.95


def test_random_labels_are_memorised_but_not_predicted() -> None:
    toy = examples((100, 100, 1000), num_classes=4, width=16)

    report = train_on_examples(
        toy, config(model=MLP(hidden_dims=(64,), dropout=0.0), num_epochs=60, patience=None)
    )

    # 1000 test rows at chance 1/4: four standard deviations are 4 * sqrt(0.25 * 0.75 / 1000)
    assert report.test_accuracy == pytest.approx(0.25, abs=0.055)
    assert report.results[0].epochs[-1].loss < 0.3


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    settings = config(model=MLP(hidden_dims=(8,), dropout=0.5), noise_std=0.3, seeds=(3,))

    first = train_on_examples(toy, settings, tmp_path / "a")
    second = train_on_examples(toy, settings, tmp_path / "b")

    assert first.results == second.results
    assert equal_states(saved_state(tmp_path / "a", 3), saved_state(tmp_path / "b", 3))


def test_the_global_generator_is_neither_used_nor_changed() -> None:
    toy = examples((60, 20, 20))
    settings = config(model=MLP(hidden_dims=(8,), dropout=0.5), noise_std=0.3)

    torch.manual_seed(1)
    first = train_on_examples(toy, settings)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = train_on_examples(toy, settings)

    assert first.results == second.results
    assert torch.equal(torch.get_rng_state(), before)


def test_different_seeds_give_different_trainings() -> None:
    report = train_on_examples(examples((60, 20, 20)), config(seeds=(0, 1, 2)))

    assert len({tuple(e.loss for e in result.epochs) for result in report.results}) == 3
    assert [result.seed for result in report.results] == [0, 1, 2]


def test_a_seed_gives_the_same_result_whichever_seeds_come_before_it(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))

    together = train_on_examples(toy, config(seeds=(0, 1)), tmp_path / "both")
    alone = train_on_examples(toy, config(seeds=(1,)), tmp_path / "one")

    assert together.results[1] == alone.results[0]
    assert equal_states(saved_state(tmp_path / "both", 1), saved_state(tmp_path / "one", 1))


def test_different_seeds_start_from_different_weights(tmp_path: Path) -> None:
    still = config(learning_rate=1e-12, weight_decay=0.0, seeds=(0, 1), num_epochs=1)

    train_on_examples(examples((60, 20, 20)), still, tmp_path)

    first, second = (saved_state(tmp_path, seed)["model.0.weight"] for seed in (0, 1))
    assert (first - second).abs().min() > 1e-6


@pytest.mark.parametrize("settings", [{"noise_std": 1.0}, {"model": MLP(hidden_dims=(8,))}])
def test_every_epoch_draws_its_noise_and_dropout_anew(settings: dict[str, Any]) -> None:
    # A learning rate of almost nothing: only fresh draws can change the loss.
    still = config(learning_rate=1e-12, weight_decay=0.0, patience=None, **settings)

    (result,) = train_on_examples(examples((60, 20, 20)), still).results

    assert len({round(epoch.loss, 5) for epoch in result.epochs}) == 4


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_the_given_number_of_epochs_without_improvement(
    patience: int,
) -> None:
    toy = examples((60, 40, 20))

    (result,) = train_on_examples(toy, config(num_epochs=50, patience=patience)).results

    assert len(result.epochs) == result.best_epoch + patience < 50


def test_the_best_epoch_is_the_first_with_the_highest_validation_accuracy(tmp_path: Path) -> None:
    toy = examples((60, 10, 20))

    (result,) = train_on_examples(
        toy, config(num_epochs=40, patience=None, seeds=(1,)), tmp_path / "out"
    ).results

    course = [epoch.validation_accuracy for epoch in result.epochs]
    assert course.count(max(course)) > 1  # ten rows: there are ties
    assert result.best_epoch == 1 + course.index(max(course)) < 40
    assert result.validation_accuracy == max(course) > course[-1]


@pytest.mark.parametrize("noise_std", [0.0, 0.5])
def test_the_saved_network_reproduces_every_reported_accuracy(
    tmp_path: Path, noise_std: float
) -> None:
    toy = examples((60, 10, 50))
    settings = config(
        model=MLP(hidden_dims=(8, 8), dropout=0.5, batch_norm=True),
        num_epochs=20,
        patience=None,
        noise_std=noise_std,
        seeds=(0, 1),
    )

    report = train_on_examples(toy, settings, tmp_path)

    for result in report.results:
        assert result.best_epoch < 20  # else any network would do
        for name in ("train", "validation", "test"):
            measured = accuracy(tmp_path, toy.splits[name], result.seed)
            assert measured == getattr(result, f"{name}_accuracy"), name


def test_patience_none_runs_all_epochs() -> None:
    (result,) = train_on_examples(
        examples((60, 10, 10)), config(num_epochs=30, patience=None)
    ).results

    assert len(result.epochs) == 30
    assert result.best_epoch < 15  # the default patience would have stopped it


def test_noise_changes_training() -> None:
    toy = examples((60, 20, 20))

    quiet = train_on_examples(toy, config(noise_std=0.0)).results[0]
    noisy = train_on_examples(toy, config(noise_std=0.5)).results[0]

    assert quiet.epochs[0].loss != noisy.epochs[0].loss


def test_test_labels_change_nothing_but_the_test_accuracy(tmp_path: Path) -> None:
    toy = examples((100, 30, 60), signal=6.0)
    shuffled = with_split(toy, "test", labels=1 - toy.splits["test"].labels)

    true = train_on_examples(toy, config(), tmp_path / "a")
    wrong = train_on_examples(shuffled, config(), tmp_path / "b")

    assert true.test_accuracy > 0.9
    assert wrong.test_accuracy == pytest.approx(1 - true.test_accuracy)
    assert dataclasses.replace(wrong.results[0], test_accuracy=0.0) == dataclasses.replace(
        true.results[0], test_accuracy=0.0
    )
    assert equal_states(saved_state(tmp_path / "a"), saved_state(tmp_path / "b"))


def test_test_rows_change_nothing_but_the_test_accuracy(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    moved = with_split(toy, "test", rows=toy.splits["test"].rows * 50 + 100)

    train_on_examples(toy, config(), tmp_path / "a")
    train_on_examples(moved, config(), tmp_path / "b")

    assert equal_states(saved_state(tmp_path / "a"), saved_state(tmp_path / "b"))


def test_normalisation_is_measured_on_the_training_split_alone(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    train = toy.splits["train"].rows

    train_on_examples(toy, config(), tmp_path)

    state = saved_state(tmp_path)
    means, stds = state["normalisation.mean"], state["normalisation.std"]
    exact = train.double().numpy()
    np.testing.assert_allclose(means[:2].numpy(), exact[:, :2].mean(), rtol=1e-6)
    np.testing.assert_allclose(means[2:].numpy(), exact[:, 2:].mean(), rtol=1e-6)
    np.testing.assert_allclose(stds[:2].numpy(), exact[:, :2].std(), rtol=1e-6)
    np.testing.assert_allclose(stds[2:].numpy(), exact[:, 2:].std(), rtol=1e-6)


def test_one_step_is_the_hand_computed_step_of_adamw(tmp_path: Path) -> None:
    toy = examples((40, 10, 10), num_classes=3)
    linear = MLP(hidden_dims=())
    rate, decay = 0.1, 0.5

    for name, learning_rate in (("start", 1e-12), ("end", rate)):
        settings = config(
            model=linear, learning_rate=learning_rate, weight_decay=decay, batch_size=40,
            num_epochs=1,
        )  # fmt: skip
        report = train_on_examples(toy, settings, tmp_path / name)
    start, end = saved_state(tmp_path / "start"), saved_state(tmp_path / "end")

    part = toy.splits["train"]
    x = (
        ((part.rows - start["normalisation.mean"]) / (start["normalisation.std"] + 1e-6))
        .double()
        .numpy()
    )
    kernel, bias = start["model.0.weight"].double().numpy(), start["model.0.bias"].double().numpy()
    logits = x @ kernel.T + bias
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = share - np.eye(3)[part.labels.numpy()]
    gradient = error.T @ x / 40
    # After one step of Adam both moments, bias-corrected, are the gradient and its square.
    expected = kernel * (1 - rate * decay) - rate * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(end["model.0.weight"].numpy(), expected, rtol=1e-4, atol=1e-5)
    loss = -np.log(share[np.arange(40), part.labels.numpy()]).mean()
    assert report.results[0].epochs[0].loss == pytest.approx(loss, rel=1e-5)


def test_amsgrad_is_passed_on() -> None:
    toy = examples((60, 20, 20))
    settings = {"learning_rate": 0.1, "num_epochs": 10, "patience": None}

    plain = train_on_examples(toy, config(amsgrad=False, **settings)).results[0]
    variant = train_on_examples(toy, config(amsgrad=True, **settings)).results[0]

    assert plain.epochs[-1].loss != variant.epochs[-1].loss


def test_a_last_batch_of_one_row_is_skipped_and_not_counted(tmp_path: Path) -> None:
    toy = examples((5, 4, 4))
    settings = config(
        model=MLP(hidden_dims=()), learning_rate=1e-12, weight_decay=0.0, batch_size=2,
        num_epochs=1,
    )  # fmt: skip

    loss = train_on_examples(toy, settings, tmp_path).results[0].epochs[0].loss

    part = toy.splits["train"]
    logits = load_classifier(tmp_path / "classifier-seed0.pt").logits(part.rows)
    losses = nn.functional.cross_entropy(logits, part.labels, reduction="none")
    means_without_one_row = [float(losses.sum() - losses[i]) / 4 for i in range(5)]
    assert min(abs(loss - mean) for mean in means_without_one_row) < 1e-6


def test_batch_norm_survives_a_last_batch_of_one_row() -> None:
    model = MLP(hidden_dims=(4, 4), batch_norm=True)

    report = train_on_examples(examples((9, 4, 4)), config(model=model, batch_size=4))

    assert all(math.isfinite(epoch.loss) for epoch in report.results[0].epochs)


def test_chance_and_majority_are_those_of_a_hand_count() -> None:
    toy = examples((6, 4, 5), num_classes=4)
    toy = with_split(toy, "train", labels=torch.tensor([1, 0, 2, 2, 2, 1]))
    toy = with_split(toy, "test", labels=torch.tensor([2, 0, 1, 1, 1]))

    report = train_on_examples(toy, config(num_epochs=1))

    assert report.chance_accuracy == 0.25  # four classes, also those that do not occur
    assert report.majority_accuracy == 0.2  # class 2 is the commonest in train, 1 of 5 in test


def test_the_report_says_what_was_trained_on_what() -> None:
    toy = dataclasses.replace(examples((30, 20, 10)), num_excluded=7)
    settings = config(num_epochs=1)

    report = train_on_examples(toy, settings)

    assert report.num_rows == {"train": 30, "validation": 20, "test": 10}
    assert report.num_parameters == 6 * 8 + 8 + 8 * 2 + 2
    assert report.num_excluded == 7
    assert report.dataset_digest == "d"
    assert report.name == "toy"
    assert report.config == settings
    assert report.seconds > 0


def test_progress_hears_of_every_epoch() -> None:
    heard = []

    report = train_on_examples(
        examples((30, 20, 10)), config(seeds=(5, 6)), on_epoch=lambda *news: heard.append(news)
    )

    assert heard == [
        (index, epoch, result.epochs[epoch - 1].validation_accuracy)
        for index, result in enumerate(report.results)
        for epoch in range(1, len(result.epochs) + 1)
    ]


def test_report_and_checkpoints_lie_in_the_given_folder(tmp_path: Path) -> None:
    report = train_on_examples(
        examples((30, 20, 10)), config(seeds=(0, 4), num_epochs=1), tmp_path / "a" / "b"
    )

    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert names == ["classifier-seed0.pt", "classifier-seed4.pt", "report.json"]
    stored = json.loads((tmp_path / "a" / "b" / "report.json").read_text())
    assert config_from_mapping(ClassifierReport, stored) == report


def test_nothing_is_written_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    train_on_examples(examples((30, 20, 10)), config(num_epochs=1))

    assert list(tmp_path.iterdir()) == []


def test_a_neural_dataset_is_trained_on_its_examples(fitted_digits: Path) -> None:
    dataset = load_neural_dataset(fitted_digits)
    settings = config(num_epochs=3)

    report = train_classifier(dataset, settings)

    assert report.results == train_on_examples(examples_from_dataset(dataset), settings).results
    assert report.num_rows == {"train": 180, "validation": 60, "test": 60}
    assert report.dataset_digest == dataset.entry.digest


def test_weights_of_fitted_digits_tell_the_classes_apart(fitted_digits: Path) -> None:
    report = train_classifier(
        load_neural_dataset(fitted_digits),
        config(model=MLP(hidden_dims=(64,), dropout=0.0), num_epochs=40),
    )

    assert report.test_accuracy > 2 * max(report.chance_accuracy, report.majority_accuracy)


def test_a_dataset_that_cannot_be_classified_is_refused_before_anything_is_written(
    fit_tiny: Any, tmp_path: Path
) -> None:
    dataset = fit_tiny([0, 1] * 4, [("train", 8)])

    with pytest.raises(TrainingError, match="no validation and no test split"):
        train_classifier(dataset, config(), tmp_path / "out")

    assert not (tmp_path / "out").exists()
