from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting import SGD, Adam, FitConfig, Processes, Random, fit_dataset, run_fit
from fitting.engines import FusedEngine
from fitting.plan import Shard
from fitting.quality import metric_names
from fitting.shard import fit_shard
from nefbench.errors import ConfigError, DatasetFormatError, Interrupted, SignalError
from nefbench.fields import MLP, Siren
from nefbench.signals import Signals, signals_from_array
from nefbench.signals.base import ArrayValues, Values
from nefbench.signals.views import Views
from nefbench.weights import (
    FieldRows,
    Manifest,
    load_all,
    load_neural_dataset,
    read_manifest,
    write_manifest,
)
from nefbench.weights.parts import write_part

pytestmark = pytest.mark.usefixtures("one_thread")

Snapshot = Callable[[Path], dict[str, bytes]]

CONFIG = FitConfig(field=Siren(hidden_dim=4), init=Random(), num_steps=3, part_rows=3)
PARTS = ["0:3", "3:6", "6:7", "7:10"]  # seven fields to train on, three to test


def make_signals() -> Signals:
    draw = np.random.default_rng(0)
    return signals_from_array(
        draw.random((10, 5, 4, 1)), np.arange(10) % 3, splits=[("train", 7), ("test", 3)]
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> dict[str, bytes]:
    """Every byte of the folder that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_fit(make_signals(), CONFIG, folder)
    return snapshot(folder)


def part_path(folder: Path, place: str, config: FitConfig = CONFIG) -> Path:
    start, stop = map(int, place.split(":"))
    split = "train" if stop <= 7 else "test"
    return folder / config.config_name / split / f"part-{start:06d}-{stop:06d}.parquet"


def same_rows(first: FieldRows, second: FieldRows) -> bool:
    return (
        torch.equal(first.weights.view(torch.int32), second.weights.view(torch.int32))
        and torch.equal(first.loss.view(torch.int32), second.loss.view(torch.int32))
        and torch.equal(first.signal_index, second.signal_index)
        and first.status == second.status
    )


# What a fit leaves behind


def test_a_fit_writes_parts_a_manifest_and_a_card_and_nothing_else(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    dataset = fit_dataset(make_signals(), CONFIG, str(tmp_path / "deep" / "out"))

    assert sorted(snapshot(tmp_path / "deep" / "out")) == [
        "README.md",
        "nefbench.json",
        "siren-h4-random/test/part-000007-000010.parquet",
        "siren-h4-random/train/part-000000-000003.parquet",
        "siren-h4-random/train/part-000003-000006.parquet",
        "siren-h4-random/train/part-000006-000007.parquet",
    ]
    assert load_neural_dataset(tmp_path / "deep" / "out") == dataset


def test_the_rows_on_disk_are_those_that_were_fitted(tmp_path: Path) -> None:
    signals = make_signals()

    dataset = fit_dataset(signals, CONFIG, tmp_path)

    for split, start, stop in (("train", 0, 7), ("test", 7, 10)):
        stored = dataset.split(split)
        fitted = fit_shard(signals, CONFIG, Shard(split, start, stop))
        assert same_rows(stored, fitted)
        assert stored.labels is not None
        assert stored.labels.tolist() == [i % 3 for i in range(start, stop)]
        assert torch.equal(stored.quality["ssim"], fitted.quality["ssim"])


def test_the_manifest_records_how_the_rows_were_made(tmp_path: Path) -> None:
    signals = make_signals()

    entry = fit_dataset(signals, CONFIG, tmp_path).entry

    assert entry.fit["num_steps"] == 3
    assert entry.fit["optimizer"] == {
        "kind": "adam", "learning_rate": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8,
    }  # fmt: skip
    assert entry.signals.fingerprint == signals.fingerprint
    assert (entry.signals.mean, entry.signals.std) == (signals.mean, signals.std)
    assert entry.signals.class_names == ("0", "1", "2")
    assert entry.engine == f"fused cpu {FusedEngine().signature}"
    assert "engine" not in entry.fit, "two engines give the same fields up to rounding"
    assert entry.generator == "philox4x32-10"
    assert entry.metrics == metric_names(signals)
    assert entry.provenance == ("view", "num_steps")
    assert [f"{part.start}:{part.stop}" for part in entry.parts] == PARTS
    assert entry.summary["train"].num_fields == 7
    assert entry.summary["train"].class_counts == (3, 2, 2)
    assert entry.summary["test"].status == {"ok": 3}
    assert entry.is_complete


def test_a_report_says_what_this_call_did(tmp_path: Path) -> None:
    first = run_fit(make_signals(), CONFIG, tmp_path)
    second = run_fit(make_signals(), CONFIG, tmp_path)

    assert (first.num_fitted, first.num_steps) == (10, 3)
    assert first.seconds > 0
    assert first.fields_per_s == pytest.approx(10 / first.seconds)
    assert first.field_steps_per_s == pytest.approx(30 / first.seconds)
    assert (second.num_fitted, second.fields_per_s, second.field_steps_per_s) == (0, 0.0, 0.0)
    assert second.dataset == first.dataset


def test_progress_runs_from_nothing_to_all_that_is_to_do(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    run_fit(make_signals(), CONFIG, tmp_path, on_progress=lambda *done: seen.append(done))
    part_path(tmp_path, "3:6").unlink()
    again: list[tuple[int, int]] = []
    run_fit(make_signals(), CONFIG, tmp_path, on_progress=lambda *done: again.append(done))

    assert seen == [(0, 10), (3, 10), (6, 10), (7, 10), (10, 10)]
    assert again == [(0, 3), (3, 3)]


def test_diverged_fields_are_counted_and_no_exception(tmp_path: Path) -> None:
    optimizer = SGD(learning_rate=1e6)
    config = FitConfig(field=MLP(hidden_dim=4), optimizer=optimizer, num_steps=10)

    report = run_fit(make_signals(), config, tmp_path)

    entry = report.dataset.entry
    assert report.num_fitted == 10
    assert entry.is_complete
    assert entry.summary["train"].status == {"diverged": 7}
    assert entry.summary["train"].quality == {}
    assert report.dataset.split("test").status == ("diverged",) * 3
    assert run_fit(make_signals(), config, tmp_path).num_fitted == 0, "a result, not a failure"


# The same bytes, whatever happens on the way


def test_two_folders_of_one_recipe_are_equal_byte_for_byte(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == undisturbed


@pytest.mark.parametrize("part_rows", [2, 1000])
def test_the_size_of_the_parts_does_not_change_a_row(tmp_path: Path, part_rows: int) -> None:
    reference = fit_dataset(make_signals(), CONFIG, tmp_path / "a")
    config = dataclasses.replace(CONFIG, part_rows=part_rows)

    dataset = fit_dataset(make_signals(), config, tmp_path / "b")

    assert len(dataset.entry.parts) != len(reference.entry.parts)
    for split in ("train", "test"):
        assert same_rows(dataset.split(split), reference.split(split))
    assert dataset.entry.summary == reference.entry.summary


def test_worker_processes_write_the_same_folder(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path, executor=Processes(2))

    assert snapshot(tmp_path) == undisturbed


@dataclass
class StoppedValues:
    """Values that somebody stops with Ctrl-C after so many reads."""

    inner: Values
    reads_left: int

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, positions: Sequence[int]) -> Tensor:
        if self.reads_left == 0:
            raise KeyboardInterrupt
        self.reads_left -= 1
        return self.inner.read(positions)


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_stopped_fit_keeps_its_finished_parts_and_continues_to_the_same_bytes(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot, finished: int
) -> None:
    signals = make_signals()
    stopped = dataclasses.replace(
        signals,
        values=StoppedValues(signals.values, 1 + finished),  # one for the fingerprint
    )

    with pytest.raises(Interrupted, match="the same command continues") as caught:
        run_fit(stopped, CONFIG, tmp_path)

    fields = [0, 3, 6, 7][finished]
    assert f"{fields} of 10 fields are in {tmp_path}" in str(caught.value)
    kept = snapshot(tmp_path)
    assert [name for name in undisturbed if name in kept and kept[name] == undisturbed[name]] == [
        str(part_path(Path(), place)) for place in PARTS[:finished]
    ]
    assert load_neural_dataset(tmp_path).entry.num_finished == fields
    assert run_fit(signals, CONFIG, tmp_path).num_fitted == 10 - fields
    assert snapshot(tmp_path) == undisturbed


def test_a_fit_stopped_in_worker_processes_continues_to_the_same_bytes(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    def stop_after_the_first(finished: int, _: int) -> None:
        if finished:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run_fit(make_signals(), CONFIG, tmp_path, executor=Processes(1),
                on_progress=stop_after_the_first)  # fmt: skip

    assert run_fit(make_signals(), CONFIG, tmp_path).dataset.entry.is_complete
    assert snapshot(tmp_path) == undisturbed


def test_a_finished_fit_is_not_fitted_again(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}

    report = run_fit(make_signals(), CONFIG, tmp_path)

    assert report.num_fitted == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == times
    assert snapshot(tmp_path) == undisturbed


def test_parts_that_the_manifest_does_not_list_yet_are_adopted(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    """A run killed between writing a part and writing the manifest."""
    dataset = fit_dataset(make_signals(), CONFIG, tmp_path)
    killed = dataclasses.replace(
        dataset.entry, parts=dataset.entry.parts[:2], summary={}, tensor_statistics={}
    )
    write_manifest(tmp_path, read_manifest(tmp_path).with_config(dataset.name, killed))
    (tmp_path / "README.md").unlink()

    assert run_fit(make_signals(), CONFIG, tmp_path).num_fitted == 0
    assert snapshot(tmp_path) == undisturbed


def test_a_run_killed_before_its_summary_gets_one(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    dataset = fit_dataset(make_signals(), CONFIG, tmp_path)
    killed = dataclasses.replace(dataset.entry, summary={}, tensor_statistics={})
    write_manifest(tmp_path, read_manifest(tmp_path).with_config(dataset.name, killed))

    run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == undisturbed


def test_temporary_files_of_killed_writers_are_removed(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)
    (tmp_path / ".nefbench.json.99999999.tmp").write_bytes(b"half")
    part = part_path(tmp_path, "0:3")
    part.with_name(f".{part.name}.99999999.tmp").write_bytes(b"half")

    run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == undisturbed


def test_a_run_killed_at_its_very_first_write_continues(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    (tmp_path / ".nefbench.json.99999999.tmp").write_bytes(b"{")

    run_fit(make_signals(), CONFIG, tmp_path)
    run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == undisturbed


# Repair


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(flip_a_byte, "checksum differs"), (cut, "100 bytes"), (Path.unlink, "is missing")],
)
def test_a_damaged_part_is_fitted_again_with_a_warning(
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    snapshot: Snapshot,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)
    damage(part_path(tmp_path, "3:6"))

    report = run_fit(make_signals(), CONFIG, tmp_path)

    assert report.num_fitted == 3
    assert snapshot(tmp_path) == undisturbed
    (warning,) = [record.getMessage() for record in caplog.records]
    assert str(part_path(tmp_path, "3:6")) in warning
    assert reason in warning
    assert warning.endswith("; fitting it again now")
    assert "--only" not in warning, "nothing is left for the reader to do"


def test_a_foreign_file_under_the_name_of_a_part_is_replaced(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    fit_dataset(make_signals(), dataclasses.replace(CONFIG, seed=1), tmp_path / "out")
    write_manifest(tmp_path / "out", Manifest())

    report = run_fit(make_signals(), CONFIG, tmp_path / "out")

    assert report.num_fitted == 10, "those of seed 1 are not adopted"
    assert snapshot(tmp_path / "out") == undisturbed


# Single parts


@pytest.mark.parametrize(("only", "places"), [((3, 6), ["3:6"]), ((6, 10), ["6:7", "7:10"])])
def test_only_fits_exactly_those_parts_again(
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    snapshot: Snapshot,
    only: tuple[int, int],
    places: list[str],
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        os.utime(path, ns=(0, 0))

    report = run_fit(make_signals(), CONFIG, tmp_path, only=only)

    assert report.num_fitted == only[1] - only[0]
    written = {path for path in tmp_path.rglob("*.parquet") if path.stat().st_mtime_ns}
    assert written == {part_path(tmp_path, place) for place in places}
    assert snapshot(tmp_path) == undisturbed


def test_only_in_a_new_folder_leaves_the_rest_for_later(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    report = run_fit(make_signals(), CONFIG, tmp_path, only=(3, 6))

    assert report.num_fitted == 3
    assert [(part.start, part.stop) for part in report.dataset.entry.parts] == [(3, 6)]
    assert report.dataset.entry.summary == {}
    assert run_fit(make_signals(), CONFIG, tmp_path).num_fitted == 7
    assert snapshot(tmp_path) == undisturbed


@pytest.mark.parametrize("only", [(0, 2), (1, 3), (3, 8), (0, 11), (0, 0), (4, 4), (6, 3)])
def test_only_must_name_a_union_of_parts(tmp_path: Path, only: tuple[int, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        run_fit(make_signals(), CONFIG, tmp_path / "out", only=only)

    assert str(caught.value) == (
        f"--only {only[0]}:{only[1]} is not a union of parts; the parts are 0:3, 3:6, 6:7, 7:10"
    )
    assert not (tmp_path / "out").exists()


# Other settings, other folders


def test_the_same_name_with_other_settings_lists_every_difference(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)
    other = dataclasses.replace(
        CONFIG, num_steps=4, optimizer=Adam(learning_rate=0.25), name=CONFIG.config_name
    )

    with pytest.raises(ConfigError) as caught:
        run_fit(make_signals(), other, tmp_path)

    text = str(caught.value)
    assert f"{tmp_path} already holds config 'siren-h4-random' made with other settings" in text
    assert (
        "(name = None there, 'siren-h4-random' here; num_steps = 3 there, 4 here; "
        "optimizer.learning_rate = 0.001 there, 0.25 here)"
    ) in text
    assert snapshot(tmp_path) == undisturbed


def test_other_signals_under_the_same_name_are_refused(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    signals = make_signals()
    run_fit(signals, CONFIG, tmp_path)
    values = signals.values.read(range(10))
    values[2, 3] += 1e-3

    with pytest.raises(ConfigError, match=r"\(signals\.fingerprint = '[0-9a-f]{64}' there, "):
        run_fit(dataclasses.replace(signals, values=ArrayValues(values)), CONFIG, tmp_path)
    assert snapshot(tmp_path) == undisturbed


def test_signals_that_are_merely_opened_in_another_way_are_the_same(tmp_path: Path) -> None:
    signals = make_signals()
    run_fit(signals, CONFIG, tmp_path)

    moved = dataclasses.replace(signals, config={"kind": "images", "root": "/elsewhere"})

    assert run_fit(moved, CONFIG, tmp_path).num_fitted == 0


def test_a_whole_number_in_place_of_a_decimal_is_the_same_setting(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optimizer=SGD(learning_rate=1.0))
    run_fit(make_signals(), config, tmp_path)

    report = run_fit(
        make_signals(), dataclasses.replace(config, optimizer=SGD(learning_rate=1)), tmp_path
    )

    assert report.num_fitted == 0


def test_two_configs_in_one_folder_do_not_disturb_each_other(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    other = FitConfig(field=MLP(hidden_dim=4), num_steps=2, part_rows=4)
    run_fit(make_signals(), CONFIG, tmp_path / "both")
    before = read_manifest(tmp_path / "both").configs
    alone = fit_dataset(make_signals(), other, tmp_path / "alone")

    added = fit_dataset(make_signals(), other, tmp_path / "both")

    both = snapshot(tmp_path / "both")
    parts = {name: content for name, content in undisturbed.items() if "/" in name}
    assert {name: both[name] for name in parts} == parts
    assert added.entry == alone.entry
    assert read_manifest(tmp_path / "both").configs == {**before, other.config_name: alone.entry}
    assert [dataset.name for dataset in load_all(tmp_path / "both")] == [
        "siren-h4-random", "mlp-h4-shared",
    ]  # fmt: skip
    assert run_fit(make_signals(), CONFIG, tmp_path / "both").num_fitted == 0


def test_a_folder_of_other_files_is_refused_and_left_alone(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")

    with pytest.raises(DatasetFormatError, match="is not a neural dataset"):
        run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == {"thesis.tex": b"mine"}


def test_a_file_in_place_of_the_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(DatasetFormatError, match="is not a neural dataset"):
        run_fit(make_signals(), CONFIG, tmp_path / "file")

    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_a_damaged_manifest_is_refused_and_left_alone(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    run_fit(make_signals(), CONFIG, tmp_path)
    (tmp_path / "nefbench.json").write_text("{")
    before = snapshot(tmp_path)

    with pytest.raises(DatasetFormatError, match="not valid JSON"):
        run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == before


# Failures on the way


def with_nan_in(signals: Signals, position: int) -> Signals:
    values = signals.values.read(range(len(signals)))
    values[position, 7] = torch.nan
    return dataclasses.replace(signals, values=ArrayValues(values))


@pytest.mark.parametrize("position", [3, 4])
def test_nan_pixels_stop_the_fit_and_leave_only_whole_parts(
    tmp_path: Path, snapshot: Snapshot, position: int
) -> None:
    reason = rf"array: 1 signal\(s\) hold NaN .*positions {position}\)"
    with pytest.raises(SignalError, match=reason):
        run_fit(with_nan_in(make_signals(), position), CONFIG, tmp_path)

    left = snapshot(tmp_path)
    assert sorted(left) == ["nefbench.json", str(part_path(Path(), "0:3"))]
    manifest = json.loads(left["nefbench.json"])
    assert [part["stop"] for part in manifest["configs"]["siren-h4-random"]["parts"]] == [3]
    assert load_neural_dataset(tmp_path).split("train").signal_index.tolist() == [0, 1, 2]


def test_signals_repaired_after_a_fit_that_failed_at_once_can_be_fitted(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    with pytest.raises(SignalError):
        run_fit(with_nan_in(make_signals(), 0), CONFIG, tmp_path)

    run_fit(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == undisturbed


def test_a_full_disk_leaves_no_part_of_a_part_and_the_next_run_completes(
    tmp_path: Path, undisturbed: dict[str, bytes], snapshot: Snapshot
) -> None:
    """No file may grow beyond 4.5 kB: the first manifest fits, no part does."""
    limit = 4500
    assert all(len(undisturbed[str(part_path(Path(), place))]) > limit for place in PARTS)
    script = f"""
        import resource, signal, sys
        import numpy as np
        from fitting import FitConfig, Random, run_fit
        from nefbench.fields import Siren
        from nefbench.signals import signals_from_array

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        signals = signals_from_array(
            np.random.default_rng(0).random((10, 5, 4, 1)), np.arange(10) % 3,
            splits=[("train", 7), ("test", 3)],
        )
        config = FitConfig(field=Siren(hidden_dim=4), init=Random(), num_steps=3, part_rows=3)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
        try:
            run_fit(signals, config, "out")
        except OSError as error:
            sys.exit(error.strerror)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.strip() == "File too large"
    assert sorted(snapshot(tmp_path / "out")) == ["nefbench.json"]
    assert run_fit(make_signals(), CONFIG, tmp_path / "out").num_fitted == 10
    assert snapshot(tmp_path / "out") == undisturbed


def test_a_fit_begun_with_another_engine_is_not_continued(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    dataset = fit_dataset(make_signals(), CONFIG, tmp_path)
    # As a run under another torch, stopped after its first part, would have left it.
    train = dataset.split("train")
    rows = train.select(torch.arange(len(train)) < 3)
    older = dataclasses.replace(dataset.entry, engine="vmapped cpu torch-0.0", parts=(), summary={})
    first = write_part(tmp_path, dataset.name, older, "train", 0, rows)
    for place in PARTS[1:]:
        part_path(tmp_path, place).unlink()
    partial = dataclasses.replace(older, parts=(first,))
    write_manifest(tmp_path, read_manifest(tmp_path).with_config(dataset.name, partial))
    before = snapshot(tmp_path)

    with pytest.raises(ConfigError, match=r"begun with engine 'vmapped cpu torch-0.0', this is"):
        fit_dataset(make_signals(), CONFIG, tmp_path)

    assert snapshot(tmp_path) == before


def test_a_folder_of_a_version_with_fewer_settings_is_continued(tmp_path: Path) -> None:
    signals = make_signals()
    rows = fit_dataset(signals, CONFIG, tmp_path).split("train")
    path = tmp_path / "nefbench.json"
    manifest = json.loads(path.read_text())
    entry = manifest["configs"][CONFIG.config_name]
    for key in ("points_per_step", "until_psnr", "num_refits", "views"):
        del entry["fit"][key]
    del entry["signals"]["output"]
    entry["digest"] = "0" * 64  # made of fewer keys
    entry["parts"] = entry["parts"][:1]
    path.write_text(json.dumps(manifest))

    again = fit_dataset(signals, CONFIG, tmp_path)

    assert again.entry.is_complete
    assert torch.equal(again.split("train").weights, rows.weights)
    with pytest.raises(ConfigError, match="num_refits = 1 there, 2 here"):
        fit_dataset(signals, dataclasses.replace(CONFIG, num_refits=2), tmp_path)


def test_refits_and_views_are_rows_of_their_own(tmp_path: Path) -> None:
    signals = make_signals()
    views = Views(count=2, rotation=30.0)
    config = dataclasses.replace(CONFIG, num_refits=2, views=views, seed=3)

    dataset = fit_dataset(signals, config, tmp_path)

    train, test = dataset.split("train"), dataset.split("test")
    sizes = {split.name: len(split) for split in signals.splits}
    assert (len(train), len(test)) == (4 * sizes["train"], 2 * sizes["test"])
    assert train.provenance["view"].tolist() == ([0] * sizes["train"] + [1] * sizes["train"]) * 2
    assert train.init_seed.tolist() == [3] * 2 * sizes["train"] + [4] * 2 * sizes["train"]
    assert train.signal_index.reshape(4, -1).unique(dim=0).shape[0] == 1
    assert test.provenance["view"].unique().tolist() == [0]
    once = dataclasses.replace(CONFIG, seed=4, name="once")
    alone = fit_dataset(signals, once, tmp_path / "once").split("train")
    assert torch.equal(train.weights[2 * sizes["train"] : 3 * sizes["train"]], alone.weights)


def test_every_refit_and_view_has_the_properties_of_its_signal(tmp_path: Path) -> None:
    plain = make_signals()
    mass = 10.0 + torch.arange(len(plain), dtype=torch.float64)
    signals = dataclasses.replace(plain, properties={"mass": mass})
    config = dataclasses.replace(CONFIG, num_refits=2, views=Views(count=2, rotation=30.0))

    dataset = fit_dataset(signals, config, tmp_path)

    sizes = [len(split) for split in signals.splits]
    masses = mass.split(sizes)
    assert dataset.entry.properties == ("mass",)
    train, test = dataset.split("train"), dataset.split("test")
    assert torch.equal(train.properties["mass"], masses[0].repeat(4))
    assert torch.equal(test.properties["mass"], masses[-1].repeat(2))
    ends = (float(masses[0][0]), float(masses[0][-1]))
    assert dataset.entry.summary["train"].properties == {"mass": ends}
    again = load_neural_dataset(tmp_path)
    assert again.entry == dataset.entry
    with pytest.raises(ConfigError, match="fingerprint"):
        fit_dataset(plain, config, tmp_path)


def test_the_rate_counts_the_steps_that_were_taken(tmp_path: Path) -> None:
    signals = make_signals()
    fixed = dataclasses.replace(CONFIG, num_steps=20)
    psnr = fit_dataset(signals, fixed, tmp_path / "fixed").split("train").quality["psnr_db"]
    config = dataclasses.replace(fixed, num_steps=40, until_psnr=float(psnr.median()))

    report = run_fit(signals, config, tmp_path / "until")

    splits = [report.dataset.split(name) for name in report.dataset.split_names]
    steps = torch.cat([rows.provenance["num_steps"] for rows in splits]).double()
    assert len(steps.unique()) > 1
    assert report.num_steps == pytest.approx(float(steps.mean()))
    assert report.field_steps_per_s == pytest.approx(report.fields_per_s * report.num_steps)
    assert run_fit(signals, fixed, tmp_path / "fixed").num_steps == 20
