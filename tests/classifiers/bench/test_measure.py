from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch

from classifiers.bench import (
    CASES,
    QUICK,
    TrainBenchConfig,
    TrainBenchReport,
    run_train_bench,
)
from classifiers.bench.zoo import contenders
from classifiers.models import DWS, GNN, MLP, ModelConfig

TINY = TrainBenchConfig(
    cases=("R1",),
    models=("mlp", "ng-gnn sparse", "ng-gnn", "dws-ds"),
    batch_size=2,
    repetitions=1,
    seconds=0.01,
    growth_models=("mlp",),
    growth_fields=(8, 16),
)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(said: list[str]) -> TrainBenchReport:
    return run_train_bench(TINY, say=said.append)


def test_every_model_is_measured_in_the_order_of_the_zoo(
    report: TrainBenchReport, said: list[str]
) -> None:
    assert [(t.case, t.name) for t in report.timings] == [("R1", name) for name in TINY.models]
    assert (report.device, report.threads, report.repetitions) == ("cpu", 1, 1)
    assert said[0] == "R1: mlp"
    assert said[-1] == "mlp: an epoch on 16 fields"


def test_rates_and_sizes_are_consistent(report: TrainBenchReport) -> None:
    for timing in report.timings:
        assert timing.batch_size == 2
        assert 0 < timing.samples_per_s_worst <= timing.samples_per_s <= timing.samples_per_s_best
        assert timing.memory_per_sample > 4 * CASES["R1"].num_params  # at least the row
        assert 1 <= timing.num_layer_modules < timing.num_modules
        # milliseconds of so many operations
        expected = timing.mflop_per_sample * timing.batch_size / report.gflop_per_s
        assert timing.floor_ms == pytest.approx(expected, rel=1e-9)
    by_name = {timing.name: timing for timing in report.timings}
    assert by_name["ng-gnn"].num_parameters == 92_010
    assert by_name["ng-gnn"].mflop_per_sample < by_name["ng-gnn sparse"].mflop_per_sample


def test_products_are_counted_forwards_and_backwards(report: TrainBenchReport) -> None:
    (mlp,) = (timing for timing in report.timings if timing.name == "mlp")
    network = MLP().build(CASES["R1"], 10)
    first, *others = (p.numel() for p in network.parameters() if p.ndim == 2)

    # Two operations per weight and field, three products per step; the input needs no gradient.
    assert mlp.mflop_per_sample == 2 * (2 * first + 3 * sum(others)) / 1e6


def test_a_model_is_compared_with_its_baseline_after_their_outputs_agree(
    report: TrainBenchReport,
) -> None:
    timings = {timing.name: timing for timing in report.timings}
    dense, sparse = timings["ng-gnn"], timings["ng-gnn sparse"]

    assert dense.baseline == "ng-gnn sparse"
    assert dense.ratio == dense.samples_per_s / sparse.samples_per_s > 0
    assert dense.deviation is not None
    assert 0 <= dense.deviation <= 1e-4  # float32, other orders of summation
    for name in ("mlp", "ng-gnn sparse", "dws-ds"):
        assert (timings[name].baseline, timings[name].ratio, timings[name].deviation) == (None,) * 3


def test_a_model_whose_baseline_is_left_out_has_no_ratio() -> None:
    config = dataclasses.replace(TINY, models=("ng-gnn",), growth_fields=())

    (timing,) = run_train_bench(config).timings

    assert (timing.baseline, timing.ratio, timing.deviation) == (None, None, None)


@pytest.mark.parametrize(("dense", "sparse"), [("gnn", "gnn sparse"), ("ng-t", "ng-t all pairs")])
def test_other_baselines_give_the_same_numbers(dense: str, sparse: str) -> None:
    config = dataclasses.replace(TINY, models=(sparse, dense), batch_size=1, growth_models=())

    timing = run_train_bench(config).timings[1]

    assert (timing.name, timing.baseline) == (dense, sparse)
    assert timing.deviation is not None
    assert timing.deviation <= 1e-4
    assert timing.ratio is not None
    assert timing.ratio > 0


def test_an_epoch_is_timed_for_every_size(report: TrainBenchReport) -> None:
    assert [(point.name, point.num_fields) for point in report.growth] == [("mlp", 8), ("mlp", 16)]
    assert all(point.seconds > 0 for point in report.growth)


def test_a_layer_of_dws_has_tens_of_modules(report: TrainBenchReport) -> None:
    sets = next(timing for timing in report.timings if timing.name == "dws-ds")
    attention = DWS().build(CASES["R1"], 10).get_submodule("layers.0")

    assert 10 <= sets.num_layer_modules <= 50
    assert 10 <= sum(1 for _ in attention.modules()) <= 50


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    config = dataclasses.replace(TINY, models=("mlp",), growth_fields=(), threads=before + 1)

    report = run_train_bench(config)

    assert report.threads == before + 1
    assert torch.get_num_threads() == before


def test_the_number_of_threads_is_restored_after_a_failure() -> None:
    before = torch.get_num_threads()

    def fail(_: str) -> None:
        assert torch.get_num_threads() == before + 1
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_train_bench(dataclasses.replace(TINY, threads=before + 1), say=fail)

    assert torch.get_num_threads() == before


def test_every_model_of_the_library_is_a_contender() -> None:
    zoo = contenders()
    names = [contender.name for contender in zoo]

    assert len(set(names)) == len(names)
    for place, contender in enumerate(zoo):
        assert contender.baseline is None or contender.baseline in names[:place]
    assert {type(contender.model) for contender in zoo} == set(get_args(ModelConfig))


def test_the_quick_measurement_has_every_model_beside_its_baseline() -> None:
    same = [contender for contender in contenders() if contender.baseline and contender.is_same]

    assert QUICK.cases == ("R1",)
    assert set(QUICK.models) == {name for c in same for name in (c.name, c.baseline)}


def test_the_same_configuration_has_a_sparse_and_a_dense_form() -> None:
    by_name = {contender.name: contender for contender in contenders()}

    dense, sparse = by_name["gnn"], by_name["gnn sparse"]

    assert dense.model == sparse.model == GNN(reverse_edges=True)
    states = [c.build(CASES["R1"], 10).state_dict() for c in (dense, sparse)]
    assert list(states[0]) == list(states[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repetitions": 0}, r"expected repetitions >= 1 \(got 0\)"),
        ({"seconds": 0.0}, r"expected seconds > 0 \(got 0.0\)"),
        ({"cases": ()}, r"expected cases of R1, R3 \(got none\)"),
        ({"cases": ("R2",)}, r"expected cases of R1, R3 \(got 'R2'\)"),
        ({"models": ("gin",)}, r"expected models of mlp, .*phase-gmn.* \(got 'gin'\)"),
        ({"growth_models": ("gin",)}, r"expected growth_models of .*\(got 'gin'\)"),
        ({"growth_fields": (8, 0)}, r"expected growth_fields >= 1 \(got \[8, 0\]\)"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainBenchConfig(**settings)
