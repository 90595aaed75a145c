"""Folders of files, one shape each: which files, which class, which split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.base import SPLIT_NAMES, Split, make_splits

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_OTHER_SHAPES = (".glb", ".gltf", ".dae", ".fbx", ".3ds", ".3mf", ".step", ".stp", ".hdf5", ".h5")


@dataclass(frozen=True)
class ShapeFiles:
    """Files in the order of the signals.

    Attributes:
        paths: One file per shape.
        indices: Position of every file among all files in order of their names, ``[N]``.
        splits: Ranges that cover all files.
        labels: Class of every file, ``[N]``; None where files lie in no class folder.
        class_names: Names of the class folders in order; empty without labels.
    """

    paths: tuple[Path, ...]
    indices: Tensor
    splits: tuple[Split, ...]
    labels: Tensor | None
    class_names: tuple[str, ...]


def list_shape_files(
    folder: Path,
    endings: Sequence[str],
    *,
    validation_share: float,
    test_share: float,
    split_seed: int,
    ignored_names: Sequence[str] = (),
) -> ShapeFiles:
    """List the shapes below a folder: ``<class>/…/<file>``, or files in it without a class.

    Where all folders are called ``train``, ``validation`` and ``test``, each holds such a layout
    and is that split; else a drawn permutation of all files is cut by the shares.

    Args:
        folder: Where the files lie.
        endings: File endings in lower case, with the dot.
        validation_share: Share of the files in the validation split.
        test_share: Share of the files in the test split.
        split_seed: Seed of the permutation.
        ignored_names: File names that hold no shape.

    Raises:
        SignalError: If the folder is missing or empty, or mixes layouts or kinds of files.
    """
    if not folder.is_dir():
        hint = "unpack it and give the folder" if folder.is_file() else "check signals.path"
        raise SignalError(f"expected a folder of {_either(endings)} files at {folder}; {hint}")
    files = _files(folder, endings, ignored_names)
    parts = [path.relative_to(folder).parts for path in files]
    is_split = {part[0] for part in parts if len(part) > 1} & set(SPLIT_NAMES)
    if is_split:
        strays = [part for part in parts if len(part) == 1 or part[0] not in SPLIT_NAMES]
        if strays or "train" not in is_split:
            found = "/".join(strays[0]) if strays else "no train folder"
            raise SignalError(
                f"{folder} has folders {', '.join(sorted(is_split))} and {found}; "
                f"put every shape below train, validation or test, and some below train"
            )
        order = [i for name in SPLIT_NAMES for i, part in enumerate(parts) if part[0] == name]
        sizes = [(name, sum(part[0] == name for part in parts)) for name in SPLIT_NAMES]
        splits = make_splits([(name, size) for name, size in sizes if size])
        classes = [part[1] if len(part) > 2 else None for part in parts]
    else:
        order = permutation(split_seed, "shapes/splits", len(files)).tolist()
        splits = _cut(len(files), validation_share, test_share, folder)
        classes = [part[0] if len(part) > 1 else None for part in parts]
    labels, names = _labels(classes, parts, folder)
    indices = torch.tensor(order)
    return ShapeFiles(
        paths=tuple(files[i] for i in order),
        indices=indices,
        splits=splits,
        labels=None if labels is None else labels[indices],
        class_names=names,
    )


def check_shares(validation_share: float, test_share: float) -> None:
    """Raise ``ValueError`` unless the shares leave something to train on."""
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ValueError(
            f"expected validation_share and test_share >= 0 with a sum below 1 "
            f"(got {validation_share} and {test_share})"
        )


def _files(folder: Path, endings: Sequence[str], ignored_names: Sequence[str]) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.is_dir() or path.name in ignored_names:
            continue
        ending = path.suffix.lower()
        if ending in endings:
            found.append(path)
        elif ending in _ARCHIVES:
            raise SignalError(f"{path} is an archive; unpack it, or move it out of {folder}")
        elif ending in _OTHER_SHAPES:
            raise SignalError(f"{path}: expected {_either(endings)} files; convert it, or move it")
    if not found:
        raise SignalError(f"{folder} holds no {_either(endings)} files; check signals.path")
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _cut(size: int, validation_share: float, test_share: float, folder: Path) -> tuple[Split, ...]:
    held = [
        (name, max(1, round(share * size)))
        for name, share in (("validation", validation_share), ("test", test_share))
        if share > 0
    ]
    train = size - sum(count for _, count in held)
    if train < 1:
        raise SignalError(
            f"{folder}: {size} shape(s) leave none to train on; "
            f"add shapes, or set validation_share and test_share to 0"
        )
    return make_splits([("train", train), *held])


def _labels(
    classes: Sequence[str | None], parts: Sequence[tuple[str, ...]], folder: Path
) -> tuple[Tensor | None, tuple[str, ...]]:
    named = [name for name in classes if name is not None]
    if not named:
        return None, ()
    if len(named) < len(classes):
        stray = "/".join(parts[classes.index(None)])
        raise SignalError(
            f"{folder} has class folders and, beside them, {stray}; move it into a class folder"
        )
    names = tuple(sorted(set(named)))
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[name] for name in named]), names


def _either(endings: Sequence[str]) -> str:
    *others, last = endings
    return f"{', '.join(others)} or {last}" if others else last
