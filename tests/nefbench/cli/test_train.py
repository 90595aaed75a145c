from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from classifiers import ClassifierReport, load_classifier
from nefbench.config import config_from_mapping
from nefbench.weights import load_neural_dataset

QUICK = [
    "--set", "model.hidden_dims=[8]", "--set", "num_epochs=3", "--set", "seeds=[0, 1]",
]  # fmt: skip


@pytest.fixture
def train(nefbench: Any, fitted_digits: Path) -> Callable[..., Any]:
    """Run ``nefbench train`` on 300 fitted digits, quickly."""
    return lambda *more: nefbench("train", fitted_digits, *QUICK, *more)


def test_the_table_holds_every_seed_their_mean_chance_and_majority(train: Any) -> None:
    outcome = train("--out", "c")

    assert outcome.code == 0
    report = config_from_mapping(ClassifierReport, json.loads(Path("c/report.json").read_text()))
    lines = outcome.out.splitlines()
    assert lines[0] == "rows     180 train, 60 validation, 60 test"
    # 105*8+8 + 8*10+10
    assert lines[1].startswith("mlp, 938 parameters, on ")
    table = [line.split() for line in lines[3:8]]
    for words, result in zip(table[:2], report.results, strict=True):
        assert words == [
            "seed", str(result.seed), str(result.best_epoch), f"{result.train_accuracy:.4f}",
            f"{result.validation_accuracy:.4f}", f"{result.test_accuracy:.4f}",
        ]  # fmt: skip
    assert table[2][0] == "mean"
    assert table[2][-3:] == [
        f"{report.test_accuracy:.4f}", "±", f"{report.test_accuracy_sd:.4f}",
    ]  # fmt: skip
    assert table[3] == ["chance", "0.1000"]
    assert table[4] == ["majority", "class", f"{report.majority_accuracy:.4f}"]
    assert lines[-1] == "wrote    c: report.json and one checkpoint per seed"


def test_a_short_training_is_silent_on_stderr(train: Any) -> None:
    assert train("--out", "c").err == ""


def test_the_checkpoints_can_be_loaded_and_give_the_printed_accuracy(
    train: Any, fitted_digits: Path
) -> None:
    outcome = train("--out", "c", "--json")

    test = load_neural_dataset(fitted_digits).split("test")
    assert test.labels is not None
    for result in json.loads(outcome.out)["results"]:
        classifier = load_classifier(f"c/classifier-seed{result['seed']}.pt")
        accuracy = (classifier.predict(test.weights) == test.labels).double().mean()
        assert float(accuracy) == result["test_accuracy"]


