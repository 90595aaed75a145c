from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classifiers import (
    MLP,
    Augmentation,
    ClassifierConfig,
    ClassifierReport,
    Examples,
    examples_from_dataset,
    load_classifier,
    train_classifier,
    train_on_examples,
    train_regressor,
)
from classifiers.batch import FieldBatch
from classifiers.examples import LabelledRows
from classifiers.gauge_fixing import GaugeFixing, fix_gauge, reference_row
from classifiers.models import GNN
from classifiers.space import WeightSpace, space_of
from nefbench.config import config_from_mapping
from nefbench.errors import CheckpointError, Interrupted, TrainingError
from nefbench.fields import Siren
from nefbench.seeding import Draws
from nefbench.spec import ParamSpec, TensorSpec
from nefbench.weights import NeuralDataset, load_neural_dataset, read_manifest, write_manifest
from nefbench.weights.parts import read_part, write_part
from nefbench.weights.symmetries import act, random_element

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


def test_the_training_accuracy_of_an_epoch_is_of_the_rows_as_they_were_seen() -> None:
    # The network does not move, and sees rows as they are: any order of batches counts the same.
    still = config(learning_rate=1e-12, weight_decay=0.0, noise_std=0.0, num_epochs=2)
    data = examples((100, 20, 20), signal=1.0)

    (result,) = train_on_examples(data, still).results
    (noisy,) = train_on_examples(data, dataclasses.replace(still, noise_std=5.0)).results

    assert [epoch.train_accuracy for epoch in result.epochs] == [result.train_accuracy] * 2
    assert noisy.train_accuracy == result.train_accuracy
    assert noisy.epochs[0].train_accuracy != noisy.epochs[1].train_accuracy


def test_mixed_rows_have_no_training_accuracy() -> None:
    mixed = config(augmentation=Augmentation(mixup=0.5))

    (result,) = train_on_examples(examples((60, 20, 20)), mixed).results

    assert {epoch.train_accuracy for epoch in result.epochs} == {None}


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


def test_test_labels_change_nothing_but_the_test_results(tmp_path: Path) -> None:
    toy = examples((100, 30, 60), signal=6.0)
    shuffled = with_split(toy, "test", labels=1 - toy.splits["test"].labels)

    true = train_on_examples(toy, config(), tmp_path / "a")
    wrong = train_on_examples(shuffled, config(), tmp_path / "b")

    assert true.test_accuracy > 0.9
    assert wrong.test_accuracy == pytest.approx(1 - true.test_accuracy)
    for name in ("best_epoch", "train_accuracy", "validation_accuracy", "epochs"):
        assert getattr(wrong.results[0], name) == getattr(true.results[0], name), name
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


def test_the_accuracy_of_every_class_is_that_of_its_test_rows(tmp_path: Path) -> None:
    toy = examples((60, 20, 30), num_classes=4)
    toy = with_split(toy, "test", labels=torch.tensor([0] * 12 + [1] * 12 + [3] * 6))

    (result,) = train_on_examples(toy, config(), tmp_path).results

    test = toy.splits["test"]
    predicted = load_classifier(tmp_path / "classifier-seed0.pt").predict(test.rows)
    for label in (0, 1, 3):
        is_label = test.labels == label
        right = float((predicted == test.labels)[is_label].double().mean())
        assert result.class_accuracy[label] == pytest.approx(right)
    assert result.class_accuracy[2] is None
    assert sum(count for _, _, count in result.confusion) == 30


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
    assert report.access == "weights"
    assert report.class_names == ("0", "1")
    (timing,) = train_on_examples(toy, config(num_epochs=1, seeds=(0,))).timings
    assert len(timing.epoch_seconds) == 1
    assert 0 < timing.step_seconds < timing.epoch_seconds[0]
    assert timing.rows_per_s == pytest.approx(30 / timing.step_seconds)


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


# Rates, averages, precision


def test_the_rate_warms_up_and_falls_to_almost_nothing() -> None:
    # 60 rows in batches of 20: three steps per epoch, twelve in all.
    settings = config(
        batch_size=20, num_epochs=4, patience=None, warmup_steps=6, schedule="cosine",
        learning_rate=0.1,
    )  # fmt: skip

    (result,) = train_on_examples(examples((60, 20, 20)), settings).results

    # The last steps of the epochs are the steps 2, 5, 8, 11 from 0: 3/6, 6/6, then
    # (1 + cos(pi s)) / 2 with s = 2/6 and 5/6.
    expected = [0.05, 0.1, 0.1 * 0.75, 0.1 * (1 - math.sqrt(0.75)) / 2]
    assert [epoch.learning_rate for epoch in result.epochs] == pytest.approx(expected)


