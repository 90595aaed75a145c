"""Every question on results whose answer is known beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib
import matplotlib.pyplot
import optuna
import pytest

from studies.measures import DatasetMeasures
from studies.questions import QUESTIONS, Answer, Evidence, Unanswered
from studies.questions.clusters import clusters_and_accuracy
from studies.questions.distance import distance_and_steps
from studies.questions.quality import quality_and_accuracy
from studies.questions.ratio import ratio_and_accuracy, regret
from studies.questions.search import (
    good_values,
    importances,
    pareto_front,
    two_settings,
)
from studies.questions.starts import shared_or_random
from studies.results import TrialResult
from studies.store import Store

optuna.logging.set_verbosity(optuna.logging.ERROR)

STEPS = (5, 50, 500)
ACCURACY = {5: 0.6, 50: 0.8, 500: 0.7}
"""Of shared starts: it falls after 50 steps."""


def result(init: str, width: int, steps: int, accuracy: float) -> TrialResult:
    """A result whose R falls and whose NMI and quality rise with the number of steps."""
    order = STEPS.index(steps)
    return TrialResult(
        source="digits", field="siren", classifier="mlp", init=init, num_steps=steps,
        hidden_features=width, dataset=f"{init}-{width}-{steps}", training="t", num_seeds=3,
        train_accuracy=0.9, validation_accuracy=accuracy + 0.01, test_accuracy=accuracy,
        test_accuracy_sd=0.01, chance_accuracy=0.1, majority_accuracy=0.12, num_parameters=1000,
        measures=DatasetMeasures(
            quality_name="psnr_db", quality=10.0 * (order + 1), quality_off=9.0,
            ratio_of_means=1.0 - 0.1 * order, mean_of_ratios=1.0 - 0.1 * order,
            nmi=accuracy / 2, distance_to_start=0.1 * (order + 1) + width / 1000,
            pairwise_distance=2.0 if init == "random" else 0.5, num_fields=100, num_diverged=0,
        ),
    )  # fmt: skip


RESULTS = [
    result(init, width, steps, ACCURACY[steps] + width / 1000 if init == "shared" else 0.2)
    for init in ("shared", "random")
    for width in (8, 16)
    for steps in STEPS
]


def evidence(results: list[TrialResult], *, is_grid: bool = True) -> Evidence:
    return Evidence(results, optuna.create_study(), Store(Path("nowhere")), is_grid)


def test_shared_starts_are_compared_with_random_ones_point_by_point() -> None:
    answer = shared_or_random(evidence(RESULTS))

    assert isinstance(answer, Answer)
    (row,) = answer.rows
    # Means over six points: shared 0.7 plus the mean of 0.008 and 0.016, random 0.2.
    assert row[3:9] == (6, 0.2, 0.0, 0.712, pytest.approx(0.09, abs=0.005), 256.0)
    assert str(row[9]).startswith("0.512 [0.")
    assert answer.verdict.startswith("Shared starts are ahead in 1 of 1 comparisons")
    assert answer.details[0].startswith("siren on digits (mlp): shared is ahead by 0.512 [")


def test_points_without_a_counterpart_do_not_count() -> None:
    answer = shared_or_random(evidence([*RESULTS, result("shared", 64, 5, 0.0)]))

    assert isinstance(answer, Answer)
    assert answer.rows[0][3] == 6


def test_the_best_number_of_steps_is_chosen_by_validation_accuracy() -> None:
    answer = quality_and_accuracy(evidence(RESULTS))

    assert isinstance(answer, Answer)
    shared = [row for row in answer.rows if row[3] == "shared"]
    assert [(row[4], row[5], row[8], row[-1]) for row in shared] == [
        (16, 50, 500, 0.1), (8, 50, 500, 0.1),
    ]  # fmt: skip
    assert answer.verdict.endswith(
        "2 of 2 architectures lose: too few architectures to tell whether there is a trade-off."
    )


def test_the_correlation_of_r_and_the_price_of_choosing_by_it() -> None:
    answer = ratio_and_accuracy(evidence(RESULTS))

    assert isinstance(answer, Answer)
    (row,) = answer.rows
    assert row[3] == 6
    # By validation nothing is lost; R takes a fit of 5 steps; quality one of 500, both of width 8.
    assert row[6:] == (0.0, pytest.approx(0.208), pytest.approx(0.108), 0.0)


def test_regret_is_the_best_accuracy_minus_that_of_the_choice() -> None:
    some = RESULTS[:3]

    assert regret(some, lambda r: -r.num_steps) == pytest.approx(0.2)
    assert regret(some, lambda r: r.test_accuracy) == 0
    assert regret(some, lambda _: None) is None


def test_clusters_are_correlated_over_all_datasets() -> None:
    answer = clusters_and_accuracy(evidence(RESULTS))

    assert isinstance(answer, Answer)
    (row,) = answer.rows
    assert row[:2] == ("digits", 12)
    assert str(row[2]).startswith("1.00 [")


def test_distances_are_means_over_widths() -> None:
    answer = distance_and_steps(evidence(RESULTS))

    assert isinstance(answer, Answer)
    assert ("digits", "siren", "shared", 50, 0.212, 0.5) in answer.rows
    assert ("digits", "siren", "random", 500, 0.312, 2.0) in answer.rows


@pytest.fixture
def searched() -> Evidence:
    """Thirty random trials of a + 0.01 b."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: trial.suggest_float("a", 0, 1) + 0.01 * trial.suggest_float("b", 0, 1),
        n_trials=30,
    )
    return Evidence([], study, Store(Path("nowhere")), False)


