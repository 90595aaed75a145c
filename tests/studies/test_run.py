"""Studies from one and from several workers, stopped, killed and continued."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nefbench.errors import ConfigError, Interrupted, SignalError
from nefbench.signals import ArrayFileConfig
from studies import storage as storage_module
from studies.design import Search, StudyConfig
from studies.queue import BEAT, DEATHS, RETRY_OF, WORKER, Watch, fill_queue, put_back
from studies.results import ERROR, runs_of
from studies.run import report_of, run_study
from studies.space import Choice, FitSpace, Real
from studies.storage import JOURNAL_NAME, load_study, open_storage, open_study

pytestmark = pytest.mark.usefixtures("one_thread")


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study, _ = load_study(None, open_storage(str(folder / JOURNAL_NAME)))
    return study.get_trials()


def test_a_grid_gives_one_result_per_point(tiny_study: StudyConfig, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []

    report = run_study(tiny_study, tmp_path, on_trials=lambda *counts: told.append(counts))

    assert [(r.init, r.num_steps) for r in report.results] == [
        ("random", 2), ("random", 6), ("shared", 2), ("shared", 6),
    ]  # fmt: skip
    assert told[0] == (0, 4, 0)
    assert told[-1] == (4, 4, 0)
    assert report.causes == {}
    assert all(r.chance_accuracy == 0.1 and r.num_seeds == 2 for r in report.results)


def test_several_workers_find_the_same_bit_for_bit(tiny_study: StudyConfig, tmp_path: Path) -> None:
    one = run_study(tiny_study, tmp_path / "one")

    several = run_study(tiny_study, tmp_path / "several", workers=4)

    assert several.results == one.results


def test_a_finished_study_is_read_and_nothing_is_done_again(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    first = run_study(tiny_study, tmp_path)
    journal = (tmp_path / JOURNAL_NAME).read_bytes()

    second = run_study(tiny_study, tmp_path)

    assert second.results == first.results
    assert len(trials_of(tmp_path)) == 4
    assert (tmp_path / JOURNAL_NAME).read_bytes() == journal


def test_an_interrupted_study_goes_on_where_it_was(tiny_study: StudyConfig, tmp_path: Path) -> None:
    whole = run_study(tiny_study, tmp_path / "whole")

    def stop_in_training(what: str, done: int, _: int) -> None:
        if what == "train" and done == 1 and len(list((tmp_path / "s").rglob("report.json"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="2 of 4 trials are finished: the same command continues"):
        run_study(tiny_study, tmp_path / "s", on_progress=stop_in_training)
    report = run_study(tiny_study, tmp_path / "s")

    assert report.results == whole.results
    assert report.causes == {}
    assert report.num_trials == 4


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_the_trial_of_a_killed_worker_is_done_by_another(
    kind: str, tiny_study: StudyConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path / "k" / JOURNAL_NAME)
    if kind == "postgresql":
        place = request.getfixturevalue("postgresql")
    whole = run_study(tiny_study, tmp_path / "whole")
    study = open_study(tiny_study, open_storage(place))
    killed: list[int] = []

    def kill_one(*_: int) -> None:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if WORKER in trial.user_attrs and not killed:
                killed.append(trial.number)
                os.kill(trial.user_attrs[WORKER]["pid"], signal.SIGKILL)

    report = run_study(tiny_study, tmp_path / "k", storage=place, workers=2, on_trials=kill_one)

    assert len(killed) == 1
    assert report.results == whole.results
    assert report.causes == {}
    trials = study.get_trials()
    again = [trial for trial in trials if RETRY_OF in trial.user_attrs]
    assert [(t.user_attrs[RETRY_OF], t.user_attrs[DEATHS]) for t in again] == [(killed[0], 1)]


def test_a_trial_that_costs_three_workers_is_closed_for_good(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = open_study(tiny_study, open_storage(str(tmp_path / JOURNAL_NAME)))
    study.enqueue_trial({"init.kind": "shared", "num_steps": 2})
    for _ in range(3):
        trial = study.ask()
        assert put_back(study, study.get_trials()[trial.number], is_death=True)

    assert not study.get_trials(states=(TrialState.WAITING,))
    assert len(study.get_trials(states=(TrialState.FAIL,))) == 3


def test_a_worker_elsewhere_that_no_longer_beats_is_lost(
    tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("studies.queue.time.monotonic", lambda: now)
    study = open_study(tiny_study, open_storage(str(tmp_path / JOURNAL_NAME)))
    study.enqueue_trial({"init.kind": "shared", "num_steps": 2})
    trial = study.ask()
    trial.set_user_attr(WORKER, {"key": "k", "host": "elsewhere", "pid": 1})
    watch = Watch(tmp_path / "workers")

    assert watch.put_back_lost(study) == []
    now = 59.0
    trial.set_user_attr(BEAT, 1)
    assert watch.put_back_lost(study) == []
    now = 118.0
    assert watch.put_back_lost(study) == []
    now = 120.0
    assert watch.put_back_lost(study) == [0]
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert [t.system_attrs["fixed_params"] for t in waiting] == [
        {"init.kind": "shared", "num_steps": 2}
    ]


def test_a_trial_whose_worker_died_before_it_signed_is_not_left_out(
    tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.queue.SECONDS_UNTIL_DEAD", 1.0)
    study = open_study(tiny_study, open_storage(str(tmp_path / JOURNAL_NAME)))
    fill_queue(study, tiny_study)
    study.ask()

    report = run_study(tiny_study, tmp_path)

    assert len(report.results) == 4
    assert report.causes == {}


# Searches


@pytest.fixture
def search(tiny_study: StudyConfig) -> StudyConfig:
    siren = tiny_study.fields["siren"].fit
    space = FitSpace(
        fit=siren,
        space={
            "num_steps": Choice(values=(2, 6)),
            "optimizer.learning_rate": Real(low=1e-4, high=1e-2, log=True),
        },
    )
    return dataclasses.replace(
        tiny_study, fields={"siren": space}, design=Search(num_trials=3, seed=1)
    )


def test_a_search_that_was_stopped_repeats_the_trials_of_one_that_was_not(
    search: StudyConfig, tmp_path: Path
) -> None:
    run_study(search, tmp_path / "whole")
    longer = dataclasses.replace(search, design=dataclasses.replace(search.design, num_trials=1))

    run_study(longer, tmp_path / "parts")
    run_study(search, tmp_path / "parts")

    whole, parts = trials_of(tmp_path / "whole"), trials_of(tmp_path / "parts")
    assert [t.params for t in parts] == [t.params for t in whole]
    assert [t.values for t in parts] == [t.values for t in whole]
    assert len({str(t.params) for t in whole}) == 3


def test_two_objectives_give_two_values(search: StudyConfig, tmp_path: Path) -> None:
    design = Search(num_trials=2, objectives=("validation_accuracy", "quality"), sampler="nsga2")

    report = run_study(dataclasses.replace(search, design=design), tmp_path)

    for trial in trials_of(tmp_path):
        result = trial.user_attrs["result"]
        assert trial.values == [result["validation_accuracy"], result["measures"]["quality"]]
    assert len(report.results) == 2


def test_a_training_worse_than_the_median_is_pruned(search: StudyConfig, tmp_path: Path) -> None:
    class Never(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            del study
            return trial.number == 1 and trial.last_step == 1

    config = dataclasses.replace(search, design=Search(num_trials=3, pruning=True))
    original = storage_module.pruner_of
    storage_module.pruner_of = lambda _: Never()
    try:
        report = run_study(config, tmp_path)
    finally:
        storage_module.pruner_of = original

    assert report.num_pruned == 1
    assert trials_of(tmp_path)[1].state == TrialState.PRUNED
    assert trials_of(tmp_path)[0].intermediate_values.keys() == {1, 2}


# Failures and refusals


def test_a_trial_that_cannot_be_fitted_is_listed_and_the_others_go_on(
    search: StudyConfig, tmp_path: Path
) -> None:
    space = FitSpace(
        fit=dataclasses.replace(search.fields["siren"].fit, num_steps=2),
        space={"optimizer.learning_rate": Choice(values=(1e-3, 1e30))},
    )
    config = dataclasses.replace(search, fields={"siren": space}, design=Search(num_trials=4))

    report = run_study(config, tmp_path)

    assert report.results
    (cause,) = report.causes
    assert "split 'train' is empty (150 diverged fields were left out)" in cause


def test_a_cause_that_names_several_datasets_is_one_cause(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = open_study(tiny_study, open_storage(str(tmp_path / JOURNAL_NAME)))
    for key in ("0123456789abcdef01234567", "76543210fedcba9876543210"):
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.FAIL, user_attrs={ERROR: f"store/datasets/{key}: damaged"}
            )
        )

    assert report_of(study, tiny_study).causes == {"store/datasets/…: damaged": 2}


def test_what_a_run_took_is_kept_unless_there_was_nothing_to_do(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    reports = [run_study(tiny_study, tmp_path) for _ in range(2)]
    study, _ = load_study(None, open_storage(str(tmp_path / JOURNAL_NAME)))

    (run,) = runs_of(study)

    assert run.seconds == reports[0].seconds
    assert (run.device, run.workers) == ("cpu", 1)


def test_a_store_that_is_a_file_is_refused(tiny_study: StudyConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"the store .*file is no folder"):
        run_study(tiny_study, tmp_path / "s", store=tmp_path / "file")

    assert not (tmp_path / "s").exists()


def test_another_study_of_the_same_name_is_refused(tiny_study: StudyConfig, tmp_path: Path) -> None:
    run_study(tiny_study, tmp_path)
    fields = {"siren": dataclasses.replace(
        tiny_study.fields["siren"], fit=dataclasses.replace(tiny_study.fields["siren"].fit, seed=3)
    )}  # fmt: skip

    with pytest.raises(
        ConfigError, match=r"another study 'tiny' \(fields.siren.fit.seed = 0 there"
    ):
        run_study(dataclasses.replace(tiny_study, fields=fields), tmp_path)


def test_a_study_begun_by_other_code_is_refused(
    tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(tiny_study, tmp_path)
    monkeypatch.setattr(storage_module, "code_version", lambda: "9.9 (ffffffff)")

    with pytest.raises(ConfigError, match=r"begun by nefbench 0\.\S+ \(.*this is 9.9 \(ffffffff\)"):
        run_study(tiny_study, tmp_path)


def test_a_source_that_cannot_be_opened_is_told_before_anything_is_written(
    tiny_study: StudyConfig, tmp_path: Path
) -> None:
    sources = {"gone": ArrayFileConfig(path=tmp_path / "gone.npz")}

    with pytest.raises(SignalError, match=r"gone\.npz"):
        run_study(dataclasses.replace(tiny_study, sources=sources), tmp_path / "s")

    assert not (tmp_path / "s").exists()


def test_a_storage_that_is_none_is_refused(tiny_study: StudyConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--storage postgresql://here/x: "):
        run_study(tiny_study, tmp_path, storage="postgresql://me:secret@here/x")


def test_a_lock_left_behind_by_a_killed_process_holds_nobody_up_for_long(
    tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = open_study(tiny_study, open_storage(JOURNAL_NAME))
    lock = tmp_path / f"{JOURNAL_NAME}.lock"
    lock.symlink_to(tmp_path / JOURNAL_NAME)

    study.enqueue_trial({"init.kind": "shared", "num_steps": 2})

    assert not lock.is_symlink()
    assert len(study.get_trials()) == 1