def test_the_gradient_is_cut_to_its_largest_norm(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    one_step = {"batch_size": 60, "num_epochs": 1, "weight_decay": 0.0}

    train_on_examples(toy, config(**one_step, learning_rate=1e-12), tmp_path / "start")
    train_on_examples(toy, config(**one_step, gradient_clip=1e-10), tmp_path / "cut")
    train_on_examples(toy, config(**one_step, gradient_clip=1e6), tmp_path / "loose")
    train_on_examples(toy, config(**one_step), tmp_path / "free")

    start, cut = (saved_state(tmp_path / name)["model.0.weight"] for name in ("start", "cut"))
    # A step of Adam is rate * g / (|g| + 1e-8): with |g| <= 1e-10 at most a hundredth of the rate.
    assert 0 < (cut - start).abs().max() < 1.01e-4
    assert equal_states(saved_state(tmp_path / "loose"), saved_state(tmp_path / "free"))


def test_what_is_kept_is_the_moving_average_of_the_parameters(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    settings = {"batch_size": 30, "num_epochs": 1, "learning_rate": 0.1}
    decay = 0.15  # above 1/10 and below 2/11: the second step has this decay, the first 1/10

    train_on_examples(toy, config(**settings | {"learning_rate": 1e-12}), tmp_path / "start")
    train_on_examples(toy, config(**settings, ema_decay=decay), tmp_path / "averaged")
    train_on_examples(toy, config(**settings), tmp_path / "end")

    start, averaged, end = (
        saved_state(tmp_path / name)["model.0.weight"] for name in ("start", "averaged", "end")
    )
    # a_1 = 0.1 start + 0.9 p_1, a_2 = 0.15 a_1 + 0.85 end; so p_1 can be read off, and the first
    # step of Adam moves every weight by the learning rate (and decays it by rate * 1e-2).
    first = (averaged - 0.85 * end - 0.15 * 0.1 * start) / (0.15 * 0.9)
    moved = (first - start * (1 - 0.1 * 1e-2)).abs()
    np.testing.assert_allclose(moved.numpy(), 0.1, rtol=1e-3)


def test_the_average_takes_the_running_statistics_of_the_network(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    model = MLP(hidden_dims=(4, 4), batch_norm=True, dropout=0.0)
    # Almost no learning: both networks see the same activations.
    settings = {"model": model, "learning_rate": 1e-12, "num_epochs": 1}

    train_on_examples(toy, config(**settings), tmp_path / "plain")
    train_on_examples(toy, config(**settings, ema_decay=0.9), tmp_path / "averaged")

    plain, averaged = saved_state(tmp_path / "plain"), saved_state(tmp_path / "averaged")
    assert torch.equal(plain["model.3.running_mean"], averaged["model.3.running_mean"])
    assert plain["model.3.running_mean"].abs().max() > 1e-3


def test_bfloat16_rounds_products_but_keeps_parameters_and_results_in_float32(
    tmp_path: Path,
) -> None:
    toy = examples((60, 20, 20), signal=6.0)

    exact = train_on_examples(toy, config(), tmp_path / "a").results[0]
    rounded = train_on_examples(toy, config(precision="bfloat16"), tmp_path / "b").results[0]

    assert rounded.epochs[0].loss != exact.epochs[0].loss
    # bfloat16 has 8 bits: three digits of a product
    assert rounded.epochs[0].loss == pytest.approx(exact.epochs[0].loss, rel=2e-2)
    assert all(value.dtype == torch.float32 for value in saved_state(tmp_path / "b").values())
    assert accuracy(tmp_path / "b", toy.splits["test"]) == rounded.test_accuracy


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_training_agrees_with_an_eager_one() -> None:
    toy = examples((64, 20, 20))
    # With dropout: compiled or not, the same units are dropped.
    settings = {"model": MLP(hidden_dims=(8,), dropout=0.5), "num_epochs": 2}

    eager = train_on_examples(toy, config(**settings)).results[0]
    compiled = train_on_examples(toy, config(**settings, compile=True)).results[0]

    for one, other in zip(compiled.epochs, eager.epochs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)  # float32, four steps of Adam


class ComplexSquare(nn.Sequential):
    """A linear map of the row, squared as a complex number: there are none of bfloat16."""

    def forward(self, batch: FieldBatch) -> Tensor:
        outputs: Tensor = super().forward(batch.normalised)
        return torch.complex(outputs, outputs).square().imag


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComplexModel:
    access: ClassVar[str] = "weights"
    normalisation: ClassVar[str] = "standardise"
    kind: str = "complex"

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        return ComplexSquare(nn.Linear(space.num_params, num_outputs))


def test_a_model_that_bfloat16_is_nothing_for_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = config(model=ComplexModel(), precision="bfloat16")

    with pytest.raises(TrainingError) as caught:
        train_on_examples(examples((60, 20, 20)), settings, tmp_path / "out")

    message = str(caught.value)
    assert message.startswith("precision = 'bfloat16': not possible with model 'complex' on cpu (")
    assert message.endswith("; leave it out")
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
    train_on_examples(examples((60, 20, 20)), config(model=ComplexModel(), num_epochs=1))


# Stop and continue


class Stop(Exception):  # noqa: N818 - no fault
    """Raised by a test in the middle of a training."""


def stop_after(seed_index: int, epoch: int, error: BaseException) -> Any:
    def follow(index: int, done: int, score: float) -> None:
        del score
        if (index, done) == (seed_index, epoch):
            raise error

    return follow


EVERYTHING: dict[str, Any] = {
    "model": MLP(hidden_dims=(8, 8), dropout=0.3, batch_norm=True),
    "noise_std": 0.1, "ema_decay": 0.9, "amsgrad": True, "warmup_steps": 3, "schedule": "cosine",
    "gradient_clip": 0.5, "num_epochs": 6, "patience": None, "seeds": (0, 1),
    "augmentation": Augmentation(dropout=0.1, mixup=0.3),
}  # fmt: skip


@pytest.mark.parametrize("place", [(0, 2), (0, 6), (1, 1), (1, 5)])
def test_a_training_that_was_stopped_ends_with_the_same_bits(
    tmp_path: Path, place: tuple[int, int]
) -> None:
    toy = examples((60, 20, 20))
    whole = train_on_examples(toy, config(**EVERYTHING), tmp_path / "whole")

    with pytest.raises(Stop):
        train_on_examples(
            toy, config(**EVERYTHING), tmp_path / "cut", on_epoch=stop_after(*place, Stop())
        )
    heard: list[tuple[int, int, float]] = []
    continued = train_on_examples(
        toy, config(**EVERYTHING), tmp_path / "cut", on_epoch=lambda *news: heard.append(news)
    )

    assert continued.results == whole.results
    for seed in (0, 1):
        assert equal_states(
            saved_state(tmp_path / "whole", seed), saved_state(tmp_path / "cut", seed)
        )
    done = place[0] * 6 + place[1]
    assert [news[:2] for news in heard] == [(i // 6, i % 6 + 1) for i in range(done, 12)]
    assert len(continued.timings[place[0]].epoch_seconds) == 6
    names = {path.name for path in (tmp_path / "cut").iterdir()}
    assert names == {"classifier-seed0.pt", "classifier-seed1.pt", "report.json"}


def test_ctrl_c_says_that_the_same_command_continues(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))

    with pytest.raises(Interrupted) as caught:
        train_on_examples(
            toy, config(seeds=(3, 4)), tmp_path, on_epoch=stop_after(1, 2, KeyboardInterrupt())
        )

    assert str(caught.value) == (
        "interrupted after 2 of 4 epochs of seed 4 (1 of 2 seeds are done): "
        f"the same command continues from the last state in {tmp_path}"
    )


def test_ctrl_c_without_a_folder_says_that_nothing_is_kept() -> None:
    with pytest.raises(Interrupted, match="nothing was kept"):
        train_on_examples(
            examples((60, 20, 20)), config(), on_epoch=stop_after(0, 2, KeyboardInterrupt())
        )


def test_a_finished_training_is_read_and_not_repeated(tmp_path: Path) -> None:
    toy = examples((60, 20, 20))
    first = train_on_examples(toy, config(), tmp_path)
    heard: list[Any] = []

    again = train_on_examples(toy, config(), tmp_path, on_epoch=lambda *news: heard.append(news))

    assert again == first
    assert heard == []


@pytest.mark.parametrize("stopped", [True, False])
def test_another_training_in_the_same_folder_is_refused_with_what_differs(
    tmp_path: Path, stopped: bool
) -> None:
    toy = examples((60, 20, 20))
    follow = stop_after(0, 2, Stop()) if stopped else lambda *_: None
    with pytest.raises(Stop) if stopped else contextlib.nullcontext():
        train_on_examples(toy, config(), tmp_path, on_epoch=follow)

    message = re.escape(
        f"{tmp_path} holds another training (batch_size 32, now 16); choose another folder with "
        f"--out, or delete it"
    )
    with pytest.raises(TrainingError, match=message):
        train_on_examples(toy, config(batch_size=16), tmp_path)
    with pytest.raises(TrainingError, match="of other fields"):
        train_on_examples(dataclasses.replace(toy, digest="e"), config(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_state_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "unfinished.pt").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"unfinished\.pt is damaged.*delete it to train"):
        train_on_examples(examples((60, 20, 20)), config(), tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_report_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)

    with pytest.raises(TrainingError, match=r"report\.json is damaged"):
        train_on_examples(examples((60, 20, 20)), config(), tmp_path)


# Canonical and aligned rows

SIREN = space_of(Siren(hidden_dim=3, num_layers=3, omega_0=9.0), 2, 1)


def moved_sirens(*, seed: int = 0) -> Examples:
    """Fields near one of two fields, each moved by symmetries of its own; the class is which."""
    generator = torch.Generator().manual_seed(9)
    centres = torch.randn(2, SIREN.num_params, generator=generator)
    centres[1] = centres[0] + 0.3 * centres[1]
    splits = {}
    for name, size in (("train", 80), ("validation", 40), ("test", 40)):
        labels = torch.randperm(size, generator=generator) % 2
        noise = torch.randn(size, SIREN.num_params, generator=generator)
        rows = (centres[labels] + 0.1 * noise).double()
        element = random_element(SIREN.spec, Draws(seed, tuple(range(size))), max_phase=3)
        splits[name] = LabelledRows(act(SIREN.spec, rows, element).float(), labels)
    return Examples("sirens", SIREN, ("0", "1"), splits, 0, f"d{seed}")


def saved_reference(folder: Path) -> Tensor:
    reference = load_classifier(folder / "classifier-seed0.pt").reference
    assert reference is not None
    return reference


def test_classes_that_symmetries_hide_are_learned_from_aligned_rows() -> None:
    settings = {"num_epochs": 20, "patience": None}

    raw = train_on_examples(moved_sirens(), config(**settings))
    canonical = train_on_examples(moved_sirens(), config(**settings, gauge_fixing="canonical"))
    aligned = train_on_examples(moved_sirens(), config(**settings, gauge_fixing="aligned"))

    assert raw.test_accuracy < 0.8
    assert canonical.test_accuracy > 0.85
    assert aligned.test_accuracy > 0.85


@pytest.mark.parametrize("kind", ["canonical", "aligned"])
def test_training_on_rows_that_are_in_the_form_already_is_the_same(
    tmp_path: Path, kind: GaugeFixing
) -> None:
    toy = moved_sirens()
    reference = reference_row(SIREN, toy.splits["train"].rows)
    fixed = toy
    for name, part in toy.splits.items():
        fixed = with_split(fixed, name, rows=fix_gauge(kind, SIREN, part.rows, reference))

    report = train_on_examples(toy, config(gauge_fixing=kind), tmp_path / "raw")
    by_hand = train_on_examples(fixed, config(), tmp_path / "fixed")

    assert report.results == by_hand.results
    assert equal_states(saved_state(tmp_path / "raw"), saved_state(tmp_path / "fixed"))
    for name in ("train", "validation", "test"):  # of the rows as they were given
        measured = accuracy(tmp_path / "raw", toy.splits[name])
        assert measured == getattr(report.results[0], f"{name}_accuracy"), name


@pytest.mark.parametrize("kind", ["canonical", "aligned"])
def test_symmetries_of_the_dataset_change_neither_training_nor_predictions(
    tmp_path: Path, kind: GaugeFixing
) -> None:
    toy, other = moved_sirens(seed=0), moved_sirens(seed=1)
    settings = config(gauge_fixing=kind)

    first = train_on_examples(toy, settings, tmp_path / "a").results[0]
    second = train_on_examples(other, settings, tmp_path / "b").results[0]

    # The rows are float32, and were moved in it: six digits agree.
    for one, two in zip(first.epochs, second.epochs, strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-4)
    test, other_test = toy.splits["test"].rows, other.splits["test"].rows
    assert float((test - other_test).abs().amax(1).min()) > 0.1
    for name in "ab":
        classifier = load_classifier(tmp_path / name / "classifier-seed0.pt")
        torch.testing.assert_close(
            classifier.logits(test), classifier.logits(other_test), rtol=1e-3, atol=1e-3
        )
        assert torch.equal(classifier.predict(test), classifier.predict(other_test))


def test_the_reference_is_found_from_training_rows_alone(tmp_path: Path) -> None:
    toy = moved_sirens()
    changed = with_split(toy, "validation", rows=5 * toy.splits["validation"].rows + 1)
    changed = with_split(changed, "test", rows=7 * toy.splits["test"].rows - 3)
    settings = config(gauge_fixing="aligned", num_epochs=1)

    train_on_examples(toy, settings, tmp_path / "a")
    train_on_examples(changed, settings, tmp_path / "b")

    expected = reference_row(SIREN, toy.splits["train"].rows)
    assert torch.equal(saved_reference(tmp_path / "a"), expected)
    assert torch.equal(saved_reference(tmp_path / "b"), expected)
    assert equal_states(saved_state(tmp_path / "a"), saved_state(tmp_path / "b"))


@pytest.mark.parametrize("place", [(0, 2), (0, 6), (1, 5)])
def test_a_training_on_aligned_rows_that_was_stopped_ends_with_the_same_bits(
    tmp_path: Path, place: tuple[int, int]
) -> None:
    toy, settings = moved_sirens(), config(**EVERYTHING, gauge_fixing="aligned")
    whole = train_on_examples(toy, settings, tmp_path / "whole")

    with pytest.raises(Stop):
        train_on_examples(toy, settings, tmp_path / "cut", on_epoch=stop_after(*place, Stop()))
    continued = train_on_examples(toy, settings, tmp_path / "cut")

    assert continued.results == whole.results
    assert torch.equal(saved_reference(tmp_path / "whole"), saved_reference(tmp_path / "cut"))
    for seed in (0, 1):
        assert equal_states(
            saved_state(tmp_path / "whole", seed), saved_state(tmp_path / "cut", seed)
        )


def test_rows_are_aligned_once_for_all_seeds_and_not_again_when_all_is_done(
    tmp_path: Path,
) -> None:
    toy, settings = moved_sirens(), config(seeds=(0, 1), num_epochs=1, gauge_fixing="aligned")
    heard: list[tuple[str, int, int]] = []

    def hear(what: str, done: int, total: int) -> None:
        heard.append((what, done, total))

    first = train_on_examples(toy, settings, tmp_path, on_fixed=hear)

    assert heard == [
        *(("reference", 80 * number, 400) for number in range(6)),
        *(("aligned", done, 160) for done in (0, 80, 80, 120, 120, 160)),
    ]
    assert train_on_examples(toy, settings, tmp_path, on_fixed=hear) == first
    assert len(heard) == 12


def test_coordinates_are_moved_after_alignment_and_in_training_alone() -> None:
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "gauge_fixing": "aligned"}
    geometric = Augmentation(rotation=30.0, translation=0.2, flip=True)

    plain = train_on_examples(moved_sirens(), config(**still)).results[0]
    changed = train_on_examples(moved_sirens(), config(**still, augmentation=geometric)).results[0]

    assert changed.epochs[0].loss != plain.epochs[0].loss
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy", "calibration"):
        assert getattr(changed, name) == getattr(plain, name), name


@pytest.mark.parametrize("kind", ["canonical", "aligned"])
def test_plain_values_have_no_form_and_nothing_is_written(
    tmp_path: Path, kind: GaugeFixing
) -> None:
    with pytest.raises(TrainingError) as caught:
        train_on_examples(examples((60, 20, 20)), config(gauge_fixing=kind), tmp_path / "out")

    assert str(caught.value) == (
        f"gauge_fixing = '{kind}': plain values have no symmetries; leave it out"
    )
    assert not (tmp_path / "out").exists()


# Regression


@pytest.fixture
def measured_fields(fit_tiny: Any) -> NeuralDataset:
    """Normal rows with two properties, of which the first is linear in the weights."""
    dataset = fit_tiny(None, [("train", 60), ("validation", 20), ("test", 20)])
    return with_properties(dataset)


def with_properties(dataset: NeuralDataset) -> NeuralDataset:
    """Declare and fill two properties, with other weights; the parts are written again."""
    entry = dataclasses.replace(dataset.entry, properties=("level", "noise"))
    parts = []
    for part in dataset.entry.parts:
        rows = read_part(dataset.folder, dataset.name, dataset.entry, part)
        generator = torch.Generator().manual_seed(part.start)
        weights = torch.randn(rows.weights.shape, generator=generator)
        level = 100 + 7 * weights.double() @ torch.arange(weights.shape[1]).double()
        properties = {
            "level": level,
            "noise": torch.rand(len(rows), dtype=torch.float64, generator=generator),
        }
        rows = dataclasses.replace(rows, weights=weights, properties=properties)
        parts.append(write_part(dataset.folder, dataset.name, entry, part.split, part.start, rows))
    entry = dataclasses.replace(entry, parts=tuple(parts))
    manifest = read_manifest(dataset.folder).with_config(dataset.name, entry)
    write_manifest(dataset.folder, manifest)
    return load_neural_dataset(dataset.folder)


def test_a_property_that_is_linear_in_the_weights_is_learned_in_its_own_unit(
    measured_fields: NeuralDataset, tmp_path: Path
) -> None:
    dataset = measured_fields
    settings = config(
        model=MLP(hidden_dims=()), target=("level", "noise"), num_epochs=80, learning_rate=5e-2,
        weight_decay=0.0, patience=None,
    )  # fmt: skip

    report = train_regressor(dataset, settings, tmp_path / "out")

    level, noise = report.results[0].properties
    assert (level.name, noise.name) == ("level", "noise")
    assert level.r2 > 0.95
    assert noise.r2 < 0.5
    classifier = load_classifier(tmp_path / "out" / "classifier-seed0.pt")
    rows = dataset.split("test")
    predicted = classifier.predict(rows.weights)
    assert predicted.shape == (20, 2)
    error = predicted[:, 0] - rows.properties["level"]
    assert float(error.abs().mean()) == pytest.approx(level.mae, rel=1e-6)
    assert float(error.square().mean().sqrt()) == pytest.approx(level.rmse, rel=1e-6)
    assert classifier.property_names == ("level", "noise")
    # The epoch is the first with the highest validation R2, averaged over both properties.
    course = [epoch.validation_r2 for epoch in report.results[0].epochs]
    assert report.results[0].best_epoch == 1 + course.index(max(course))
    assert report.results[0].test_r2 == pytest.approx((level.r2 + noise.r2) / 2)
    spread = (rows.properties["level"] - dataset.split("train").properties["level"].mean()).abs()
    assert report.baseline[0].mae == pytest.approx(float(spread.mean()))
    assert train_regressor(dataset, settings, tmp_path / "out") == report


def test_a_regression_that_was_stopped_ends_with_the_same_results(
    measured_fields: NeuralDataset, tmp_path: Path
) -> None:
    dataset = measured_fields
    settings = config(target="level", augmentation=Augmentation(mixup=0.5))
    whole = train_regressor(dataset, settings, tmp_path / "whole")

    with pytest.raises(Stop):
        train_regressor(dataset, settings, tmp_path / "cut", on_epoch=stop_after(0, 2, Stop()))

    assert train_regressor(dataset, settings, tmp_path / "cut").results == whole.results


def test_predictions_that_are_never_finite_are_an_error_with_the_remedy(
    measured_fields: NeuralDataset,
) -> None:
    settings = config(
        target="level", learning_rate=1e38, num_epochs=2, model=MLP(hidden_dims=(4, 4))
    )

    with pytest.raises(TrainingError, match="no epoch gave finite predictions; lower learning_r"):
        train_regressor(measured_fields, settings)


def test_classes_and_properties_are_not_mixed_up(
    measured_fields: NeuralDataset, fitted_digits: Path
) -> None:
    with pytest.raises(TrainingError, match=r"target 'level' is no class: use train_regressor"):
        train_classifier(measured_fields, config(target="level"))
    with pytest.raises(TrainingError, match=r"target 'class' is no property: use train_classif"):
        train_regressor(load_neural_dataset(fitted_digits), config())
    with pytest.raises(TrainingError, match="has no property 'levl'; did you mean 'level'"):
        train_regressor(measured_fields, config(target="levl"))


def test_a_model_that_cannot_read_the_fields_says_so_before_rows_are_aligned() -> None:
    def no_progress(*_: object) -> None:
        raise AssertionError("rows were aligned")

    settings = config(model=GNN(num_steps=1), gauge_fixing="aligned")

    with pytest.raises(TrainingError, match="does not see the first layers"):
        train_on_examples(moved_sirens(), settings, on_fixed=no_progress)
