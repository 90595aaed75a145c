"""Images from the Hugging Face Hub, a local Hub-style folder, Parquet, or image files."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.base import GridSignals, make_splits
from nefbench.signals.folders import is_tiny_imagenet, load_tiny_imagenet
from nefbench.signals.pictures import ColourMode, PictureRule, image_values, is_whole
from nefbench.signals.splits import check_statistics, given_or_measured

logger = logging.getLogger(__name__)

_SLICE = re.compile(r"^(?P<name>[^\[\]]+?)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")
_TABLE_ENDINGS = (".parquet", ".csv", ".json")
_LOCAL_ENDINGS = (*_TABLE_ENDINGS, ".zip", ".tar")
_REMEDY = "leave such images out with --set signals.drop_damaged=true"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Images, grey or RGB, read through the ``datasets`` library.

    Split expressions are those of ``datasets``: ``train``, ``train[:55000]``, ``test[90%:]``.
    Images must have one size and one colour mode, or be given them by ``crop``, ``size`` and
    ``mode``; see ``PictureRule`` for what these do exactly.
    """

    kind: Literal["images"] = "images"
    path: str
    """Name on the Hub (``ylecun/mnist``), or a local folder or Parquet file."""
    name: str | None = None
    """What a reader calls it; the last part of ``path`` if left out."""
    subset: str | None = None
    """Configuration of the Hub dataset, where it has several."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; pin it to make a run repeatable."""
    train: str = "train[:90%]"
    """Split expression of the training signals."""
    validation: str = "train[90%:]"
    """Split expression of the validation signals."""
    test: str = "test"
    """Split expression of the test signals."""
    image_column: str | None = None
    """Column of the images; the first image column if left out."""
    label_column: str | None = None
    """Column of the labels; the first class-label column, or ``label``, if left out."""
    mean: tuple[float, ...] | None = None
    """Mean per channel in [0, 1]; computed over the training signals if left out."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel; computed over the training signals if left out."""
    crop: int | None = None
    """Side in pixels of a centre crop of the original; smaller images are scaled up to it first."""
    crop_offset: tuple[int, int] = (0, 0)
    """Rows down and columns right by which the crop is moved off the centre."""
    size: tuple[int, int] | None = None
    """Height and width to scale to, bilinear, without distortion: the centre that fits is kept."""
    mode: ColourMode | None = None
    """Colour mode to convert to, ``L`` (grey) or ``RGB``; needed where images of both are mixed."""
    drop_damaged: bool = False
    """Leave out images that do not open or end early; each is read once more to find them."""
    shuffle_seed: int | None = None
    """Permute each split of the source before it is cut; for sources that are sorted by class."""

    def __post_init__(self) -> None:
        check_statistics(self.mean, self.std)
        _ = self.rule
        if self.shuffle_seed is not None and not 0 <= self.shuffle_seed < 2**63:
            raise ValueError(f"expected shuffle_seed from 0 to 2**63 - 1 (got {self.shuffle_seed})")
        if self.revision is not None and Path(self.path).expanduser().exists():
            raise ValueError(f"revision: {self.path} is a local copy and has no revisions")
        for name in ("train", "validation", "test"):
            if not _SLICE.match(getattr(self, name)):
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is not a split expression such as "
                    f"'train[:1000]'"
                )

    @property
    def rule(self) -> PictureRule:
        """What is done to every image."""
        return PictureRule(
            crop=self.crop, crop_offset=self.crop_offset, size=self.size, mode=self.mode
        )

    def open(self) -> GridSignals:
        """Open the source and check its images; pixels are decoded later, block by block."""
        name = self.name or _last_part(self.path)
        source = load_source(self.path, self.subset, self.revision)
        parts = [_select(source, key, self) for key in ("train", "validation", "test")]
        _require_disjoint(parts)
        features = source[parts[0].name].features
        column = self.image_column or find_image_column(features, self.path)
        encoded = [_encoded(source, part, column, name) for part in parts]
        if self.drop_damaged:
            parts, encoded = _without_damaged(parts, encoded, column, name)
        splits = make_splits([(part.key, len(part.rows)) for part in parts])
        values = image_values(_joined(encoded), column, name, self.rule, _REMEDY)
        labels, class_names = _labels(source, parts, features, self)
        mean, std = given_or_measured(self.mean, self.std, values, splits[0], name)
        return GridSignals(
            name=name,
            source=_description(self, parts),
            grid_shape=values.size,
            values=values,
            indices=_source_indices(source, parts),
            splits=splits,
            mean=tuple(mean),
            std=tuple(std),
            labels=labels,
            class_names=class_names,
            licence=source[parts[0].name].info.license or "unknown",
            config=config_to_mapping(self),
        )


