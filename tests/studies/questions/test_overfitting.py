from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from classifiers import MLP, ClassifierConfig
from studies.design import StudyConfig
from studies.questions import Answer, Evidence
from studies.questions.overfitting import overfitting_and_size
from studies.run import run_study
from studies.space import Choice, ClassifierSpace
from studies.storage import JOURNAL_NAME, load_study, open_storage
from studies.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


def test_classifiers_of_one_dataset_are_compared_with_their_curves(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    fit = dataclasses.replace(tiny_study.fields["siren"], space={"num_steps": Choice(values=(30,))})
    sizes = {"large": (256, 256), "small": (2,)}
    config = dataclasses.replace(
        tiny_study,
        fields={"siren": fit},
        classifiers={
            name: ClassifierSpace(
                classifier=ClassifierConfig(
                    model=MLP(hidden_dims=dims, dropout=0.0),
                    num_epochs=25,
                    learning_rate=3e-3,
                    noise_std=0.0,
                    seeds=(0,),
                    batch_size=16,
                )
            )
            for name, dims in sizes.items()
        },
    )
    results = {result.classifier: result for result in run_study(config, tmp_path).results}
    study, _ = load_study(None, open_storage(str(tmp_path / JOURNAL_NAME)))
    store = Store(tmp_path / "store")

    answer = overfitting_and_size(Evidence(list(results.values()), study, store, True))

    assert isinstance(answer, Answer)
    for row, name in zip(answer.rows, ("small", "large"), strict=True):
        assert row[:3] == (name, "mlp", results[name].num_parameters)
        gap = results[name].train_accuracy - results[name].test_accuracy
        assert row[6] == pytest.approx(gap, abs=5e-4)
        drawn = [line for line in answer.drawn if line[0] == name]
        folder = store.training_folder(results[name].training)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert [line[4:] for line in drawn] == [
            (epoch["train_accuracy"], epoch["validation_accuracy"])
            for epoch in report["results"][0]["epochs"]
        ]
        learned = [line[3] for line in drawn if line[4] >= 0.9]
        assert row[7] == (learned[0] if learned else None)
    assert answer.rows[0][7] is None
    assert isinstance(answer.rows[1][7], int)