def test_the_setting_that_decides_is_found(searched: Evidence) -> None:
    answer = importances(searched)

    assert isinstance(answer, Answer)
    assert answer.rows[0][0] == "a"
    assert isinstance(answer.rows[0][1], float)
    assert answer.rows[0][1] > 0.9
    best = [row[2] for row in answer.drawn]
    assert best == sorted(best)


def test_good_values_are_those_of_the_best_tenth(searched: Evidence) -> None:
    best = sorted(searched.study.trials, key=lambda trial: -trial.values[0])[:3]

    answer = good_values(searched)

    assert isinstance(answer, Answer)
    values = [trial.params["a"] for trial in best]
    assert answer.rows[0] == ("a", f"{min(values):.3g}", f"{max(values):.3g}")
    assert len(answer.figure.axes) == 3  # two slices and the colours of the trials


def test_the_best_trial_leads_the_table_of_two_settings(searched: Evidence) -> None:
    answer = two_settings(searched)

    assert isinstance(answer, Answer)
    assert answer.rows[0][0] == searched.study.best_trial.number
    assert answer.columns == ("trial", "value", "a", "b")


def test_figures_of_optuna_leave_the_style_of_ours_alone(searched: Evidence) -> None:
    before = dict(matplotlib.rcParams)

    good_values(searched)
    two_settings(searched)

    assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == []


def test_the_front_holds_what_nothing_surpasses() -> None:
    study = optuna.create_study(directions=["maximize", "maximize"])
    for accuracy, quality in [(0.9, 10.0), (0.5, 30.0), (0.4, 20.0), (0.8, 20.0)]:
        study.add_trial(optuna.trial.create_trial(values=[accuracy, quality]))

    answer = pareto_front(Evidence([], study, Store(Path("nowhere")), False))

    assert isinstance(answer, Answer)
    assert [row[:3] for row in answer.rows] == [(0, 0.9, 10.0), (3, 0.8, 20.0), (1, 0.5, 30.0)]
    assert "from 10.00 to 30.00 while the first falls from 0.900 to 0.500" in answer.verdict


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_question_without_evidence_says_what_it_needs(ask: object) -> None:
    for results in ([], RESULTS[:1]):
        answer = ask(evidence(results))  # type: ignore[operator]
        assert isinstance(answer, Unanswered)
        assert answer.needs


@pytest.mark.parametrize("ask", [shared_or_random, quality_and_accuracy, distance_and_steps])
def test_a_search_does_not_hold_other_things_equal(ask: object) -> None:
    answer = ask(evidence(RESULTS, is_grid=False))  # type: ignore[operator]

    assert isinstance(answer, Unanswered)
    assert "a grid" in answer.needs


def test_fields_that_all_diverged_have_no_quality_and_are_left_out() -> None:
    measures = dataclasses.replace(
        RESULTS[0].measures, quality=None, ratio_of_means=None, mean_of_ratios=None, nmi=None
    )
    broken = dataclasses.replace(RESULTS[0], dataset="x", training="u", measures=measures)

    for ask in (quality_and_accuracy, ratio_and_accuracy, clusters_and_accuracy):
        with_it, without = ask(evidence([*RESULTS, broken])), ask(evidence(RESULTS))
        assert isinstance(with_it, Answer)
        assert isinstance(without, Answer)
        assert with_it.rows == without.rows
