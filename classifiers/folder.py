"""The folder of a training: what is finished, what is under way, and whether it is the same one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from classifiers.checkpoint import UNREADABLE, read_archive, write_archive
from classifiers.config import ClassifierConfig
from classifiers.loop import EpochRecord, Training
from classifiers.report import Timing
from nefbench import files
from nefbench.config import config_from_mapping, config_to_mapping, differing_keys
from nefbench.errors import CheckpointError, TrainingError

REPORT_NAME = "report.json"
STATE_NAME = "unfinished.pt"

_SECONDS_BETWEEN_STATES = 10.0
"""A state holds the network, its best epoch and the optimizer: writing it costs a moment."""

ReportT = TypeVar("ReportT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Finished(Generic[ResultT]):
    """A trained seed: its result and what it took."""

    result: ResultT
    timing: Timing
    num_parameters: int


class TrainingFolder:
    """Where one training leaves its state and its report; without a path nothing is kept."""

    def __init__(self, path: Path | None, config: ClassifierConfig, dataset_digest: str) -> None:
        self._path = path
        self._identity = {"config": config_to_mapping(config), "dataset_digest": dataset_digest}
        self._finished: list[Finished[Any]] = []
        self._pending: tuple[int, dict[str, Any], list[EpochRecord]] | None = None
        self._last_kept = -math.inf  # a folder that cannot be written shows after one epoch

    def report(self, kind: type[ReportT]) -> ReportT | None:
        """Return the report of this very training, if it is finished.

        Raises:
            TrainingError: If the folder holds another training.
        """
        if self._path is None or not (self._path / REPORT_NAME).is_file():
            return None
        place = self._path / REPORT_NAME
        try:
            mapping = json.loads(place.read_text(encoding="utf-8"))
            self._check_identity(mapping)
            return config_from_mapping(kind, mapping)
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"{place} is damaged or of another version of nefbench; "
                f"choose another folder, or delete it"
            ) from error

    def load(self, kind: type[ResultT], device: torch.device) -> list[Finished[ResultT]]:
        """Return the finished seeds of this very training; the first call of a run.

        Raises:
            TrainingError: If the folder holds another training.
            CheckpointError: If the state is damaged.
        """
        if self._path is None or not (self._path / STATE_NAME).is_file():
            return []
        place = self._path / STATE_NAME
        try:
            header, content = read_archive(place, device)
            self._check_identity(header)
            finished = [
                Finished(
                    config_from_mapping(kind, item["result"]),
                    config_from_mapping(Timing, item["timing"]),
                    int(item["num_parameters"]),
                )
                for item in header["finished"]
            ]
            if header["seed"] is not None:
                records = [config_from_mapping(EpochRecord, item) for item in header["records"]]
                self._pending = (header["seed"], content["state"], records)
        except UNREADABLE as error:
            if isinstance(error, TrainingError):
                raise
            raise CheckpointError(
                f"{place} is damaged or of another version of nefbench; "
                f"delete it to train from the beginning"
            ) from error
        self._finished = list(finished)
        return finished

    def resume(self, training: Training) -> None:
        """Bring a fresh training to where it was left."""
        if self._pending is not None and self._pending[0] == training.seed:
            _, state, records = self._pending
            training.restore(state, records)
        self._pending = None

    def keep(self, training: Training, *, now: bool = False) -> None:
        """Write the state between two epochs, if the last one is old enough or ``now``."""
        if now or time.monotonic() - self._last_kept >= _SECONDS_BETWEEN_STATES:
            self._write(training)

    def keep_finished(self, finished: Finished[Any]) -> None:
        """Write that a seed is done."""
        self._finished.append(finished)
        self._write(None)

    def write_report(self, report: Any) -> None:
        """Write the report; the state is no longer needed."""
        if self._path is not None:
            files.write_json(self._path / REPORT_NAME, config_to_mapping(report))
            (self._path / STATE_NAME).unlink(missing_ok=True)

    def _write(self, training: Training | None) -> None:
        if self._path is None:
            return
        header = {
            **self._identity,
            "finished": [
                {
                    "result": config_to_mapping(item.result),
                    "timing": config_to_mapping(item.timing),
                    "num_parameters": item.num_parameters,
                }
                for item in self._finished
            ],
            "seed": None if training is None else training.seed,
            "records": []
            if training is None
            else [config_to_mapping(record) for record in training.records],
        }
        state = None if training is None else training.state()
        write_archive(self._path / STATE_NAME, header, state=state)
        self._last_kept = time.monotonic()

    def _check_identity(self, found: Mapping[str, Any]) -> None:
        """Raise ``TrainingError`` unless config and dataset are those of this training."""
        known = {key: found[key] for key in self._identity}
        differing = differing_keys(known, self._identity)
        if not differing:
            return
        if known["dataset_digest"] != self._identity["dataset_digest"]:
            what = "of other fields"
        else:
            what = "; ".join(
                f"{key.removeprefix('config.')} {old!r}, now {new!r}"
                for key, old, new in differing[:3]
            )
        raise TrainingError(
            f"{self._path} holds another training ({what}); choose another folder with --out, "
            f"or delete it"
        )
