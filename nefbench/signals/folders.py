"""Folders of image files in a layout of their own, as tables of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nefbench.errors import SignalError

_ENDINGS = (".jpeg", ".jpg", ".png")


def image_files(folder: Path) -> list[Path]:
    """List the image files directly in a folder, by name: no file system's order gets in."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    return sorted((path for path in files if not path.name.startswith(".")), key=lambda p: p.name)


def table_of_files(
    paths: Sequence[Path], labels: Sequence[int] | None = None, class_names: Sequence[str] = ()
) -> Any:
    """Return a ``datasets.Dataset`` of columns ``image`` (not read yet) and ``label``."""
    import datasets

    columns: dict[str, Any] = {"image": [{"path": str(path), "bytes": None} for path in paths]}
    features: dict[str, Any] = {"image": datasets.Image()}
    if labels is not None:
        columns["label"] = list(labels)
        features["label"] = datasets.ClassLabel(names=list(class_names))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def is_tiny_imagenet(folder: Path) -> bool:
    """Whether a folder is laid out like ``tiny-imagenet-200.zip``."""
    return (folder / "val" / "val_annotations.txt").is_file() and (folder / "train").is_dir()


def load_tiny_imagenet(folder: Path) -> Mapping[str, Any]:
    """Read ``train/<wnid>/images`` and ``val/images`` with its list of classes.

    The splits are called ``train`` and ``valid``, as in the copy on the Hub; the test images have
    no labels and are left out.

    Raises:
        SignalError: If a line of the list names a class that has no folder.
    """
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    numbers = {name: number for number, name in enumerate(classes)}
    files, labels = [], []
    for name, number in numbers.items():
        inner = folder / "train" / name / "images"
        found = image_files(inner) if inner.is_dir() else []
        files += found
        labels += [number] * len(found)
    if not files:
        raise SignalError(f"{folder} has no images in train/<class>/images; unpack it again")
    train = table_of_files(files, labels, classes)
    files, labels = [], []
    for line in (folder / "val" / "val_annotations.txt").read_text("utf-8").splitlines():
        name, wnid = (*line.split("\t"), "")[:2]
        if wnid not in numbers:
            raise SignalError(
                f"val/val_annotations.txt: class {wnid!r} of {name!r} has no folder in train; "
                f"unpack {folder} again"
            )
        files.append(folder / "val" / "images" / name)
        labels.append(numbers[wnid])
    if not files:
        raise SignalError(f"{folder}/val/val_annotations.txt is empty; unpack the archive again")
    return {"train": train, "valid": table_of_files(files, labels, classes)}
