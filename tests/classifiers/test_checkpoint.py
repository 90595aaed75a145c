from __future__ import annotations

import json
import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from classifiers import MLP, ClassifierConfig, TrainedClassifier, load_classifier, save_classifier
from classifiers.checkpoint import FORMAT_VERSION, checkpoint_name
from classifiers.gauge_fixing import GaugeFixing, reference_row
from classifiers.reader import build_reader
from classifiers.space import space_of, space_of_values
from nefbench.errors import CheckpointError, TrainingError
from nefbench.fields import Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

SPACE = space_of_values((5,))


@pytest.fixture
def classifier() -> TrainedClassifier:
    """Read rows of 5 weights, three classes; all numbers away from their defaults."""
    model = MLP(hidden_dims=(4, 4), batch_norm=True, dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_reader(model, SPACE, 3)
        network.normalisation.measure(torch.randn(20, 5) * 3 + 1)
        network(torch.randn(16, 5))  # moves the running statistics of batch normalisation
        last = network.model[-1]  # type: ignore[index]
        last.bias.data.zero_()  # so that not all rows get the same class
    config = ClassifierConfig(model=model, patience=None, seeds=(9,))
    return TrainedClassifier(network, config, SPACE, ("a", "b", "c"), "digest")


@pytest.fixture
def saved(classifier: TrainedClassifier, tmp_path: Path) -> Path:
    save_classifier(classifier, tmp_path / "c.pt")
    return tmp_path / "c.pt"


@pytest.fixture
def change(saved: Path) -> Callable[[Callable[[dict[str, Any], dict[str, Any]], Any]], Path]:
    """Rewrite the checkpoint after a function has changed its header and its state."""

    def apply(edit: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
        content = torch.load(saved, weights_only=True)
        header = json.loads(content["header"])
        edit(header, content["state"])
        torch.save({"header": json.dumps(header), "state": content["state"]}, saved)
        return saved

    return apply


def rows(count: int, width: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


class MakesFolder:
    """A pickle of this makes a folder when code in pickles is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_loaded_classifier_gives_the_same_bits(
    classifier: TrainedClassifier, saved: Path
) -> None:
    loaded = load_classifier(saved)

    assert torch.equal(loaded.logits(rows(7)), classifier.logits(rows(7)))
    assert loaded.config == classifier.config
    assert loaded.space == classifier.space
    assert loaded.class_names == classifier.class_names
    assert loaded.dataset_digest == classifier.dataset_digest


def test_a_checkpoint_may_be_named_by_a_string(saved: Path) -> None:
    assert load_classifier(str(saved)).class_names == ("a", "b", "c")


def test_saving_twice_replaces_the_file_and_leaves_no_other(
    classifier: TrainedClassifier, saved: Path
) -> None:
    save_classifier(classifier, saved)

    assert [path.name for path in saved.parent.iterdir()] == ["c.pt"]


def test_the_file_name_holds_the_seed() -> None:
    assert checkpoint_name(12) == "classifier-seed12.pt"


def test_scoring_switches_dropout_and_batch_statistics_off(classifier: TrainedClassifier) -> None:
    classifier.network.train()

    together = classifier.logits(rows(6))
    alone = torch.cat([classifier.logits(row[None]) for row in rows(6)])

    assert torch.equal(together, classifier.logits(rows(6)))
    torch.testing.assert_close(together, alone)  # other batch shapes may round differently
    assert not together.requires_grad


def test_the_prediction_is_the_class_with_the_highest_score(classifier: TrainedClassifier) -> None:
    logits = classifier.logits(rows(50))

    predicted = classifier.predict(rows(50))

    assert predicted.dtype == torch.int64
    assert predicted.tolist() == [row.index(max(row)) for row in logits.tolist()]
    assert len(set(predicted.tolist())) > 1


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (5,), (1, 2, 5)])
def test_rows_of_another_shape_are_refused(
    classifier: TrainedClassifier, shape: tuple[int, ...]
) -> None:
    with pytest.raises(TrainingError, match="reads rows of 5 weights") as caught:
        classifier.logits(torch.zeros(shape))

    assert f"(got shape {shape})" in str(caught.value)


def test_fields_of_another_architecture_are_refused_with_both_named(fit_tiny: Any) -> None:
    dataset = fit_tiny([0, 1] * 6, [("train", 6), ("validation", 3), ("test", 3)])
    space = space_of(Siren(hidden_dim=2, num_layers=2, omega_0=15.0), 2, 1)
    model = MLP(hidden_dims=())
    other = TrainedClassifier(
        build_reader(model, space, 2), ClassifierConfig(model=model), space, ("0", "1"), "d"
    )

    with pytest.raises(TrainingError) as caught:  # the rows are of the same length
        other.predict_dataset(dataset, "test")

    message = str(caught.value)
    assert "\n" not in message
    assert re.search(r"reads siren fields with 2 inputs and 1 outputs \(.*omega_0 15.0", message)
    assert re.search(r"tiny \(siren-h2-shared\) holds siren .*omega_0 30.0", message)


def test_a_split_of_the_right_fields_is_predicted(fit_tiny: Any) -> None:
    dataset = fit_tiny([0, 1] * 6, [("train", 6), ("validation", 3), ("test", 3)])
    space = space_of(Siren(hidden_dim=2, num_layers=2), 2, 1)
    model = MLP(hidden_dims=())
    right = TrainedClassifier(
        build_reader(model, space, 2), ClassifierConfig(model=model), space, ("0", "1"), "d"
    )

    predicted = right.predict_dataset(dataset, "test")

    assert torch.equal(predicted, right.predict(dataset.split("test").weights))


# Canonical and aligned rows

SIREN = space_of(Siren(hidden_dim=3, num_layers=3, omega_0=9.0), 2, 1)


@pytest.fixture
def reads_fixed_rows(tmp_path: Path) -> Callable[[GaugeFixing], Path]:
    """Save a classifier of fields in a form; its numbers are arbitrary."""

    def save(kind: GaugeFixing) -> Path:
        torch.manual_seed(0)
        model = MLP(hidden_dims=())
        network = build_reader(model, SIREN, 3)
        config = ClassifierConfig(model=model, gauge_fixing=kind)
        reference = reference_row(SIREN, siren_rows()) if kind == "aligned" else None
        names = ("a", "b", "c")
        trained = TrainedClassifier(network, config, SIREN, names, "d", reference=reference)
        save_classifier(trained, tmp_path / "fixed.pt")
        return tmp_path / "fixed.pt"

    return save


def siren_rows() -> torch.Tensor:
    return torch.randn(20, SIREN.num_params, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("kind", ["canonical", "aligned"])
def test_rows_moved_by_symmetries_are_read_as_the_same(
    reads_fixed_rows: Any, kind: GaugeFixing
) -> None:
    loaded = load_classifier(reads_fixed_rows(kind))
    loaded.network.double()
    element = random_element(SIREN.spec, Draws(0, tuple(range(20))), max_phase=5)
    moved = act(SIREN.spec, siren_rows(), element)

    logits = loaded.logits(siren_rows())

    torch.testing.assert_close(loaded.logits(moved), logits, rtol=1e-9, atol=1e-9)
    assert torch.equal(loaded.predict(moved), loaded.predict(siren_rows()))
    assert not torch.allclose(loaded.network(moved), loaded.network(siren_rows()))
    assert loaded.logits(siren_rows()[:0]).shape == (0, 3)


def test_the_reference_comes_back_with_its_bits(reads_fixed_rows: Any) -> None:
    loaded = load_classifier(reads_fixed_rows("aligned"))

    assert loaded.reference is not None
    assert torch.equal(loaded.reference, reference_row(SIREN, siren_rows()))
    assert load_classifier(reads_fixed_rows("canonical")).reference is None


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("aligned", None),
        ("aligned", torch.zeros(4)),
        ("aligned", "text"),
        ("canonical", torch.zeros(SIREN.num_params)),
    ],
)
def test_a_reference_that_does_not_fit_the_header_is_refused(
    reads_fixed_rows: Any, kind: GaugeFixing, reference: Any
) -> None:
    path = reads_fixed_rows(kind)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "reference": reference}, path)

    with pytest.raises(CheckpointError, match=r"fixed\.pt does not fit its own header"):
        load_classifier(path)


# What is no row, or no checkpoint


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_refused(classifier: TrainedClassifier, value: float) -> None:
    bad = rows(4)
    bad[1, 2] = bad[3, 0] = bad[3, 1] = value

    with pytest.raises(TrainingError, match="2 of 4 rows hold NaN or infinite weights"):
        classifier.predict(bad)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such checkpoint: .*nothing\.pt"):
        load_classifier(tmp_path / "nothing.pt")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04 not really", b"\x80\x02.", b"\x80\x04N."]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.pt").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"c\.pt is not a classifier checkpoint, or damaged"):
        load_classifier(tmp_path / "c.pt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_checkpoint_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(CheckpointError, match="is not a classifier checkpoint, or damaged"):
        load_classifier(saved)


@pytest.mark.parametrize(
    "content",
    [None, 5, [1, 2], torch.zeros(3), {}, {"header": 5}, {"header": "no json"}, {"header": "[]"},
     {"header": "{}"}, {"header": '{"format_version": null}'}],
)  # fmt: skip
def test_tensors_that_were_saved_for_another_purpose_are_refused(
    tmp_path: Path, content: Any
) -> None:
    torch.save(content, tmp_path / "c.pt")

    with pytest.raises(CheckpointError, match="is not a classifier checkpoint, or damaged"):
        load_classifier(tmp_path / "c.pt")


@pytest.mark.parametrize("form", ["plain pickle", "archive", "legacy", "in the header"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    trap = MakesFolder(tmp_path / "trap")
    if form == "plain pickle":
        (tmp_path / "c.pt").write_bytes(pickle.dumps(trap))
    else:
        content = {"header": trap, "state": {}} if form == "in the header" else trap
        torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=form != "legacy")

    with pytest.raises(CheckpointError, match="is not a classifier checkpoint"):
        load_classifier(tmp_path / "c.pt")

    assert not (tmp_path / "trap").exists()
    # The trap works: whoever unpickles it runs it.
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "trap").exists()


def test_an_older_format_asks_for_another_training(change: Any) -> None:
    path = change(lambda header, _: header.update(format_version=1))

    with pytest.raises(CheckpointError, match=r"format version 1, .*train it again"):
        load_classifier(path)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "4"])
def test_a_newer_format_asks_for_an_upgrade(change: Any, version: Any) -> None:
    path = change(lambda header, _: header.update(format_version=version))

    with pytest.raises(CheckpointError, match="format version 4, this nefbench reads up to 3"):
        load_classifier(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda header, _: header.update(class_names=["a", "b"]),
        lambda header, _: header.update(space={"num_values": 6}),
        lambda header, _: header.update(space={"num_values": "many"}),
        lambda header, _: header.update(space=5),
        lambda header, _: header["config"]["model"].update(hidden_dims=[4, 5]),
        lambda header, _: header["config"]["model"].update(hidden_dims=[4]),
        lambda header, _: header["config"]["model"].update(kind="gnn"),
        lambda header, _: header["config"].update(batch_size=0),
        lambda header, _: header["config"].update(unknown=1),
        lambda header, _: header.pop("dataset_digest"),
        lambda header, _: header.update(property_names=["a", "b", "c"]),
        lambda _, state: state.pop("normalisation.mean"),
        lambda _, state: state.update({"model.0.weight": torch.zeros(4, 6)}),
        lambda _, state: state.update({"model.0.weight": "text"}),
    ],
)
def test_a_header_and_a_state_that_do_not_fit_are_refused(change: Any, edit: Any) -> None:
    path = change(edit)

    with pytest.raises(CheckpointError, match=r"c\.pt does not fit its own header"):
        load_classifier(path)
