from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import mutual_info_score

from nefbench.metrics import NMI, nmi
from nefbench.seeding import permutation


def blobs(per_class: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of three classes around three corners of a cube."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(per_class)
    centres = torch.eye(3)[labels]
    return centres + spread * torch.randn(centres.shape, generator=generator), labels


def entropy(labels: np.ndarray) -> float:
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def definition(weights: torch.Tensor, labels: torch.Tensor, k: int, restarts: int) -> float:
    """Mutual information over the mean of the entropies, from a k-means of the given start."""
    model = KMeans(k, init="k-means++", n_init=restarts, random_state=5, algorithm="lloyd")
    clusters = model.fit_predict(weights.double().numpy())
    classes = labels.numpy()
    mutual = float(mutual_info_score(classes, clusters))
    return mutual / ((entropy(classes) + entropy(clusters)) / 2)


def test_separate_classes_are_the_clusters() -> None:
    weights, labels = blobs(8, spread=0.01)

    result = nmi(weights, labels)

    assert result.value == pytest.approx(1.0)
    assert result == NMI(result.value, num_clusters=3, num_restarts=10, seed=0, num_fields=24)


@pytest.mark.parametrize(("k", "restarts"), [(3, 10), (5, 1)])
def test_nmi_is_mutual_information_over_the_mean_entropy(k: int, restarts: int) -> None:
    weights, labels = blobs(20, spread=0.6)

    result = nmi(weights, labels, num_clusters=k, num_restarts=restarts, seed=5)

    assert result.value == pytest.approx(definition(weights, labels, k, restarts), abs=1e-12)
    assert 0.05 < result.value < 0.95
    assert result == NMI(result.value, k, restarts, 5, 60)


def test_two_clusters_of_which_one_joins_two_classes() -> None:
    weights = torch.tensor([[0.0], [0.0], [9.0], [9.0]])

    result = nmi(weights, torch.tensor([0, 0, 1, 2]), num_clusters=2)

    # Mutual information log 2; entropies 3/2 log 2 and log 2.
    assert result.value == pytest.approx(1 / 1.25)


def test_weights_are_not_rescaled() -> None:
    # The second weight knows the class, the first is a thousand times larger and does not.
    labels = torch.tensor([0, 1, 0, 1])
    weights = torch.tensor([[-1000.0, 0.0], [-1000.0, 1.0], [1000.0, 0.0], [1000.0, 1.0]])

    assert nmi(weights, labels).value == pytest.approx(0.0, abs=1e-12)
    assert nmi(weights / torch.tensor([1e4, 1.0]), labels).value == pytest.approx(1.0)


def test_clustering_is_done_in_float64() -> None:
    # Squares of these weights overflow float32.
    weights = torch.tensor([[1e30], [1.1e30], [-1e30], [-1.1e30]])

    assert nmi(weights, torch.tensor([0, 0, 1, 1])).value == pytest.approx(1.0)


def test_neither_names_of_classes_nor_type_of_labels_matter() -> None:
    weights, labels = blobs(10, spread=0.6)

    renamed = torch.tensor([7, 2, 40])[labels]

    assert nmi(weights, renamed.int()) == nmi(weights, labels)


def test_fields_without_label_or_with_broken_weights_are_left_out() -> None:
    weights, labels = blobs(5, spread=0.4)
    bad = weights[:3].clone()
    bad[1, 0], bad[2, 0] = math.nan, math.inf

    result = nmi(torch.cat([bad, weights]), torch.cat([torch.tensor([-1, 0, 1]), labels]))

    assert result == nmi(weights, labels)
    assert result.num_fields == 15


def test_of_too_many_fields_a_subsample_is_drawn_by_the_seed() -> None:
    weights, labels = blobs(20, spread=0.6)
    rows = permutation(4, "metrics/nmi", 60)[:12].sort().values

    result = nmi(weights, labels, seed=4, max_fields=12)

    assert result == nmi(weights[rows], labels[rows], seed=4)
    assert result == nmi(weights, labels, seed=4, max_fields=12)
    assert result.num_fields == 12
    values = {nmi(weights, labels, seed=seed, max_fields=12).value for seed in range(4)}
    assert len(values) > 1


def test_fields_that_are_all_the_same_say_nothing_about_the_labels() -> None:
    result = nmi(torch.ones(6, 4), torch.tensor([0, 0, 1, 1, 2, 2]))

    assert (result.value, result.num_clusters) == (0.0, 3)


def test_random_labels_score_low() -> None:
    weights, labels = blobs(50, spread=0.05)
    shuffled = labels[permutation(0, "test", len(labels))]

    assert 0 <= nmi(weights, shuffled).value < 0.1


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([-1, -1, -1], {}, "at least 2 classes (got 0 among 0 fields"),
        ([1, 1, 1], {}, "at least 2 classes (got 1 among 3 fields"),
        ([0, 1], {}, "(got shapes (3, 2) and (2,))"),
        ([0, 1, 1], {"num_clusters": 4}, "expected num_clusters from 1 to 3 (got 4)"),
        ([0, 1, -1], {"num_clusters": 3}, "expected num_clusters from 1 to 2 (got 3)"),
        ([0, 1, 1], {"num_clusters": 0}, "expected num_clusters from 1 to 3 (got 0)"),
        ([0, 1, 1], {"num_restarts": 0}, "expected num_restarts >= 1 (got 0)"),
        ([0, 1, 1], {"max_fields": 0}, "expected max_fields >= 1 (got 0)"),
        ([0, 1, 1], {"seed": 2**32}, "expected seed from 0 to 4294967295"),
    ],
)
def test_what_cannot_be_clustered_is_refused_with_the_reason(
    labels: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        nmi(torch.eye(3)[:, :2], torch.tensor(labels), **options)

    assert message in str(error.value)
