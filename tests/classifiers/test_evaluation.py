from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, mean_absolute_error, r2_score

from classifiers.evaluation import (
    accuracy_of,
    calibration_of,
    confusion_of,
    errors_of,
    pooled_bins,
)


def logits_of(confidences: list[float], predicted: list[int]) -> torch.Tensor:
    """Two classes with the given probability of the predicted one."""
    shares = torch.tensor([[1 - c, c] for c in confidences], dtype=torch.float64)
    flipped = torch.tensor(predicted) == 0
    shares[flipped] = shares[flipped].flip(1)
    return shares.log()


def test_accuracy_and_confusion_agree_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    labels = torch.randint(0, 4, (200,), generator=generator)

    counts = confusion_of(logits, labels)

    expected = confusion_matrix(labels.numpy(), logits.argmax(1).numpy())
    assert counts == tuple(
        (i, j, expected[i, j]) for i in range(4) for j in range(4) if expected[i, j]
    )
    assert accuracy_of(logits, labels) == np.trace(expected) / 200


def test_cells_without_rows_are_left_out_of_the_confusion() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 3.0, 0.0]])

    assert confusion_of(logits, torch.tensor([2, 0, 2])) == ((0, 0, 1), (2, 1, 2))


def test_the_calibration_error_is_that_of_a_hand_computation() -> None:
    # Bins of width 1/15: 0.95 and 0.97 lie in the last, 0.62 in the tenth, (9/15, 10/15].
    logits = logits_of([0.95, 0.97, 0.62, 0.62], [1, 1, 0, 0])
    labels = torch.tensor([1, 0, 0, 1])

    found = calibration_of(logits, labels)

    assert [(i, b.num_rows) for i, b in enumerate(found.bins) if b.num_rows] == [(9, 2), (14, 2)]
    assert found.bins[14].confidence == pytest.approx(0.96)
    assert found.bins[14].accuracy == 0.5
    assert found.bins[9].confidence == pytest.approx(0.62)
    assert found.bins[0].confidence is None
    # (2 |0.5 - 0.96| + 2 |0.5 - 0.62|) / 4
    assert found.error == pytest.approx(0.29)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    # Three equal scores of 1/3 = 5/15: bin (4/15, 5/15]. A certain row: the last bin.
    logits = torch.tensor([[0.0, 0.0, 0.0], [200.0, 0.0, 0.0]])

    found = calibration_of(logits, torch.tensor([0, 0]))

    assert [b.num_rows for b in found.bins] == [0] * 4 + [1] + [0] * 9 + [1]


def test_scores_that_are_not_finite_have_no_confidence() -> None:
    found = calibration_of(torch.full((3, 2), math.nan), torch.tensor([0, 0, 0]))

    assert found.bins[0].num_rows == 3
    assert math.isfinite(found.error)


def test_pooled_bins_are_those_of_all_rows_together() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 3, generator=generator)
    labels = torch.randint(0, 3, (60,), generator=generator)

    pooled = pooled_bins(
        [calibration_of(logits[:20], labels[:20]), calibration_of(logits[20:], labels[20:])]
    )

    for found, expected in zip(pooled, calibration_of(logits, labels).bins, strict=True):
        assert found.num_rows == expected.num_rows
        if expected.num_rows:
            assert found.confidence == pytest.approx(expected.confidence)
            assert found.accuracy == pytest.approx(expected.accuracy)
        else:
            assert found.confidence is None


def test_errors_agree_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(100, 2, generator=generator).double() * 5 + 1000
    predicted = values + torch.randn(100, 2, generator=generator)

    found = errors_of(predicted, values, ("a", "b"))

    for index, errors in enumerate(found):
        true, guess = values[:, index].numpy(), predicted[:, index].numpy()
        assert errors.name == "ab"[index]
        assert errors.r2 == pytest.approx(r2_score(true, guess), rel=1e-12)
        assert errors.mae == pytest.approx(mean_absolute_error(true, guess), rel=1e-12)
        assert errors.rmse == pytest.approx(float(np.sqrt(np.mean((true - guess) ** 2))), rel=1e-12)
