from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fitting import FitConfig, Meta, Random, Shared, run_fit
from fitting.inits import InitConfig
from nefbench.fields import Siren
from nefbench.metrics import nmi
from nefbench.seeding import Draws
from nefbench.signals import DigitsConfig, ProceduralShapesConfig
from studies.measures import measure_dataset, read_measures, write_measures

pytestmark = pytest.mark.usefixtures("one_thread")

FIT = FitConfig(field=Siren(hidden_dim=4), num_steps=5, engine="vmapped")
DIGITS = DigitsConfig(max_signals=150, validation_size=30, test_size=30)


def test_measures_are_means_over_all_good_fields_of_all_splits(tmp_path: Path) -> None:
    dataset = run_fit(DIGITS.open(), FIT, tmp_path).dataset
    rows = [dataset.split(name) for name in dataset.split_names]
    inside = torch.cat([part.quality["psnr_db"] for part in rows]).double()
    off = torch.cat([part.quality["psnr_off_db"] for part in rows]).double()

    measures = measure_dataset(dataset)

    assert measures.quality_name == "psnr_db"
    assert measures.quality == pytest.approx(inside.mean().item(), rel=1e-12)
    assert measures.quality_off == pytest.approx(off.mean().item(), rel=1e-12)
    assert measures.ratio_of_means == pytest.approx((off.mean() / inside.mean()).item(), rel=1e-12)
    assert measures.mean_of_ratios == pytest.approx((off / inside).mean().item(), rel=1e-6)
    assert (measures.num_fields, measures.num_diverged) == (150, 0)
    train = dataset.split("train")
    assert train.labels is not None
    assert measures.nmi == nmi(train.weights, train.labels, num_restarts=3).value


@pytest.mark.parametrize("init", [Shared(), Random()])
def test_distances_are_those_from_the_drawn_start(init: InitConfig, tmp_path: Path) -> None:
    signals = DIGITS.open()
    config = dataclasses.replace(FIT, init=init)
    dataset = run_fit(signals, config, tmp_path).dataset
    rows = dataset.split("validation")
    draws = Draws(0, tuple(rows.signal_index.tolist()))
    start = init.rows(config.field, 2, 1, draws).double().numpy()
    weights = rows.weights.double().numpy()
    relative = np.linalg.norm(weights - start, axis=1) / np.linalg.norm(start, axis=1)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(weights) for b in weights[:i]]

    measures = measure_dataset(dataset)

    assert measures.distance_to_start == pytest.approx(relative.mean(), rel=1e-9)
    assert measures.pairwise_distance == pytest.approx(np.mean(pairs), rel=1e-6)


def test_the_distance_from_a_learned_start_is_measured_too(tmp_path: Path) -> None:
    config = dataclasses.replace(FIT, init=Meta(outer_steps=2))

    measures = measure_dataset(run_fit(DIGITS.open(), config, tmp_path).dataset)

    assert measures.distance_to_start is not None
    assert 0 < measures.distance_to_start < 1


def test_shapes_are_measured_by_their_overlap(tmp_path: Path) -> None:
    signals = ProceduralShapesConfig(
        train_size=12, validation_size=2, test_size=2, num_uniform=200, num_near_surface=200,
        num_held_out=200,
    ).open()  # fmt: skip

    measures = measure_dataset(
        run_fit(signals, dataclasses.replace(FIT, points_per_step=64), tmp_path).dataset
    )

    assert measures.quality_name == "iou"
    assert measures.ratio_of_means is not None


def test_measures_are_kept_in_a_file_and_read_from_it(tmp_path: Path) -> None:
    measures = measure_dataset(run_fit(DIGITS.open(), FIT, tmp_path / "d").dataset)
    path = tmp_path / "m.json"

    write_measures(path, measures)

    assert read_measures(path) == measures


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 0}', '{"version": 1}'])
def test_a_file_that_does_not_hold_measures_counts_as_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)

    assert read_measures(path) is None
    assert read_measures(tmp_path / "missing.json") is None
