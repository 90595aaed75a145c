from __future__ import annotations

import pytest
import torch
from sklearn.metrics import jaccard_score

from nefbench.metrics import iou


def test_iou_gives_the_reference_value() -> None:
    truth = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]]) >= 0.5
    logits = torch.tensor([[0.2, -0.1, 0.3, -2.0, 0.0, -0.5]])

    # Inside both at points 0 and 4, inside either at 0, 1, 2 and 4; a logit of 0 is inside.
    assert iou(truth, logits >= 0).tolist() == [0.5]


def test_iou_equals_the_jaccard_score_of_scikit_learn_field_by_field() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 40, generator=generator) > 0.6
    inside = torch.rand(5, 40, generator=generator) > 0.3

    scores = iou(truth, inside)

    expected = [jaccard_score(a, b) for a, b in zip(truth.numpy(), inside.numpy(), strict=True)]
    assert scores.tolist() == pytest.approx(expected, abs=1e-7)
    assert scores.dtype == torch.float32


def test_iou_ranges_from_nothing_in_common_to_equal() -> None:
    truth = torch.tensor([[True, False], [True, False], [True, True]])
    inside = torch.tensor([[False, True], [True, False], [True, False]])

    assert iou(truth, inside).tolist() == [0.0, 1.0, 0.5]


def test_two_empty_shapes_agree() -> None:
    empty, full = torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)

    assert iou(empty, empty).tolist() == [1.0]
    assert iou(empty, full).tolist() == [0.0]
    assert iou(full, empty).tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_logits_and_occupancies_without_a_threshold_are_refused(dtype: torch.dtype) -> None:
    inside = torch.ones(1, 2, dtype=torch.bool)

    with pytest.raises(TypeError, match="expected truth of type bool"):
        iou(inside.to(dtype), inside)
    with pytest.raises(TypeError, match=r"expected estimate_inside .* logits >= 0"):
        iou(inside, inside.to(dtype))


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        iou(torch.ones(2, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool))
