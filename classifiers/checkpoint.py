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
from classifiers.examples import space_of_dataset
from classifiers.gauge_fixing import fix_gauge
from classifiers.reader import PropertyScale, WeightReader, build_reader, read_rows
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench import files
from nefbench.config import config_from_mapping, config_to_mapping
from nefbench.errors import CheckpointError, TrainingError
from nefbench.fields import FieldConfig
from nefbench.weights import NeuralDataset

FORMAT_VERSION = 3

UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError,
    ValueError,
)  # fmt: skip
"""What ``torch.load``, ``json.loads`` and reading their results raise on foreign content."""


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, or regressor, with everything it needs to read new weights.

    Attributes:
        network: Normalisation and model, ``[B, P] -> [B, K]``.
        config: How it was trained.
        space: What the rows mean that it reads.
        class_names: One per class; empty for a regressor.
        dataset_digest: Of the dataset it was trained on.
        property_names: What a regressor predicts.
        scale: From a regressor's outputs to the units of the properties.
        reference: The row ``[P]`` that rows are aligned to, where ``config.gauge_fixing`` says so.
    """

    network: WeightReader
    config: ClassifierConfig
    space: WeightSpace
    class_names: tuple[str, ...]
    dataset_digest: str
    property_names: tuple[str, ...] = ()
    scale: PropertyScale | None = None
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        shape = None if self.reference is None else tuple(self.reference.shape)
        expected = (self.space.num_params,) if self.config.gauge_fixing == "aligned" else None
        if shape != expected:
            raise ValueError(f"expected a reference of shape {expected} (got {shape})")

    def logits(self, rows: Tensor) -> Tensor:
        """Score rows ``[N, P]`` as they are stored; returns ``[N, K]``.

        Where the classifier was trained on canonical or aligned rows, they are brought to that form
        first, which takes about a millisecond per row.

        Raises:
            TrainingError: If rows are of another width or not finite.
        """
        expected = self.space.num_params
        if rows.ndim != 2 or rows.shape[1] != expected:
            raise TrainingError(
                f"this classifier reads rows of {expected} weights "
                f"(got shape {tuple(rows.shape)}); it was trained on {_describe(self.space)}"
            )
        bad = int((~rows.isfinite().all(1)).sum())
        if bad:
            raise TrainingError(f"{bad} of {len(rows)} rows hold NaN or infinite weights")
        rows = fix_gauge(self.config.gauge_fixing, self.space, rows, self.reference)
        return read_rows(self.network, rows, self.config.batch_size)

    def predict(self, rows: Tensor) -> Tensor:
        """Return the most likely class of every row, int64 ``[N]``; or properties, ``[N, T]``.

        Properties are float64, in their own units, in the order of ``property_names``.
        """
        outputs = self.logits(rows)
        if self.scale is None:
            return outputs.argmax(1)
        values: Tensor = self.scale(outputs)
        return values

    def predict_dataset(self, dataset: NeuralDataset, split: str) -> Tensor:
        """Return ``predict`` of all fields of a split, after comparing what the rows mean.

        Raises:
            TrainingError: If the fields are of another architecture, or weights are not finite.
            DatasetFormatError: If the split is unknown or damaged.
        """
        space = space_of_dataset(dataset)
        if space != self.space:
            raise TrainingError(
                f"this classifier reads {_describe(self.space)}; "
                f"{dataset.folder} ({dataset.name}) holds {_describe(space)}"
            )
        return self.predict(dataset.split(split).weights)


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
        "property_names": list(classifier.property_names),
    }
    scale = None if classifier.scale is None else classifier.scale.state_dict()
    write_archive(
        path,
        header,
        state=classifier.network.state_dict(),
        scale=scale,
        reference=classifier.reference,
    )


def load_classifier(path: Path | str) -> TrainedClassifier:
    """Read a checkpoint; only tensors and text are accepted.

    Raises:
        CheckpointError: If it is missing, damaged, foreign or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}")
    try:
        header, content = read_archive(path, torch.device("cpu"))
        version = int(header["format_version"])
    except UNREADABLE as error:
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
        return _classifier_from(header, content)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} does not fit its own header ({error})") from error


def write_archive(path: Path, header: Mapping[str, Any], **content: Any) -> None:
    """Write a JSON header and tensors into one file, atomically."""
    buffer = io.BytesIO()
    torch.save({"header": json.dumps(header), **content}, buffer)
    files.write_bytes(path, buffer.getvalue())


def read_archive(path: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and everything else; only tensors and plain values are accepted.

    Raises:
        One of ``UNREADABLE``: If it is something else.
    """
    if not zipfile.is_zipfile(path):  # older pickles: torch warns about some of them
        raise ValueError("not an archive")
    content = torch.load(path, map_location=device, weights_only=True)
    return json.loads(content["header"]), content


def _classifier_from(header: Mapping[str, Any], content: Mapping[str, Any]) -> TrainedClassifier:
    config = config_from_mapping(ClassifierConfig, header["config"])
    space = _space_from_mapping(header["space"])
    class_names, properties = tuple(header["class_names"]), tuple(header["property_names"])
    network = build_reader(config.model, space, len(properties or class_names))
    network.load_state_dict(dict(content["state"]))
    scale = None
    if properties:
        scale = PropertyScale(len(properties))
        scale.load_state_dict(dict(content["scale"]))
    return TrainedClassifier(
        network, config, space, class_names, header["dataset_digest"], properties, scale,
        content.get("reference"),
    )  # fmt: skip


def _describe(space: WeightSpace) -> str:
    """Name the rows with every setting of their field, for messages."""
    if space.field is None:
        return f"{space.num_params} {space.name}"
    settings = config_to_mapping(space.field)
    text = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "kind")
    return f"{space.name} ({text})"


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
