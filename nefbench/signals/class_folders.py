"""Folders of files, one signal each: which files, which class, which split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.base import SPLIT_NAMES, Split, make_splits
from nefbench.signals.splits import cut_splits

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_OTHER_SHAPES = (".glb", ".gltf", ".dae", ".fbx", ".3ds", ".3mf", ".step", ".stp", ".hdf5", ".h5")
_OTHER_SOUNDS = (".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")


@dataclass(frozen=True)
class ClassFiles:
    """Files in the order of the signals.

    Attributes:
        paths: One file per signal, absolute.
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


def list_class_files(
    folder: Path,
    endings: Sequence[str],
    *,
    validation_size: float,
    test_size: float,
    split_seed: int,
    stream: str,
    ignored_names: Sequence[str] = (),
) -> ClassFiles:
    """List the signals below a folder: ``<class>/…/<file>``, or files in it without a class.

    Where there is a folder ``train``, it and any ``validation`` and ``test`` hold such a layout
    each. Splits that have no folder are drawn from the training files.

    Args:
        folder: Where the files lie.
        endings: File endings in lower case, with the dot.
        validation_size: Files in the validation split: a number, or a share of the training files.
        test_size: Files in the test split, likewise.
        split_seed: Seed of the permutation of the training files.
        stream: Stream of this permutation.
        ignored_names: File names that hold no signal.

    Raises:
        SignalError: If the folder is missing or empty, or mixes layouts or kinds of files.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        hint = "unpack it and give the folder" if folder.is_file() else "check signals.path"
        raise SignalError(f"expected a folder of {_either(endings)} files at {folder}; {hint}")
    files = _list_files(folder, endings, ignored_names)
    given = [name for name in SPLIT_NAMES if (folder / name).is_dir()]
    _check_homes(files, given, folder, _either(endings))
    labels, class_names = _labels(files, 1 if given else 0, folder)
    rows = {
        name: torch.tensor([i for i, parts in enumerate(files) if not given or parts[0] == name])
        for name in given or ["train"]
    }
    train = rows["train"][permutation(split_seed, stream, len(rows["train"]))]
    drawn = cut_splits(
        len(train),
        0 if "validation" in given else validation_size,
        0 if "test" in given else test_size,
        str(folder),
    )
    rows |= {split.name: train[split.start : split.stop] for split in drawn}
    order = [(name, rows[name]) for name in SPLIT_NAMES if name in rows]
    indices = torch.cat([chosen for _, chosen in order])
    return ClassFiles(
        paths=tuple(folder.joinpath(*files[i]) for i in indices.tolist()),
        indices=indices,
        splits=make_splits([(name, len(chosen)) for name, chosen in order]),
        labels=None if labels is None else labels[indices],
        class_names=class_names,
    )


def _list_files(
    folder: Path, endings: Sequence[str], ignored_names: Sequence[str]
) -> list[tuple[str, ...]]:
    """List all files of a kind by name, as the parts of their paths in the folder."""
    found = []
    for place, inner, names in os.walk(folder, onerror=_refuse, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            ending = Path(name).suffix.lower()
            if name.startswith(".") or name in ignored_names:
                continue
            path = Path(place, name)
            if ending in endings:
                found.append(path.relative_to(folder).parts)
            elif ending in _ARCHIVES:
                raise SignalError(f"{path} is an archive; unpack it, or move it out of {folder}")
            elif ending in _OTHER_SHAPES + _OTHER_SOUNDS:
                raise SignalError(
                    f"{path}: expected {_either(endings)} files; convert it, or move it"
                )
    if not found:
        raise SignalError(f"{folder} holds no {_either(endings)} files; check signals.path")
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise SignalError(f"cannot read {error.filename}: {error.strerror}") from error


def _check_homes(
    files: Sequence[tuple[str, ...]], given: Sequence[str], folder: Path, kind: str
) -> None:
    """Raise ``SignalError`` unless all files lie in the splits' folders, and some in each."""
    if not given:
        return
    homes = {parts[0]: "/".join(parts) for parts in files}
    strays = [file for home, file in homes.items() if home not in given]
    if strays or "train" not in given:
        found = strays[0] if strays else "no train folder"
        raise SignalError(
            f"{folder} has folders {', '.join(given)} and {found}; "
            f"put every file below train, validation or test, and some below train"
        )
    for name in given:
        if name not in homes:
            raise SignalError(f"{folder / name} holds no {kind} files; add some, or remove it")


def _labels(
    files: Sequence[tuple[str, ...]], depth: int, folder: Path
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the class of every file, the folder at some depth, and the names of the classes."""
    flat = [parts for parts in files if len(parts) == depth + 1]
    if len(flat) == len(files):
        return None, ()
    if flat:
        raise SignalError(
            f"{folder} has class folders and, beside them, {'/'.join(flat[0])}; "
            f"move it into a class folder"
        )
    names = sorted({parts[depth] for parts in files})
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[parts[depth]] for parts in files]), tuple(names)


def _either(endings: Sequence[str]) -> str:
    *others, last = endings
    return f"{', '.join(others)} or {last}" if others else last
