from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from classifiers import ClassifierReport, RegressionReport, load_classifier
from nefbench.config import config_from_mapping
from nefbench.weights import load_neural_dataset, read_manifest, write_manifest
from nefbench.weights.parts import read_part, write_part

QUICK = [
    "--set", "model.hidden_dims=[8]", "--set", "num_epochs=3", "--set", "seeds=[0, 1]",
]  # fmt: skip


@pytest.fixture
def train(nefbench: Any, fitted_digits: Path) -> Callable[..., Any]:
    """Run ``nefbench train`` on 300 fitted digits, quickly."""
    return lambda *more: nefbench("train", fitted_digits, *QUICK, *more)


def table_of(path: str) -> list[dict[str, str]]:
    """Rows of a CSV file by their heading."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_property(folder: Path) -> None:
    """Give every field the property ``ink``: its class plus its first weight."""
    dataset = load_neural_dataset(folder)
    entry = dataclasses.replace(dataset.entry, properties=("ink",))
    parts = []
    for part in dataset.entry.parts:
        rows = read_part(folder, dataset.name, dataset.entry, part)
        assert rows.labels is not None
        ink = rows.labels.double() + rows.weights[:, 0].double()
        rows = dataclasses.replace(rows, properties={"ink": ink})
        parts.append(write_part(folder, dataset.name, entry, part.split, part.start, rows))
    entry = dataclasses.replace(entry, parts=tuple(parts))
    write_manifest(folder, read_manifest(folder).with_config(dataset.name, entry))


def test_the_table_holds_every_seed_their_mean_chance_and_majority(train: Any) -> None:
    outcome = train("--out", "c")

    assert outcome.code == 0
    report = config_from_mapping(ClassifierReport, json.loads(Path("c/report.json").read_text()))
    lines = outcome.out.splitlines()
    assert lines[0] == "rows     180 train, 60 validation, 60 test"
    # 105*8+8 + 8*10+10
    assert lines[1].startswith("mlp, 938 parameters, reads the weights, on ")
    table = [line.split() for line in lines[3:8]]
    for words, result in zip(table[:2], report.results, strict=True):
        assert words == [
            "seed", str(result.seed), str(result.best_epoch), f"{result.train_accuracy:.4f}",
            f"{result.validation_accuracy:.4f}", f"{result.test_accuracy:.4f}",
            f"{result.calibration.error:.4f}",
        ]  # fmt: skip
    assert table[2][0] == "mean"
    assert table[2][-4:] == [
        f"{report.test_accuracy:.4f}", "±", f"{report.test_accuracy_sd:.4f}",
        f"{report.calibration_error:.4f}",
    ]  # fmt: skip
    assert table[3] == ["chance", "0.1000"]
    assert table[4] == ["majority", "class", f"{report.majority_accuracy:.4f}"]
    assert lines[-1] == "wrote    c: report.json and one checkpoint per seed"


def test_every_class_is_listed_with_its_accuracy_over_the_seeds(train: Any) -> None:
    outcome = train("--out", "c")

    report = config_from_mapping(ClassifierReport, json.loads(Path("c/report.json").read_text()))
    lines = outcome.out.splitlines()
    begin = lines.index("classes, test") + 2
    for index, line in enumerate(lines[begin : begin + 10]):
        first, second = (result.class_accuracy[index] for result in report.results)
        assert first is not None
        assert second is not None
        name, rows, mean, *_ = line.split()
        assert name == str(index)
        assert int(rows) == sum(report.confusion[index]) / 2
        assert mean == f"{(first + second) / 2:.4f}"


def test_the_figures_hold_the_numbers_of_the_report(train: Any) -> None:
    outcome = train("--out", "c")

    assert "figures  learning-curves.png, confusion.png, calibration.png" in outcome.out
    report = config_from_mapping(ClassifierReport, json.loads(Path("c/report.json").read_text()))
    for name in ("learning-curves", "confusion", "calibration"):
        assert Path(f"c/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert Path(f"c/{name}.pdf").read_bytes().startswith(b"%PDF")
    curves = table_of("c/learning-curves.csv")
    assert [(int(row["seed"]), int(row["epoch"])) for row in curves] == [
        (seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    epochs = [epoch for result in report.results for epoch in result.epochs]
    assert [float(row["train_loss"]) for row in curves] == [epoch.loss for epoch in epochs]
    assert [float(row["validation_accuracy"]) for row in curves] == [
        epoch.validation_accuracy for epoch in epochs
    ]
    cells = table_of("c/confusion.csv")
    assert {(int(row["class"]), int(row["taken_for"]), int(row["rows"])) for row in cells} == {
        (label, other, count)
        for label, row in enumerate(report.confusion)
        for other, count in enumerate(row)
        if count
    }
    bins = table_of("c/calibration.csv")
    assert len(bins) == 15
    assert sum(int(row["rows"]) for row in bins) == 2 * 60


def test_the_same_command_finds_the_finished_training(train: Any) -> None:
    first = train("--out", "c")
    again = train("--out", "c")

    last = "wrote    c: report.json and one checkpoint per seed"
    assert again.out.splitlines()[-1] == f"{last}; this training was there already"
    assert again.out.splitlines()[:-1] == first.out.splitlines()[:-1]


def test_another_training_in_the_same_folder_is_refused(train: Any) -> None:
    train("--out", "c")

    assert train("--out", "c", "--set", "learning_rate=0.5").error == (
        "c holds another training (learning_rate 0.001, now 0.5); choose another folder with "
        "--out, or delete it"
    )


def test_a_property_is_predicted_with_its_errors_in_its_own_unit(
    nefbench: Any, digits_copy: Path
) -> None:
    add_property(digits_copy)

    outcome = nefbench("train", "digits", *QUICK, "--set", "target=ink", "--out", "c")

    assert outcome.code == 0
    report = config_from_mapping(RegressionReport, json.loads(Path("c/report.json").read_text()))
    lines = outcome.out.splitlines()
    words = next(line.split() for line in lines if line.startswith(" ink"))
    errors = [result.properties[0] for result in report.results]
    assert words[1] == f"{(errors[0].r2 + errors[1].r2) / 2:.4f}"
    assert words[4] == f"{(errors[0].mae + errors[1].mae) / 2:.4f}"
    assert words[-2:] == [f"{report.baseline[0].mae:.4g}", f"{report.baseline[0].rmse:.4g}"]
    assert "figures  learning-curves.png" in lines
    assert {"train_loss", "validation_r2"} < set(table_of("c/learning-curves.csv")[0])


def test_ctrl_c_leaves_a_training_that_the_same_command_continues(
    fitted_digits: Path, tmp_path: Path
) -> None:
    words = ["train", str(fitted_digits), "--out", "c", "--set", "model.hidden_dims=[8]"]
    words += ["--set", "num_epochs=100000", "--set", "patience=100000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "nefbench", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "c" / "unfinished.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)

    assert running.returncode == 130
    assert error.startswith("interrupted after ")
    assert error.rstrip().endswith("the same command continues from the last state in c")
    assert error.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["unfinished.pt"]


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


def test_aligned_rows_are_trained_on_and_the_checkpoint_reads_stored_ones(
    train: Any, fitted_digits: Path
) -> None:
    outcome = train("--classifier", "mlp-aligned", "--out", "c", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    printed = json.loads(outcome.out)
    assert printed["config"]["gauge_fixing"] == "aligned"
    test = load_neural_dataset(fitted_digits).split("test")
    assert test.labels is not None
    for result in printed["results"]:
        classifier = load_classifier(f"c/classifier-seed{result['seed']}.pt")
        accuracy = (classifier.predict(test.weights) == test.labels).double().mean()
        assert float(accuracy) == result["test_accuracy"]


def test_symmetries_taken_away_and_brought_in_are_refused_in_one_line(train: Any) -> None:
    error = train("--set", "gauge_fixing=aligned", "--set", 'augmentation.gauge=["sign"]').error

    assert error.endswith(
        "gauge_fixing = 'aligned' takes away what augmentation.gauge = ['sign'] brings in; leave "
        "out one of them"
    )


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
        "calibration.csv", "calibration.pdf", "calibration.png", "classifier-seed0.pt",
        "classifier-seed1.pt", "confusion.csv", "confusion.pdf", "confusion.png",
        "learning-curves.csv", "learning-curves.pdf", "learning-curves.png", "report.json",
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
        (["--classifier", "mpl"], "no preset 'mpl'; did you mean 'mlp'?; presets: "),
        (["--classifier", "nope.toml"], "cannot read nope.toml: No such file or directory"),
        (["--set", "num_epoch=1"], "unknown key 'num_epoch'; did you mean 'num_epochs'?"),
        (["--set", "model.kind=gnnn"], "model.kind: expected one of "),
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