def test_json_is_the_report_with_its_folder(train: Any) -> None:
    outcome = train("--out", "c", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    printed = json.loads(outcome.out)
    assert printed.pop("folder") == "c"
    assert printed == json.loads(Path("c/report.json").read_text())
    assert printed["num_rows"] == {"train": 180, "validation": 60, "test": 60}
    assert printed["chance_accuracy"] == 0.1
    assert printed["config"]["model"]["hidden_dims"] == [8]
    assert len(printed["results"]) == 2


def test_quiet_leaves_the_result_and_nothing_on_stderr(train: Any) -> None:
    outcome = train("--out", "c", "--quiet")

    assert outcome.err == ""
    assert outcome.out.startswith("rows     180 train")


def test_the_default_folder_is_named_after_dataset_config_and_preset(
    train: Any, tmp_path: Path
) -> None:
    outcome = train("--classifier", "mlp-64")

    folder = "runs/digits-siren-h8-shared-mlp-64"
    assert outcome.out.splitlines()[-1].startswith(f"wrote    {folder}: ")
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [
        "classifier-seed0.pt", "classifier-seed1.pt", "report.json",
    ]  # fmt: skip


def test_a_classifier_may_be_described_in_a_file(nefbench: Any, fitted_digits: Path) -> None:
    Path("linear.toml").write_text(
        "num_epochs = 1\nseeds = [7]\n[model]\nkind = 'mlp'\nhidden_dims = []\n"
    )

    outcome = nefbench("train", fitted_digits, "--classifier", "linear.toml", "--json")

    printed = json.loads(outcome.out)
    assert printed["folder"] == "runs/digits-siren-h8-shared-linear"
    assert printed["num_parameters"] == 105 * 10 + 10
    assert [result["seed"] for result in printed["results"]] == [7]


def test_the_same_command_gives_the_same_results(train: Any) -> None:
    first, second = (json.loads(train("--out", out, "--json").out) for out in "ab")

    assert first["results"] == second["results"]


def test_a_process_trains_without_a_word_on_stderr(process: Any, fitted_digits: Path) -> None:
    outcome = process("train", fitted_digits, *QUICK, "--out", "c")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == "wrote    c: report.json and one checkpoint per seed"


def test_diverged_fields_are_left_out_and_counted(
    nefbench: Any, digits_copy: Path, rewrite_rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite_rows(
        digits_copy, "test",
        lambda rows: dataclasses.replace(rows, status=("diverged",) * 3 + rows.status[3:]),
    )  # fmt: skip

    outcome = nefbench("train", "digits", *QUICK, "--out", "c")

    first = "rows     180 train, 60 validation, 57 test; 3 diverged left out"
    assert outcome.out.splitlines()[0] == first
    assert "3 diverged field(s) left out" in caplog.text


# Wrong requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classifier", "mpl"], "no preset 'mpl'; did you mean 'mlp'?; presets: mlp, mlp-32, ml"),
        (["--classifier", "nope.toml"], "cannot read nope.toml: No such file or directory"),
        (["--set", "num_epoch=1"], "unknown key 'num_epoch'; did you mean 'num_epochs'?"),
        (["--set", "model.kind=gnn"], "model.kind: "),
        (["--set", "model.hidden_dims=[0]"], "model: expected hidden_dims >= 1 (got (0,))"),
        (["--set", "batch_size=1"], "expected batch_size >= 2 (got 1)"),
        (["--set", "seeds=[1, 1]"], "expected seeds that differ and are >= 0 (got (1, 1))"),
        (["--config", "siren-h8-sharde"], "* has no config 'siren-h8-sharde'; did you mean 'siren"),
        (["--device", "nonsense"], "--device: expected cpu, cuda or cuda:N (got 'nonsense')"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_no_folder(
    train: Any, tmp_path: Path, fitted_digits: Path, arguments: list[str], message: str
) -> None:
    outcome = train(*arguments)

    assert outcome.error.startswith(message.replace("*", str(fitted_digits)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused(train: Any) -> None:
    outcome = train("--device", "cuda")

    assert outcome.error == "--device cuda: this machine has no usable CUDA device"


def test_a_folder_that_is_no_neural_dataset_is_refused(
    nefbench: Any, unusable: tuple[Path, str]
) -> None:
    folder, message = unusable

    assert nefbench("train", folder).error.startswith(message)


def test_a_damaged_part_is_refused_with_the_command_that_repairs_it(
    nefbench: Any, damaged: tuple[Path, str, str]
) -> None:
    folder, message, remedy = damaged

    error = nefbench("train", folder).error

    assert error.startswith(message)
    assert error.endswith(f"fit this part again with: nefbench {remedy}")


def test_one_of_several_configs_has_to_be_chosen(
    nefbench: Any, tiny: Path, tiny_settings: list[str]
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", tiny, "--set", "name=other")

    assert nefbench("train", tiny).error == (
        "tiny holds several configs (siren-h2-shared, other); choose one with --config"
    )


def test_an_unfinished_dataset_is_refused_with_the_command_that_continues(
    nefbench: Any, tiny_settings: list[str]
) -> None:
    nefbench("fit", "digits-siren", *tiny_settings, "--out", "d", "--only", "0:10")

    assert nefbench("train", "d").error == (
        "d (siren-h2-shared) is not finished: 10 of 40 fields; "
        "continue with: nefbench fit d --config siren-h2-shared"
    )


def test_fields_without_labels_are_refused(nefbench: Any, fit_tiny: Any) -> None:
    fit_tiny(None, [("train", 6), ("validation", 3), ("test", 3)])

    assert nefbench("train", "tiny").error == (
        "tiny (siren-h2-shared) has no labels; a classifier needs signals with classes"
    )


def test_a_class_with_one_member_is_refused(nefbench: Any, fit_tiny: Any) -> None:
    fit_tiny([0, 0, 1, 1, 1, 2, 0, 1, 0, 1], [("train", 6), ("validation", 2), ("test", 2)])

    assert nefbench("train", "tiny").error == (
        "tiny (siren-h2-shared): class '2' has 1 member(s) in the training split, at least 2 are "
        "needed; leave the class out or add signals"
    )


def test_a_missing_split_is_refused(nefbench: Any, fit_tiny: Any) -> None:
    fit_tiny([0, 0, 1, 1], [("train", 4)])

    assert nefbench("train", "tiny").error.startswith(
        "tiny (siren-h2-shared) has no validation and no test split; a classifier is fitted on"
    )


def test_nan_weights_are_refused_with_their_positions(
    nefbench: Any, digits_copy: Path, rewrite_rows: Any, tmp_path: Path
) -> None:
    def spoil(rows: Any) -> Any:
        weights = rows.weights.clone()
        weights[[4, 9], 7] = math.nan
        return dataclasses.replace(rows, weights=weights)

    rewrite_rows(digits_copy, "validation", spoil)

    error = nefbench("train", "digits", "--out", "c").error

    assert re.fullmatch(
        r"digits \(siren-h8-shared\), split 'validation': 2 row\(s\) hold NaN or infinite weights "
        r"\(first: 4, 9\); .*",
        error,
    )
    assert not (tmp_path / "c").exists()
