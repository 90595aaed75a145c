"""MicroImageNet: ten super-classes of ImageNet-1k at 64 x 64 pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.base import GridSignals, make_splits
from nefbench.signals.folders import image_files, table_of_files
from nefbench.signals.imagenet_classes import SUPER_CLASSES
from nefbench.signals.images import (
    find_image_column,
    find_label_column,
    load_source,
)
from nefbench.signals.pictures import PictureRule, image_values
from nefbench.signals.splits import check_statistics

_NUM_IMAGENET_CLASSES = 1000
_REMEDY = "replace the file"
_LICENCE = "ImageNet terms of access: non-commercial research and education"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroImageNetConfig:
    """Equal numbers of ImageNet-1k training images from ten super-classes (Papa et al. 2024).

    All training images of a super-class are pooled, classes in order of their names and files in
    order of theirs; ``per_class`` are drawn from each pool without replacement, and the drawn ones
    are permuted. The draws are nefbench's own, so these are not the very images of the released
    sets, which follow another generator and the order of a directory. For the same reason a Hub
    copy, whose images stay in the order of its table, gives other images than a folder.
    """

    kind: Literal["micro-imagenet"] = "micro-imagenet"
    path: str = "ILSVRC/imagenet-1k"
    """Folder that holds ``<wnid>/*.JPEG``, or those in ``train/``; or ImageNet-1k's Hub name."""
    split: str = "train"
    """Split of the source, and the folder inside ``path``."""
    revision: str | None = None
    """Commit, tag or branch on the Hub."""
    per_class: int = 6_000
    """Images drawn from each super-class."""
    validation_size: int | None = None
    """Signals in the validation split; a twelfth of all if left out (5,000 of 60,000)."""
    test_size: int | None = None
    """Signals in the test split; a sixth of all if left out (10,000 of 60,000)."""
    seed: int = 42
    """Seed of the draws."""
    crop: int = 256
    """Side in pixels of the centre crop; a smaller image is scaled up to it first."""
    size: tuple[int, int] = (64, 64)
    """Height and width that the crop is scaled to."""
    mean: tuple[float, float, float] = (0.46433758, 0.43394157, 0.38213177)
    """Mean per channel in [0, 1]; the default is the study's."""
    std: tuple[float, float, float] = (0.18949764, 0.18707175, 0.21445987)
    """Standard deviation per channel; the default is the study's."""

    def __post_init__(self) -> None:
        check_statistics(self.mean, self.std)
        _ = self.rule
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"expected a seed from 0 to 2**63 - 1 (got {self.seed})")
        for name in ("per_class", "validation_size", "test_size"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"expected {name} >= 1 (got {size})")
        if self.split_sizes[0] < 1:
            raise ValueError(
                f"per_class {self.per_class} gives {self.num_signals} signals, which leave none to "
                f"train on beside validation_size {self.split_sizes[1]} and test_size "
                f"{self.split_sizes[2]}"
            )
        if self.revision is not None and Path(self.path).expanduser().exists():
            raise ValueError(f"revision: {self.path} is a local copy and has no revisions")

    @property
    def num_signals(self) -> int:
        """Images of all super-classes together."""
        return self.per_class * len(SUPER_CLASSES)

    @property
    def split_sizes(self) -> tuple[int, int, int]:
        """Signals to train, validate and test on."""
        total = self.num_signals
        validation = max(1, total // 12) if self.validation_size is None else self.validation_size
        test = max(1, total // 6) if self.test_size is None else self.test_size
        return total - validation - test, validation, test

    @property
    def rule(self) -> PictureRule:
        """What is done to every image."""
        return PictureRule(crop=self.crop, size=self.size, mode="RGB")

    def open(self) -> GridSignals:
        """Draw the images; pixels are decoded later, block by block."""
        folder = _class_folder(Path(self.path).expanduser(), self.split)
        if folder is not None:
            files, sizes = _files_of(folder, self)
            rows, labels = _draw(sizes, self)
            table, column = table_of_files([files[row] for row in rows]), "image"
            indices = rows
        else:
            source, column, pools = _pools_of(self)
            indices, labels = _draw([len(pool) for pool in pools], self)
            table = source.select(np.concatenate(pools)[indices]).select_columns([column])
        train, validation, test = self.split_sizes
        return GridSignals(
            name="micro-imagenet",
            source=self._description(local=folder is not None),
            grid_shape=self.size,
            values=image_values(
                _undecoded(table, column), column, "micro-imagenet", self.rule, _REMEDY
            ),
            indices=torch.from_numpy(indices),
            splits=make_splits([("train", train), ("validation", validation), ("test", test)]),
            mean=self.mean,
            std=self.std,
            labels=torch.from_numpy(labels),
            class_names=tuple(group.name for group in SUPER_CLASSES),
            licence=_LICENCE,
            config=config_to_mapping(self),
        )

    def _description(self, *, local: bool) -> str:
        where = "a local copy" if local else self.path
        return (
            f"ImageNet-1k ({where}, split {self.split}): {self.per_class} images of each of "
            f"{len(SUPER_CLASSES)} super-classes, seed {self.seed}; {self.rule.text}"
        )


def _draw(sizes: Sequence[int], config: MicroImageNetConfig) -> tuple[Rows, Rows]:
    """Return drawn positions in the joined pools, permuted, and their labels."""
    positions, labels, offset = [], [], 0
    for label, (group, size) in enumerate(zip(SUPER_CLASSES, sizes, strict=True)):
        if size < config.per_class:
            raise SignalError(
                f"micro-imagenet: {config.path} has {size} images of {group.name!r}, "
                f"{config.per_class} are asked for; set signals.per_class to {size} or fewer"
            )
        drawn = permutation(config.seed, f"micro-imagenet/{group.name}", size)[: config.per_class]
        positions.append(drawn.numpy() + offset)
        labels.append(np.full(config.per_class, label))
        offset += size
    order = permutation(config.seed, "micro-imagenet/order", config.num_signals).numpy()
    return np.concatenate(positions)[order], np.concatenate(labels)[order]


def _class_folder(path: Path, split: str) -> Path | None:
    """Find the folder that holds one folder per class, as unpacked or as Kaggle lays it out."""
    for folder in (path / split, path, path / "ILSVRC" / "Data" / "CLS-LOC" / split):
        if any((folder / wnid).is_dir() for group in SUPER_CLASSES for wnid in group.wnids):
            return folder
    return None


def _files_of(folder: Path, config: MicroImageNetConfig) -> tuple[list[Path], list[int]]:
    """Return the files of all pools, one after another, and the size of every pool."""
    wanted = [wnid for group in SUPER_CLASSES for wnid in group.wnids]
    _require_classes(wanted, [wnid for wnid in wanted if (folder / wnid).is_dir()], config)
    files: list[Path] = []
    sizes = []
    for group in SUPER_CLASSES:
        pool = [path for wnid in group.wnids for path in image_files(folder / wnid)]
        files += pool
        sizes.append(len(pool))
    return files, sizes


def _pools_of(config: MicroImageNetConfig) -> tuple[Any, str, list[Rows]]:
    """Return the source's table, its image column, and the rows of every pool."""
    source = load_source(config.path, None, config.revision)
    if config.split not in source:
        raise SignalError(
            f"{config.path} has no split {config.split!r} (it has {', '.join(source)}); "
            f"set signals.split"
        )
    table = source[config.split]
    column = find_image_column(table.features, config.path)
    label_column, numbers = _imagenet_numbers(table.features, config)
    labels = table.with_format("numpy")[label_column][:]  # at once, not by row
    # Classes in the order of their names, as in a folder; images of a class as the table has them.
    pools = [
        np.concatenate([np.flatnonzero(labels == number) for number in group]) for group in numbers
    ]
    return table, column, pools


def _imagenet_numbers(
    features: Mapping[str, Any], config: MicroImageNetConfig
) -> tuple[str, list[list[int]]]:
    """Return the label column and the label numbers of every super-class."""
    import datasets

    column = find_label_column(features) or ""
    feature = features.get(column)
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    by_name = {name: number for number, name in enumerate(names or ())}
    wanted = [wnid for group in SUPER_CLASSES for wnid in group.wnids]
    found = [wnid for wnid in wanted if wnid in by_name]
    if found:
        _require_classes(wanted, found, config)
        return column, [[by_name[wnid] for wnid in group.wnids] for group in SUPER_CLASSES]
    if names is None or len(names) != _NUM_IMAGENET_CLASSES or "tench" not in names[0]:
        raise SignalError(
            f"{config.path} is not ImageNet-1k: expected folders called like n01440764, or labels "
            f"of its 1,000 classes from 'tench' on; set signals.path"
        )
    return column, [list(group.numbers) for group in SUPER_CLASSES]


def _require_classes(
    wanted: Sequence[str], found: Sequence[str], config: MicroImageNetConfig
) -> None:
    missing = [wnid for wnid in wanted if wnid not in set(found)]
    if missing:
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise SignalError(
            f"micro-imagenet: {config.path} lacks {len(missing)} of the {len(wanted)} classes "
            f"({listed}); unpack the whole of ImageNet-1k"
        )


def _undecoded(table: Any, column: str) -> Any:
    import datasets

    return table.cast_column(column, datasets.Image(decode=False))
