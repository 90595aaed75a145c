from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import studies
from fitting import FitConfig, fit_dataset, run_fit
from nefbench.cli.fit import _print_report as print_report
from nefbench.config import digest
from nefbench.fields import Siren
from nefbench.signals import signals_from_array
from nefbench.weights import load_neural_dataset

# As a process of its own, with the reaction to Ctrl-C that a shell in the foreground gives.
START = """
import resource, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
limit = int(sys.argv.pop(1))
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("nefbench", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def fit(nefbench: Any, tiny_settings: list[str]) -> Callable[..., Any]:
    """Run ``nefbench fit digits-siren`` on 40 digits with more arguments."""
    return lambda *more: nefbench("fit", "digits-siren", *tiny_settings, *more)


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.parquet"))


# What it prints


def test_a_preset_is_fitted_into_the_folder_asked_for(fit: Any) -> None:
    outcome = fit("--out", "d")

    assert outcome.code == 0
    first, name, above, header, *rows, last = outcome.out.splitlines()
    assert re.fullmatch(
        r"wrote    d \(siren-h2-shared\): 40 fields in [\d.]+ s, [\d.,]+ fields/s, "
        r"[\d.,]+ field-steps/s; engine fused cpu llvmlite-.+, ready in [\d.]+ s",
        first,
    )
    assert name.strip() == "siren-h2-shared"
    assert above.split() == ["PSNR", "dB", "worst", "SSIM", "off-grid", "R"]
    assert header.split()[:3] == ["split", "fields", "diverged"]
    assert [row.split()[:3] for row in rows] == [
        ["train", "20", "0"], ["validation", "10", "0"], ["test", "10", "0"],
    ]  # fmt: skip
    assert last == "next     nefbench train d --config siren-h2-shared"
    assert load_neural_dataset("d").entry.is_complete


def test_what_is_fitted_is_announced_on_stderr(fit: Any) -> None:
    outcome = fit("--out", "d", "--seed", "3")

    assert outcome.err.splitlines() == [
        "signals  digits: 20 train, 10 validation, 10 test; 8x8x1",
        # 2*2+2 and 2*1+1
        "field    siren, width 2, 9 weights; shared start, seed 3; 2 steps of adam",
    ]


def test_the_default_folder_is_named_after_the_preset(fit: Any, tmp_path: Path) -> None:
    fit()

    assert (tmp_path / "runs" / "digits-siren" / "nefbench.json").is_file()


def test_the_default_folder_is_named_after_the_file(nefbench: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "num_steps = 1\n[signals]\nkind = 'digits'\nmax_signals = 40\nvalidation_size = 10\n"
        "test_size = 10\n[field]\nkind = 'siren'\nhidden_dim = 2\nnum_layers = 2\n"
    )

    outcome = nefbench("fit", "mine.toml", "--quiet")

    assert outcome.code == 0
    assert outcome.out.startswith("wrote    runs/mine (siren-h2-shared): 40 fields")


def test_json_is_one_object_with_the_numbers_and_stderr_is_silent(fit: Any) -> None:
    outcome = fit("--out", "d", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert outcome.out.count("\n") == 1
    entry = load_neural_dataset("d").entry
    assert result["folder"] == "d"
    assert result["config"] == "siren-h2-shared"
    assert result["digest"] == entry.digest
    assert result["engine"] == entry.engine
    assert (result["num_fitted"], result["num_fields"]) == (40, 40)
    assert result["fields_per_s"] == pytest.approx(40 / result["seconds"])
    assert result["field_steps_per_s"] == pytest.approx(2 * 40 / result["seconds"])
    assert set(result["summary"]) == {"train", "validation", "test"}
    train = result["summary"]["train"]
    assert (train["num_fields"], train["status"]) == (20, {"ok": 20})
    psnr_db = load_neural_dataset("d").split("train").quality["psnr_db"]
    assert train["quality"]["psnr_db"]["worst"] == pytest.approx(float(psnr_db.min()))
    assert sum(train["class_counts"]) == 20


def test_quiet_leaves_the_result_and_nothing_on_stderr(fit: Any) -> None:
    outcome = fit("--out", "d", "--quiet")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("wrote    d (siren-h2-shared): 40 fields in ")


def test_a_process_separates_results_from_progress(process: Any, tiny_settings: list[str]) -> None:
    outcome = process("fit", "digits-siren", *tiny_settings, "--out", "d")

    assert outcome.code == 0
    assert outcome.out.startswith("wrote    d (siren-h2-shared): 40 fields in ")
    assert outcome.err.startswith("signals  digits: 20 train")
    assert "Warning" not in outcome.err


def test_a_folder_with_spaces_is_quoted_in_the_next_command(fit: Any) -> None:
    outcome = fit("--out", "a b")

    assert outcome.out.splitlines()[-1] == (
        "next     nefbench train 'a b' --config siren-h2-shared"
    )


def test_the_command_fits_what_the_library_fits(fit: Any, tiny: Path, snapshot: Any) -> None:
    fit("--out", "d")

    assert snapshot(Path("d")) == snapshot(tiny)


def test_the_seed_is_that_of_the_recipe(fit: Any) -> None:
    fit("--out", "a", "--seed", "5")
    fit("--out", "b", "--set", "seed=5")
    fit("--out", "c")

    digests = [load_neural_dataset(folder).entry.digest for folder in "abc"]
    assert digests[0] == digests[1] != digests[2]
    rows = [load_neural_dataset(folder).split("train").weights for folder in "abc"]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_diverged_fields_are_counted_and_no_failure(fit: Any) -> None:
    outcome = fit("--out", "d", "--set", "optimizer.learning_rate=1e30")

    assert outcome.code == 0
    rows = [line.split()[:4] for line in outcome.out.splitlines()[4:7]]
    assert rows == [
        ["train", "20", "20", "-"], ["validation", "10", "10", "-"], ["test", "10", "10", "-"],
    ]  # fmt: skip


def test_signals_without_labels_have_no_classifier_as_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(4, 3, 3, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)

    print_report(run_fit(signals_from_array(images), config, tmp_path / "d"))

    out = capsys.readouterr().out
    assert "4 fields in" in out
    assert "next" not in out


def test_fields_stop_at_the_quality_asked_for(fit: Any) -> None:
    target = ("--set", "num_steps=40", "--set", "field.hidden_dim=8")
    outcome = fit("--out", "d", "--until-psnr", "7", *target)
    fit("--out", "e", "--set", "until_psnr=7", *target)

    assert outcome.err.splitlines()[1].endswith("; at most 40 steps of adam, until 7 dB")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[2][-1] == "steps"
    dataset = load_neural_dataset("d")
    for line, split in zip(lines[4:7], ("train", "validation", "test"), strict=True):
        steps = dataset.split(split).provenance["num_steps"]
        assert line[-1] == f"{steps.double().quantile(0.5):.0f}"
    assert dataset.split("train").provenance["num_steps"].min() < 40
    assert dataset.entry.fit["until_psnr"] == 7.0
    assert dataset.entry.digest == load_neural_dataset("e").entry.digest


def test_shapes_are_fitted_and_their_held_out_quality_is_shown(nefbench: Any) -> None:
    sizes = ("train_size=12", "validation_size=12", "test_size=12", "num_uniform=300",
             "num_near_surface=300", "num_held_out=200")  # fmt: skip
    settings = [*(f"signals.{size}" for size in sizes), "num_steps=2", "field.hidden_dim=4"]

    outcome = nefbench("fit", "shapes-siren", "--out", "d",
                       *(word for setting in settings for word in ("--set", setting)))  # fmt: skip

    assert outcome.code == 0
    assert outcome.err.splitlines()[0] == (
        "signals  shapes: 12 train, 12 validation, 12 test; occupancy in 3 dimensions"
    )
    lines = outcome.out.splitlines()
    assert lines[2].split() == ["IoU", "uniform", "worst", "near", "surface", "R"]
    assert lines[3].split() == [
        "split", "fields", "diverged", "median", "5", "%", "worst", "median", "median",
    ]  # fmt: skip
    assert lines[4].split()[:2] == ["train", "12"]
    assert lines[-1] == "next     nefbench train d --config siren-h4-shared"


def test_refits_and_views_are_announced(fit: Any) -> None:
    outcome = fit("--out", "d", "--only", "0:10", "--set", "num_refits=2",
                  "--set", "views.count=3", "--set", "views.crop=0.8")  # fmt: skip

    assert outcome.err.splitlines()[1].endswith(
        "2 steps of adam; 2 fits of each signal; 3 views of each training signal"
    )


def test_the_help_names_every_family_of_presets_and_no_other(nefbench: Any) -> None:
    presets = Path(studies.__file__).parent / "presets" / "fit"
    families = {path.stem.rsplit("-", 1)[0] for path in presets.glob("*.toml")}

    text = nefbench("fit", "--help").out

    assert set(re.findall(r"([a-z0-9-]+)-\*", text)) == families


# Continuing


def test_the_same_command_again_finds_nothing_to_do(fit: Any, snapshot: Any) -> None:
    fit("--out", "d")
    before = snapshot(Path("d"))

    outcome = fit("--out", "d")

    assert outcome.code == 0
    first = outcome.out.splitlines()[0]
    assert first == "wrote    d (siren-h2-shared): nothing left to fit; 40 were there already"
    assert snapshot(Path("d")) == before


def test_only_a_range_is_fitted_and_the_folder_says_how_to_go_on(
    fit: Any, nefbench: Any, tiny: Path, snapshot: Any
) -> None:
    outcome = fit("--out", "d", "--only", "10:30")

    assert parts(Path("d")) == ["part-000010-000020.parquet", "part-000020-000030.parquet"]
    first, last = outcome.out.splitlines()
    assert first.startswith("wrote    d (siren-h2-shared): 20 fields in ")
    assert "already" not in first
    assert last == (
        "next     nefbench fit d --config siren-h2-shared  (20 of 40 fields are finished)"
    )

    command = last.removeprefix("next     nefbench ").split("  (")[0]
    continued = nefbench(*shlex.split(command), "--json")

    assert json.loads(continued.out)["num_fitted"] == 20
    assert snapshot(Path("d")) == snapshot(tiny)


def test_a_folder_continues_without_naming_its_only_config(
    fit: Any, nefbench: Any, tiny: Path, snapshot: Any
) -> None:
    fit("--out", "d", "--only", "0:10")

    outcome = nefbench("fit", "d", "--quiet")

    assert outcome.code == 0
    assert "30 fields in" in outcome.out
    assert "; 10 were there already" in outcome.out
    assert snapshot(Path("d")) == snapshot(tiny)


@pytest.mark.parametrize(
    "more", [["--set", "num_steps=9"], ["--seed", "1"], ["--until-psnr", "9"], ["--out", "e"]]
)
def test_a_folder_continues_as_it_is_or_not_at_all(
    nefbench: Any, tiny: Path, snapshot: Any, more: list[str]
) -> None:
    before = snapshot(tiny)

    outcome = nefbench("fit", tiny, *more)

    assert outcome.error == (
        "continuing tiny: --set, --seed, --until-psnr and --out would change what it is"
    )
    assert snapshot(tiny) == before


def test_other_settings_in_the_same_folder_are_refused_with_the_differing_keys(
    fit: Any, tiny: Path, snapshot: Any
) -> None:
    before = snapshot(tiny)

    outcome = fit("--out", tiny, "--set", "num_steps=3", "--set", "optimizer.learning_rate=0.5")

    assert outcome.error.startswith(
        "tiny already holds config 'siren-h2-shared' made with other settings ("
    )
    assert "num_steps = 2 there, 3 here" in outcome.error
    assert "optimizer.learning_rate = 0.001 there, 0.5 here" in outcome.error
    assert "hidden_dim" not in outcome.error  # it does not differ
    assert snapshot(tiny) == before


def test_another_start_is_another_config_in_the_same_folder(fit: Any, nefbench: Any) -> None:
    fit("--out", "d", "--only", "0:10")
    fit("--out", "d", "--only", "0:10", "--set", "init=random")

    assert nefbench("fit", "d").error == (
        "d holds several configs (siren-h2-shared, siren-h2-random); choose one with --config"
    )
    assert nefbench("fit", "d", "--config", "siren-h2-sharde").error == (
        "d has no config 'siren-h2-sharde'; did you mean 'siren-h2-shared'?; "
        "it has siren-h2-shared, siren-h2-random"
    )
    assert nefbench("fit", "d", "--config", "siren-h2-random", "--quiet").code == 0
    assert load_neural_dataset("d", "siren-h2-random").entry.is_complete
    assert not load_neural_dataset("d", "siren-h2-shared").entry.is_complete


def test_fields_of_an_array_in_memory_cannot_be_continued_by_the_command(
    nefbench: Any, tmp_path: Path
) -> None:
    images = torch.rand(4, 3, 3, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1, part_rows=2)
    run_fit(signals_from_array(images), config, tmp_path / "d", only=(0, 2))

    assert nefbench("fit", "d").error.startswith(
        "d (siren-h2-shared) does not say how to open its signals (an array in memory)"
    )


# Damage


def test_the_command_in_the_message_about_a_damaged_part_repairs_it_to_the_last_byte(
    nefbench: Any, damaged: tuple[Path, str, str], untouched: Path, snapshot: Any
) -> None:
    folder, message, remedy = damaged
    error = nefbench("render", folder, "--out", "x.npy").error
    assert error.startswith(message)
    assert error.endswith(f"fit this part again with: nefbench {remedy}")

    outcome = nefbench(*shlex.split(error.split("nefbench ")[-1]), "--json")

    assert outcome.code == 0
    assert json.loads(outcome.out)["num_fitted"] == 10
    assert snapshot(folder) == snapshot(untouched)


def test_continuing_a_folder_repairs_its_damaged_parts_with_a_warning(
    nefbench: Any, damaged: tuple[Path, str, str], untouched: Path, snapshot: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder, message, _ = damaged

    outcome = nefbench("fit", folder)

    assert outcome.code == 0
    assert ": 10 fields in" in outcome.out
    assert message in caplog.text
    assert "fitting it again now" in caplog.text
    assert snapshot(folder) == snapshot(untouched)


def test_a_folder_that_is_no_neural_dataset_cannot_be_continued(
    nefbench: Any, unusable: tuple[Path, str]
) -> None:
    folder, message = unusable
    if not folder.exists():
        message = "no preset 'unusable'"

    assert nefbench("fit", folder).error.startswith(message)


def test_a_foreign_folder_is_not_written_to(fit: Any, tmp_path: Path, snapshot: Any) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"picture")

    assert fit("--out", "photos").error == (
        "photos exists and is not a neural dataset (no nefbench.json); "
        "choose a new or empty folder for --out"
    )
    assert snapshot(tmp_path / "photos") == {"holiday.jpg": b"picture"}


def test_a_file_is_no_folder_to_fit_into(fit: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")

    assert fit("--out", "f").error.startswith("f exists and is not a neural dataset")
    assert (tmp_path / "f").read_text() == "text"


def test_a_damaged_record_is_not_overwritten(fit: Any, tiny: Path) -> None:
    (tiny / "nefbench.json").write_text("{")

    assert fit("--out", tiny).error.startswith("tiny/nefbench.json is damaged: not valid JSON")
    assert (tiny / "nefbench.json").read_text() == "{"


# Wrong requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits-sirn"], "no preset 'digits-sirn'; did you mean 'digits-siren'?; presets: celeb"),
        (["nope.toml"], "cannot read nope.toml: No such file or directory"),
        (["digits-siren", "--set", "num_step=3"], "unknown key 'num_step'; did you mean 'num_ste"),
        (
            ["digits-siren", "--set", "field.hidden=3"],
            "unknown key 'field.hidden'; did you mean 'hidden_dim'?",
        ),
        (
            ["digits-siren", "--set", "field.kind=siern"],
            "field.kind: expected one of 'siren', 'fouriernet', 'gabornet', 'rffnet', 'mlp', "
            "'shapenet' (got 'siern'); did you mean 'siren'?",
        ),
        (["digits-siren", "--set", "signals.kind=digit"], "signals.kind: expected one of 'digits'"),
        (["digits-siren", "--set", "init=sharde"], "init.kind: expected one of 'shared', 'random'"),
        (["digits-siren", "--set", "num_steps=0"], "expected num_steps >= 1 (got 0)"),
        (["digits-siren", "--set", "num_steps=many"], "num_steps: input should be a valid integer"),
        (["digits-siren", "--set", "num_steps"], "--set 'num_steps': expected key=value"),
        (["digits-siren", "--set", "optimizer.learning_rate=-1"], "optimizer: expected learning_r"),
        (["digits-siren", "--set", "name=../up"], "expected a name of letters, digits"),
        (["digits-siren", "--seed", "-1"], "expected a seed from 0 to 2**63 - 1 (got -1)"),
        (["digits-siren", "--set", "signals.test_size=0"], "signals: expected test_size >= 1"),
        (["digits-siren", "--set", "signals.max_signals=100"], "digits: 100 signals leave none"),
        (["digits-siren", "--only", "x"], "--only: expected A:B with A < B, for example 0:1000"),
        (["digits-siren", "--only", "5:5"], "--only: expected A:B with A < B"),
        (["digits-siren", "--only", "7"], "--only: expected A:B with A < B"),
        (["digits-siren", "--only", "-3:5"], "--only: expected A:B with A < B"),
        (["digits-siren", "--only", "²:5"], "--only: expected A:B with A < B"),
        (["digits-siren", "--only", "0:5:9"], "--only: expected A:B with A < B"),
        (["digits-siren", "--only", "0:7"], "--only 0:7 is not a union of parts; the parts are 0:"),
        (["digits-siren", "--device", "nonsense"], "--device: expected cpu, cuda or cuda:N"),
        (["digits-siren", "--executor", "nonsense"], "executor: expected 'auto', 'serial' or"),
        (["digits-siren", "--config", "a"], "--config goes with a folder to continue"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line_and_leaves_no_folder(
    nefbench: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = nefbench("fit", *arguments)

    assert outcome.error.startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(nefbench: Any, tmp_path: Path, device: str) -> None:
    outcome = nefbench("fit", "digits-siren", "--device", device)

    assert outcome.error == f"--device {device}: this machine has no usable CUDA device"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_request_is_one_line_in_a_process_too(process: Any) -> None:
    outcome = process("fit", "digits-siren", "--set", "num_step=3")

    assert outcome.error == "unknown key 'num_step'; did you mean 'num_steps'?"


# Stopping


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_full_disk_ends_in_one_line_and_the_same_command_completes(
    nefbench: Any, process: Any, tmp_path: Path, snapshot: Any
) -> None:
    arguments = [
        "fit", "digits-siren", "--out", "d", "--executor", "serial", "--quiet",
        "--set", "signals.max_signals=300", "--set", "field.hidden_dim=8", "--set", "num_steps=1",
        "--set", "signals.validation_size=60", "--set", "signals.test_size=60",
    ]  # fmt: skip

    # The record takes 5 kB, the part of 180 fields 75 kB.
    outcome = process(20_000, *arguments, code=START)

    assert "File too large" in outcome.error
    assert sorted(snapshot(tmp_path / "d")) == ["nefbench.json"]
    assert nefbench(*arguments).code == 0
    arguments[3] = "undisturbed"
    assert nefbench(*arguments).code == 0
    assert snapshot(tmp_path / "d") == snapshot(tmp_path / "undisturbed")


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups of POSIX")
@pytest.mark.parametrize("executor", ["serial", "processes:2"])
def test_ctrl_c_ends_in_one_line_and_the_same_command_continues(
    nefbench: Any, tmp_path: Path, stoppable: list[str], undisturbed: dict[str, bytes],
    snapshot: Any, executor: str,
) -> None:  # fmt: skip
    arguments = ["fit", *stoppable, "--out", "d", "--executor", executor, "--quiet"]
    running = subprocess.Popen(
        [sys.executable, "-c", START, "0", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(parts(tmp_path)) < 2 and time.monotonic() < deadline:
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        out, err = running.communicate(timeout=120)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()

    assert (running.returncode, out) == (130, "")
    match = re.fullmatch(
        r"interrupted; (\d+) of 60 fields are in d: the same command continues\n", err
    )
    assert match is not None, err
    saved = {path: content for path, content in snapshot(tmp_path / "d").items() if "part" in path}
    assert saved.items() <= undisturbed.items()
    # A worker may have finished a part of six fields that the record does not list yet.
    assert int(match[1]) <= 6 * len(saved) < 60

    again = nefbench("fit", *stoppable, "--out", "d", "--executor", "serial", "--json")

    assert json.loads(again.out)["num_fitted"] == 60 - 6 * len(saved)
    assert snapshot(tmp_path / "d") == undisturbed


def test_the_digest_is_that_of_recipe_and_signals(tiny: Path, tmp_path: Path) -> None:
    entry = load_neural_dataset(tmp_path / tiny).entry

    assert entry.digest == digest({"fit": entry.fit, "signals": entry.signals.identity()})


def test_a_dataset_fitted_in_python_is_found_by_the_command(nefbench: Any, tmp_path: Path) -> None:
    images = torch.rand(4, 3, 3, 1, generator=torch.Generator().manual_seed(0))
    config = FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1)
    fit_dataset(signals_from_array(images), config, tmp_path / "d")

    outcome = nefbench("inspect", "d", "--json")

    assert outcome.code == 0
    assert json.loads(outcome.out)["siren-h2-shared"]["summary"]["train"]["num_fields"] == 4
