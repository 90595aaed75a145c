"""A trained classifier on disk: plain tensors and a JSON header, never pickled code."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifiers.config import ClassifierConfig
from classifiers.reader import WeightReader, build_reader
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench import files
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import CheckpointError, TrainingError
from nefbench.fields import FieldConfig

FORMAT_VERSION = 2

_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier with everything it needs to read new weights.

    Attributes:
        network: Normalisation and model, ``[B, P] -> [B, K]``.
        config: How it was trained.
        space: What the rows mean that it reads.
        class_names: One per class.
        dataset_digest: Of the dataset it was trained on.
    """

    network: WeightReader
    config: ClassifierConfig
    space: WeightSpace
    class_names: tuple[str, ...]
    dataset_digest: str

    def logits(self, rows: Tensor) -> Tensor:
        """Score rows ``[N, P]``; returns ``[N, K]``.

        Raises:
            TrainingError: If rows are of another width or not finite.
        """
        expected = self.space.num_params
        if rows.ndim != 2 or rows.shape[1] != expected:
            raise TrainingError(
                f"this classifier reads rows of {expected} weights "
                f"(got shape {tuple(rows.shape)}); it was trained on {self.space.name}"
            )
        bad = int((~rows.isfinite().all(1)).sum())
        if bad:
            raise TrainingError(f"{bad} of {len(rows)} rows hold NaN or infinite weights")
        self.network.eval()
        with torch.no_grad():
            scores: Tensor = self.network(rows)
        return scores

    def predict(self, rows: Tensor) -> Tensor:
        """Return the most likely class of every row, int64 ``[N]``."""
        return self.logits(rows).argmax(1)


def checkpoint_name(seed: int) -> str:
    """File name of the checkpoint of one seed."""
    return f"classifier-seed{seed}.pt"


def save_classifier(classifier: TrainedClassifier, path: Path) -> None:
    """Write a checkpoint atomically."""
    header = {
        "format_version": FORMAT_VERSION,
        "config": config_to_mapping(classifier.config),
        "space": _space_to_mapping(classifier.space),
        "class_names": list(classifier.class_names),
        "dataset_digest": classifier.dataset_digest,
    }
    buffer = io.BytesIO()
    torch.save({"header": json.dumps(header), "state": classifier.network.state_dict()}, buffer)
    files.write_bytes(path, buffer.getvalue())


def load_classifier(path: Path | str) -> TrainedClassifier:
    """Read a checkpoint; only tensors and text are accepted.

    Raises:
        CheckpointError: If it is missing, damaged, foreign or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}")
    try:
        if not zipfile.is_zipfile(path):  # older pickles: torch warns about some of them
            raise ValueError("not an archive")
        content = torch.load(path, map_location="cpu", weights_only=True)
        header = json.loads(content["header"])
        version = int(header["format_version"])
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} is not a classifier checkpoint, or damaged") from error
    if version < FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this nefbench reads version {FORMAT_VERSION}; "
            f"train it again"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this nefbench reads up to {FORMAT_VERSION}; "
            f"upgrade nefbench"
        )
    try:
        return _classifier_from(header, content["state"])
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} does not fit its own header ({error})") from error


def _classifier_from(header: Mapping[str, Any], state: Mapping[str, Tensor]) -> TrainedClassifier:
    config = config_from_mapping(ClassifierConfig, header["config"])
    space = _space_from_mapping(header["space"])
    class_names = tuple(header["class_names"])
    network = build_reader(config.model, space, len(class_names))
    network.load_state_dict(dict(state))
    return TrainedClassifier(network, config, space, class_names, header["dataset_digest"])


@dataclass(frozen=True, kw_only=True)
class _FieldSpace:
    field: FieldConfig
    in_dim: int
    out_dim: int
    half_side: float


def _space_to_mapping(space: WeightSpace) -> dict[str, Any]:
    if space.field is None:
        return {"num_values": space.num_params}
    return config_to_mapping(
        _FieldSpace(
            field=space.field,
            in_dim=space.in_dim,
            out_dim=space.out_dim,
            half_side=space.half_side,
        )
    )


def _space_from_mapping(mapping: Mapping[str, Any]) -> WeightSpace:
    if "num_values" in mapping:
        return space_of_values((int(mapping["num_values"]),))
    space = config_from_mapping(_FieldSpace, mapping)
    return space_of(space.field, space.in_dim, space.out_dim, half_side=space.half_side)
