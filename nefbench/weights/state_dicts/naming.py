"""What the names of files and folders say about the fields in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from nefbench.errors import DatasetFormatError
from nefbench.signals import SPLIT_NAMES

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Our name of a split by the words that name one."""

_LABELS_FROM_ELSEWHERE = ("checkpoints",)


@dataclass(frozen=True)
class NamedField:
    """One file, as its name describes it.

    Attributes:
        path: Below the folder of the set, with ``/``.
        split: Our name of the split that its folder names, or None.
        label: Class that its folder names, or None.
        index: Position of the signal in its source that its name holds, or None.
    """

    path: str
    split: str | None = None
    label: str | None = None
    index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a published set names its files and scales its fields.

    Attributes:
        source: Whose set it is.
        pattern: Of a path; groups ``split``, ``label`` and ``index``.
        mean: Added to an output after ``std`` multiplied it, which gives the raw value.
        std: See ``mean``.
        row_first: Whether the first coordinate is the image's row.
    """

    source: str
    pattern: re.Pattern[str] | None = None
    mean: float = 0.5
    std: float = 1.0
    row_first: bool = False

    def describe(self, path: str) -> NamedField | None:
        """Return what a path says, or None if it is named in another way."""
        if self.pattern is None:
            return _by_folders(path)
        match = self.pattern.fullmatch(path)
        if match is None:
            return None
        found = match.groupdict()
        split = SPLIT_WORDS.get(found.get("split") or "")
        return NamedField(path, split, found["label"], int(found["index"]))


PUBLISHED = (
    Naming(
        source="INRs of DWSNets",
        pattern=re.compile(
            r"(?:.*/)?[^/]*_(?P<split>training|testing)_(?P<label>[^/_]+)_(?P<index>\d{1,18})"
            r"/(?:[^/]*/)?[^/]*"
        ),
    ),
    Naming(
        source="SIRENs of NFN",
        pattern=re.compile(r"(?:.*/)?[^/]+_(?P<label>\d+)s/net(?P<index>\d{1,18})\.[^/.]*"),
        std=0.5,
        row_first=True,
    ),
)
OTHER = Naming(source="state dicts")


def naming_of(paths: Sequence[str]) -> Naming:
    """Return the published set whose names most of the paths have, or ``OTHER``."""
    counts = {naming.source: 0 for naming in PUBLISHED}
    for path in paths:
        for naming in PUBLISHED:
            counts[naming.source] += naming.describe(path) is not None
    best = max(PUBLISHED, key=lambda naming: counts[naming.source])
    return best if 2 * counts[best.source] > len(paths) else OTHER


def describe_all(naming: Naming, paths: Sequence[str], folder: str) -> list[NamedField]:
    """Describe all paths; one folder for all fields, or for each, is no class.

    Raises:
        DatasetFormatError: If some are not named like the others, or only some name a class or a
            split.
    """
    fields = []
    for path in paths:
        field = naming.describe(path)
        if field is None:
            raise DatasetFormatError(
                f"{folder}/{path} is not named like the {naming.source} beside it; move it away, "
                f"or list the fields in a file for --splits"
            )
        fields.append(field)
    for what, given in (
        ("split", [field.split for field in fields]),
        ("class", [field.label for field in fields]),
    ):
        if None in given and any(given):
            odd = fields[given.index(None)].path
            raise DatasetFormatError(
                f"{folder}/{odd} lies in no folder that names a {what}, other fields do; sort it "
                f"in, or move it away"
            )
    num_labels = len({field.label for field in fields})
    if naming is OTHER and num_labels in (1, len(fields)):
        return [NamedField(field.path, field.split, None, field.index) for field in fields]
    return fields


def count_through(fields: Sequence[NamedField]) -> dict[str, int]:
    """Number the signals of a set: path to index.

    The index is that of the file's name. Where training and test signals are both counted from 0,
    those of later splits are counted on, as signals are that are read from such a source. Names
    that do not tell signals apart count for nothing: then the index is the place of the path.
    """
    order = {split: number for number, split in enumerate(SPLIT_NAMES)}
    ranked = sorted(fields, key=lambda field: order.get(field.split or "", 0))
    numbered: dict[str, int] = {}
    highest = -1
    taken: set[int] = set()
    for _, group in groupby(ranked, key=lambda field: field.split):
        members = list(group)
        indices = [field.index for field in members if field.index is not None]
        if len(set(indices)) < len(members):
            break
        offset = highest + 1 if taken & set(indices) else 0
        places = {f.path: f.index + offset for f in members if f.index is not None}
        numbered |= places
        taken |= set(places.values())
        highest = max(taken)
    if len(numbered) == len(fields):
        return numbered
    paths = sorted((field.path for field in fields), key=natural_order)
    return {path: place for place, path in enumerate(paths)}


def natural_order(text: str) -> list[tuple[int, str]]:
    """Sort key by which ``net10`` comes after ``net9``."""
    return [
        (int(piece), "") if piece.isdecimal() else (-1, piece)
        for piece in re.split(r"(\d{1,18})", text)
    ]


def class_numbers(
    labels: Mapping[str, str], highest: int
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the class of every path and the names of the classes.

    Labels that are whole numbers up to ``highest`` are the classes themselves, others are counted
    in alphabetical order.
    """
    words = set(labels.values())
    if all(word.isdecimal() and int(word) < highest for word in words):
        numbers = {path: int(word) for path, word in labels.items()}
        return numbers, tuple(map(str, range(max(numbers.values()) + 1)))
    names = tuple(sorted(words, key=natural_order))
    places = {name: place for place, name in enumerate(names)}
    return {path: places[word] for path, word in labels.items()}, names


def _by_folders(path: str) -> NamedField:
    *folders, name = PurePosixPath(path).parts
    split = label = None
    for folder in folders:
        words = {SPLIT_WORDS[word] for word in re.split(r"[_-]", folder) if word in SPLIT_WORDS}
        if len(words) == 1 and split is None:
            (split,) = words
        elif folder not in _LABELS_FROM_ELSEWHERE:
            label = folder
    numbers = re.findall(r"\d{1,18}", PurePosixPath(name).stem)
    return NamedField(path, split, label, int(numbers[-1]) if numbers else None)