@dataclass(frozen=True)
class _Part:
    """What one split is made of.

    Attributes:
        key: ``train``, ``validation`` or ``test``.
        name: Split of the source.
        chosen: Range that the expression selects, of the source's rows after the permutation.
        rows: Rows of the source, in order.
    """

    key: str
    name: str
    chosen: range
    rows: npt.NDArray[np.int64]


def _last_part(path: str) -> str:
    last = Path(path)
    return last.stem if last.suffix in _LOCAL_ENDINGS else last.name


def load_source(path: str, subset: str | None, revision: str | None) -> Mapping[str, Any]:
    """Open a Hub dataset, a local copy or a folder of images: ``split -> datasets.Dataset``.

    Raises:
        SignalError: If there is nothing of that name or it does not open.
    """
    import datasets

    local = Path(path).expanduser()
    looks_local = path.startswith((".", "/", "~")) or path.endswith(_LOCAL_ENDINGS)
    if not local.exists() and looks_local:
        raise SignalError(f"no such file or folder: {path}")
    if local.is_file() and local.suffix not in _TABLE_ENDINGS:
        # The library would look for a Hub dataset that is called like the file ending.
        raise SignalError(f"{path}: expected a Parquet file or a folder (unpack archives)")
    if local.is_dir() and not any(local.iterdir()):
        raise SignalError(f"{path} is empty; expected Parquet files or images")
    if is_tiny_imagenet(local):
        return load_tiny_imagenet(local)
    try:
        with _quiet():
            if local.exists():
                # A cache of its own: offline, the library would otherwise take a local folder
                # for the Hub dataset of the same name.
                cache = Path(datasets.config.HF_DATASETS_CACHE) / "nefbench-local"
                if local.is_file():
                    return dict(
                        datasets.load_dataset(
                            local.suffix.lstrip("."), data_files=str(local), cache_dir=cache
                        )
                    )
                return dict(datasets.load_dataset(str(local), subset, cache_dir=cache))
            return dict(datasets.load_dataset(path, subset, revision=revision))
    except Exception as error:  # the library raises a different type for every way of failing
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local.exists():
            raise SignalError(f"{path} does not open as a dataset: {reason}") from error
        raise SignalError(
            f"cannot load {path!r} from the Hub ({reason}); check the name and the network, "
            f"or give the path of a local copy"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' own progress bars and retry notices; errors still raise."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    bars, verbosity = datasets.are_progress_bars_disabled(), hub_logging.get_verbosity()
    datasets_verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        datasets.logging.set_verbosity(datasets_verbosity)
        if not bars:
            datasets.enable_progress_bars()


def _select(source: Mapping[str, Any], key: str, config: ImagesConfig) -> _Part:
    expression: str = {"train": config.train, "validation": config.validation,
                       "test": config.test}[key]  # fmt: skip
    match = _SLICE.match(expression)
    assert match is not None, "checked by the configuration"
    name = match["name"]
    if name not in source:
        raise SignalError(
            f"{config.path} has no split {name!r} (it has {', '.join(source)}); "
            f"set signals.{key}, for example --set 'signals.{key}=train[90%:]'"
        )
    size = len(source[name])
    start, stop = _bound(match["start"], size, 0), _bound(match["stop"], size, size)
    if not 0 <= start < stop <= size:
        raise SignalError(
            f"signals.{key} = {expression!r} selects nothing: split {name!r} has {size} signals"
        )
    if config.shuffle_seed is None:
        rows = np.arange(start, stop)
    else:
        order = permutation(config.shuffle_seed, f"images/{name}", size)
        rows = order.numpy()[start:stop]
    return _Part(key, name, range(start, stop), rows)


def _require_disjoint(parts: Sequence[_Part]) -> None:
    """Raise if a signal is in two splits: a test on training data measures nothing."""
    for one, two in itertools.combinations(parts, 2):
        low = max(one.chosen.start, two.chosen.start)
        high = min(one.chosen.stop, two.chosen.stop)
        if one.name == two.name and low < high:
            raise SignalError(
                f"signals.{one.key} and signals.{two.key} share {high - low} signals "
                f"({one.name}[{low}:{high}]); choose splits without overlap"
            )


def _bound(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return min(value + size if value < 0 else value, size)


def find_image_column(features: Mapping[str, Any], path: str) -> str:
    """Return the first column that holds images, or raise ``SignalError``."""
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            return name
    raise SignalError(
        f"{path} has no image column (columns: {', '.join(features)}); set signals.image_column"
    )


def _encoded(source: Mapping[str, Any], part: _Part, column: str, name: str) -> Any:
    import datasets

    if column not in source[part.name].features:
        raise SignalError(f"{name}: split {part.name!r} has no column {column!r}")
    table = source[part.name].select(part.rows).select_columns([column])
    return table.cast_column(column, datasets.Image(decode=False))


def _joined(tables: Sequence[Any]) -> Any:
    import datasets

    return datasets.concatenate_datasets(list(tables))


def _without_damaged(
    parts: Sequence[_Part], encoded: Sequence[Any], column: str, name: str
) -> tuple[list[_Part], list[Any]]:
    """Leave out images that cannot be decoded, with one warning that says how many and which."""
    whole = [np.array([is_whole(row[column]) for row in table]) for table in encoded]
    bad = [
        f"{part.name}[{row}]"
        for part, good in zip(parts, whole, strict=True)
        for row in part.rows[~good]
    ]
    if not bad:
        return list(parts), list(encoded)
    logger.warning(
        "%s: %d of %d images are damaged and left out (%s)",
        name,
        len(bad),
        sum(map(len, whole)),
        ", ".join(bad[:5]) + (", …" if len(bad) > 5 else ""),
    )
    kept = [replace(part, rows=part.rows[good]) for part, good in zip(parts, whole, strict=True)]
    tables = [
        table.select(np.flatnonzero(good)) for table, good in zip(encoded, whole, strict=True)
    ]
    return kept, tables


def find_label_column(features: Mapping[str, Any]) -> str | None:
    """Return the first column of class labels, or ``label``, if there is one."""
    import datasets

    classes = [k for k, v in features.items() if isinstance(v, datasets.ClassLabel)]
    return classes[0] if classes else ("label" if "label" in features else None)


def _labels(
    source: Mapping[str, Any],
    parts: Sequence[_Part],
    features: Mapping[str, Any],
    config: ImagesConfig,
) -> tuple[Tensor | None, tuple[str, ...]]:
    import datasets

    column = config.label_column or find_label_column(features)
    if column is None:
        return None, ()
    if column not in features:
        raise SignalError(f"{config.path} has no column {column!r} (signals.label_column)")
    stored: list[Any] = []
    for part in parts:
        stored += source[part.name].select(part.rows)[column][:]  # at once, not by row
    if isinstance(features[column], datasets.ClassLabel):
        names = tuple(features[column].names)
    else:
        names = tuple(sorted({str(item) for item in stored if item is not None}, key=_natural))
        stored = [None if item is None else names.index(str(item)) for item in stored]
    return torch.tensor([-1 if item is None else int(item) for item in stored]), names


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (2**62, text)


def _source_indices(source: Mapping[str, Any], parts: Sequence[_Part]) -> Tensor:
    offsets: dict[str, int] = {}
    total = 0
    for name, table in source.items():
        offsets[name] = total
        total += len(table)
    return torch.cat([torch.from_numpy(part.rows) + offsets[part.name] for part in parts])


def _description(config: ImagesConfig, parts: Sequence[_Part]) -> str:
    local = Path(config.path).expanduser()
    where = local.name if local.exists() else config.path
    ranges = ", ".join(f"{p.key}: {p.name}[{p.chosen.start}:{p.chosen.stop}]" for p in parts)
    seed = config.shuffle_seed
    order = "" if seed is None else f"; splits permuted with seed {seed}"
    change = f"; {config.rule.text}" if config.rule.text else ""
    return f"{where} ({ranges}{order}{change})"
