"""What can be said of a neural dataset without training on it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fitting import FitConfig, FromFile, Meta
from fitting.starts import START_NAME
from nefbench import files
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError
from nefbench.metrics import nmi, set_ratio
from nefbench.seeding import Draws
from nefbench.weights import FieldRows, NeuralDataset

_MEASURED_SPLIT = "validation"
"""Distances are those of this split: a few hundred fields tell them."""
_MOST_FIELDS = 1_000
"""Fields that distances are taken of."""
_CLUSTERED_SPLIT = "train"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DatasetMeasures:
    """Measures of one neural dataset; those of quality over all ``ok`` fields of all splits.

    Attributes:
        quality_name: ``psnr_db`` or ``iou``.
        quality: Mean on the fitted points.
        quality_off: Mean between or beside them; None where signals have no such points.
        ratio_of_means: ``quality_off / quality``: R of Papa et al. 2024.
        mean_of_ratios: The other reading of R.
        nmi: Normalised mutual information of k-means clusters and classes, training split; None
            without classes.
        distance_to_start: Mean over fields of the weights' distance to their start, over the norm
            of the start.
        pairwise_distance: Mean distance between the weights of two fields.
        num_fields: All.
        num_diverged: Those that are not ``ok``.
    """

    quality_name: str
    quality: float | None
    quality_off: float | None
    ratio_of_means: float | None
    mean_of_ratios: float | None
    nmi: float | None
    distance_to_start: float | None
    pairwise_distance: float | None
    num_fields: int
    num_diverged: int


def measure_dataset(dataset: NeuralDataset) -> DatasetMeasures:
    """Measure a finished neural dataset.

    Raises:
        DatasetFormatError: If a part is damaged.
    """
    splits = {name: dataset.split(name) for name in dataset.split_names}
    good = {name: rows.select(rows.is_ok) for name, rows in splits.items()}
    name, off_name = ("iou", "iou_uniform") if dataset.is_of_shapes else ("psnr_db", "psnr_off_db")
    inside = torch.cat([rows.quality[name] for rows in good.values()])
    ratio = quality_off = None
    if all(off_name in rows.quality for rows in good.values()):
        off = torch.cat([rows.quality[off_name] for rows in good.values()])
        ratio, quality_off = set_ratio(off, inside), _mean(off)
    some = good.get(_MEASURED_SPLIT, next(iter(good.values())))
    some = some.select(torch.arange(len(some)) < _MOST_FIELDS)
    return DatasetMeasures(
        quality_name=name,
        quality=_mean(inside),
        quality_off=quality_off,
        ratio_of_means=None if ratio is None else _finite(ratio.ratio_of_means),
        mean_of_ratios=None if ratio is None else _finite(ratio.mean_of_ratios),
        nmi=_nmi(good.get(_CLUSTERED_SPLIT, some)),
        distance_to_start=_distance_to_start(dataset, some),
        pairwise_distance=_mean(torch.pdist(some.weights.double())),
        num_fields=sum(map(len, splits.values())),
        num_diverged=sum(map(len, splits.values())) - sum(map(len, good.values())),
    )


def write_measures(path: Path, measures: DatasetMeasures) -> None:
    """Keep measures in a file."""
    files.write_json(path, {"version": _VERSION, **config_to_mapping(measures)})


def read_measures(path: Path) -> DatasetMeasures | None:
    """Read measures from a file; None if there are none, or they are of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            return None
        return config_from_mapping(DatasetMeasures, content)
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _nmi(rows: FieldRows) -> float | None:
    if rows.labels is None:
        return None
    try:
        return nmi(rows.weights, rows.labels, num_restarts=3).value
    except ValueError:  # too few fields or classes are left
        return None


def _distance_to_start(dataset: NeuralDataset, rows: FieldRows) -> float | None:
    start = _start_of(dataset, rows)
    if start is None:
        return None
    distance = (rows.weights.double() - start.double()).norm(dim=1)
    return _mean(distance / start.double().norm(dim=1))


def _start_of(dataset: NeuralDataset, rows: FieldRows) -> Tensor | None:
    """Return the rows that fields started from; None where the record does not tell."""
    entry = dataset.entry
    try:
        init = config_from_mapping(FitConfig, entry.fit).init
    except ConfigError:  # imported, or fitted by another version
        return None
    if isinstance(init, Meta | FromFile):
        init = FromFile(path=dataset.folder / dataset.name / START_NAME)
    starts = torch.empty_like(rows.weights)
    views = rows.provenance["view"]
    for seed, view in sorted(set(zip(rows.init_seed.tolist(), views.tolist(), strict=True))):
        chosen = (rows.init_seed == seed) & (views == view)
        draws = Draws(seed, tuple(rows.signal_index[chosen].tolist()), view)
        starts[chosen] = init.rows(entry.field, entry.in_dim, entry.out_dim, draws)
    return starts


def _mean(values: Tensor) -> float | None:
    exact = values.double()
    exact = exact[exact.isfinite()]
    return float(exact.mean()) if len(exact) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
