"""Normalised mutual information of the clusters of weights with labels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import Tensor

from nefbench.seeding import permutation


@dataclass(frozen=True)
class NMI:
    """How well clusters of weights agree with labels, with all that the number depends on.

    Attributes:
        value: In [0, 1]; 1 if clusters and labels are the same partition. Not corrected for
            chance: random clusters score above 0, the more so the fewer fields there are.
        num_clusters: Clusters of k-means.
        num_restarts: Starts of k-means, of which the tightest clustering counts.
        seed: Seed of the subsample and of k-means.
        num_fields: Fields that were clustered, after leaving out and subsampling.
    """

    value: float
    num_clusters: int
    num_restarts: int
    seed: int
    num_fields: int


def nmi(
    weights: Tensor,
    labels: Tensor,
    *,
    num_clusters: int | None = None,
    num_restarts: int = 10,
    seed: int = 0,
    max_fields: int = 10_000,
) -> NMI:
    """Cluster flat weights with k-means and compare the clusters with the labels.

    Lloyd's algorithm from k-means++ starts, at most 300 iterations, on unscaled weights in
    float64; mutual information over the arithmetic mean of both entropies. fit-a-nef uses one
    restart of 100 iterations and finds the centres from 256 fields per cluster. Here every field
    that is scored is clustered too.

    Fields with a negative label or a weight that is not finite are left out. Of more than
    ``max_fields`` fields a subsample is drawn. It depends on the seed and on the number of fields
    left, and k-means depends on their order. The copy in float64 takes ``8 * num_fields * P``
    bytes.

    Args:
        weights: ``[N, P]``.
        labels: Class of every field, integers ``[N]``; negative where unknown.
        num_clusters: Clusters, by default the number of classes among the fields clustered.
        num_restarts: Starts of k-means.
        seed: From 0 to 2**32 - 1; the random state of scikit-learn.
        max_fields: Most fields that are clustered.

    Raises:
        ValueError: If a number is out of range, there is not one label per field, the usable
            fields have fewer than two classes (0 / 0), or they are fewer than the clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import normalized_mutual_info_score

    if weights.ndim != 2 or labels.shape != weights.shape[:1]:
        raise ValueError(
            f"expected weights [N, P] with labels [N] "
            f"(got shapes {tuple(weights.shape)} and {tuple(labels.shape)})"
        )
    _check_range("num_restarts", num_restarts, 1, None)
    _check_range("max_fields", max_fields, 1, None)
    _check_range("seed", seed, 0, 2**32 - 1)

    rows = _usable_rows(weights, labels, seed, max_fields)
    classes = labels[rows].cpu().numpy()
    num_classes = len(set(classes.tolist()))
    if num_classes < 2:
        raise ValueError(
            f"expected fields of at least 2 classes (got {num_classes} among {len(rows)} fields "
            f"with a label and finite weights)"
        )
    if num_clusters is None:
        num_clusters = num_classes
    _check_range("num_clusters", num_clusters, 1, len(rows))

    kmeans = KMeans(num_clusters, n_init=num_restarts, random_state=seed, algorithm="lloyd")
    with warnings.catch_warnings():
        # Fields that are all the same (no step taken from a shared start) are a result: 0.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = kmeans.fit_predict(weights[rows].double().cpu().numpy())
    value = normalized_mutual_info_score(classes, clusters, average_method="arithmetic")
    return NMI(float(value), num_clusters, num_restarts, seed, len(rows))


def _usable_rows(weights: Tensor, labels: Tensor, seed: int, max_fields: int) -> Tensor:
    """Return indices of at most ``max_fields`` labelled, finite rows, in ascending order."""
    usable = (labels >= 0) & weights.isfinite().all(1)
    rows = usable.nonzero().squeeze(1)
    if len(rows) <= max_fields:
        return rows
    drawn = permutation(seed, "metrics/nmi", len(rows))[:max_fields]
    return rows[drawn.sort().values.to(rows.device)]


def _check_range(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        bounds = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"expected {name} {bounds} (got {value})")
