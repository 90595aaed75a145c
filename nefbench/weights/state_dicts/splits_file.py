"""The JSON file that says which fields of a set are for training, validation and test.

Either ``{"train": {"path": [...], "label": [...]}, "val": ..., "test": ...}`` or, without labels,
``{"train": [...], "val": ..., "test": ...}``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nefbench.errors import DatasetFormatError
from nefbench.signals import SPLIT_NAMES
from nefbench.weights.state_dicts.naming import SPLIT_WORDS

logger = logging.getLogger(__name__)


def find_splits(folder: Path) -> Path | None:
    """Return the file ``*splits*.json`` of a folder, if there is one.

    Raises:
        DatasetFormatError: If there are several.
    """
    found = sorted(folder.glob("*splits*.json"))
    if len(found) > 1:
        raise DatasetFormatError(
            f"{folder} has several files of splits ({', '.join(path.name for path in found)}); "
            f"choose one with --splits"
        )
    return found[0] if found else None


def read_splits(path: Path, folder: Path, known: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Read the fields of every split.

    The file was often written on another machine: of a path as much of its end counts as exists
    below the folder. Files in no split are counted in a warning.

    Args:
        path: The file of splits.
        folder: Of the fields.
        known: Paths below the folder.

    Returns:
        Split to pairs of a path below the folder and a label, which is empty if there are none.

    Raises:
        DatasetFormatError: If the file is not as described above, or does not fit the folder.
    """
    content = _read_json(path)
    files = set(known)
    splits: dict[str, list[tuple[str, str]]] = {}
    missing: list[str] = []
    for word, listed in content.items():
        split = SPLIT_WORDS.get(word)
        if split is None or split in splits:
            raise DatasetFormatError(
                f"{path}: expected each split once, out of train, val and test (got {word!r})"
            )
        splits[split] = []
        for text, label in _listed(listed, f"{path}: {word}"):
            place = _end_in(text, files)
            missing += [text] if place is None else []
            splits[split].append((place or "", label))
    if missing:
        raise DatasetFormatError(
            f"{path} lists {len(missing)} file(s) that are not below {folder}, for example "
            f"{missing[0]}"
        )
    places = [place for some in splits.values() for place, _ in some]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise DatasetFormatError(f"{path} lists {twice} twice")
    has_label = {bool(label) for some in splits.values() for _, label in some}
    if len(has_label) > 1:
        raise DatasetFormatError(f"{path}: expected a label for each path of all splits, or none")
    if left := len(files) - len(places):
        logger.warning("%s: %d files are in no split of %s and left out", folder, left, path.name)
    return {split: splits[split] for split in SPLIT_NAMES if split in splits}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise DatasetFormatError(f"{path}: expected a JSON object with the paths of every split")
    return content


def _listed(listed: Any, where: str) -> list[tuple[str, str]]:
    """Return the pairs of a list of paths, or of an object with ``path`` and ``label``."""
    labels: Any = None
    if isinstance(listed, dict):
        listed, labels = listed.get("path"), listed.get("label")
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise DatasetFormatError(f"{where}: expected a list of paths, or 'path' with such a list")
    if labels is None:
        return [(text, "") for text in listed]
    if (
        not isinstance(labels, list)
        or len(labels) != len(listed)
        or not all(type(label) in (int, str) and label != "" for label in labels)
    ):
        raise DatasetFormatError(f"{where}: expected {len(listed)} labels, numbers or words")
    return [(text, str(label)) for text, label in zip(listed, labels, strict=True)]


def _end_in(text: str, files: set[str]) -> str | None:
    parts = PurePosixPath(text.replace("\\", "/")).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in files), None)
