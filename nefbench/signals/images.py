"""Images from the Hugging Face Hub, a local Hub-style folder, Parquet, or image files."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.signals.base import Signals, channel_statistics, make_splits

_SLICE = re.compile(r"^(?P<name>[^\[\]]+?)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")
_TABLE_ENDINGS = (".parquet", ".csv", ".json")
_LOCAL_ENDINGS = (*_TABLE_ENDINGS, ".zip", ".tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Images of one size, grey or RGB, read through the ``datasets`` library.

    Split expressions are those of ``datasets``: ``train``, ``train[:55000]``, ``test[90%:]``.
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

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        if self.std is not None and not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"expected std > 0 and finite (got {self.std})")
        if self.mean is not None and not all(map(math.isfinite, self.mean)):
            raise ValueError(f"expected a finite mean (got {self.mean})")
        if self.revision is not None and Path(self.path).expanduser().exists():
            raise ValueError(f"revision: {self.path} is a local copy and has no revisions")
        for name in ("train", "validation", "test"):
            if not _SLICE.match(getattr(self, name)):
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is not a split expression such as "
                    f"'train[:1000]'"
                )

    def open(self) -> Signals:
        """Open the source and check its images; pixels are decoded later, block by block."""
        name = self.name or _last_part(self.path)
        source = _load(self)
        chosen = {key: _select(source, getattr(self, key), key, self.path)
                  for key in ("train", "validation", "test")}  # fmt: skip
        _require_disjoint(chosen)
        splits = make_splits([(key, len(positions)) for key, (_, positions) in chosen.items()])
        features = source[chosen["train"][0]].features
        column = self.image_column or _image_column(features, self.path)
        values = _image_values(source, list(chosen.values()), column, name)
        labels, class_names = _labels(source, list(chosen.values()), features, self)
        if self.mean is None or self.std is None:
            mean, std = channel_statistics(values, splits[0], name)
        else:
            mean, std = self.mean, self.std
        if len(mean) != values.num_channels or len(std) != values.num_channels:
            raise SignalError(
                f"{name}: images have {values.num_channels} channel(s), "
                f"signals.mean has {len(mean)} and signals.std {len(std)} number(s)"
            )
        return Signals(
            name=name,
            source=_description(self, chosen),
            grid_shape=values.size,
            values=values,
            indices=_source_indices(source, list(chosen.values())),
            splits=splits,
            mean=tuple(mean),
            std=tuple(std),
            labels=labels,
            class_names=class_names,
            licence=source[chosen["train"][0]].info.license or "unknown",
            config=config_to_mapping(self),
        )


@dataclass(frozen=True)
class ImageValues:
    """Encoded images in an Arrow table, decoded when they are read.

    Attributes:
        table: A ``datasets.Dataset`` whose image column is not decoded.
        column: Name of the image column.
        size: Height and width of every image.
        num_channels: 1 or 3.
        name: For messages.
    """

    table: Any
    column: str
    size: tuple[int, int]
    num_channels: int
    name: str

    def __len__(self) -> int:
        """Number of images ``N``."""
        return len(self.table)

    def read(self, positions: Sequence[int]) -> Tensor:
        """Decode images to ``[n, H * W, c]``, float32 in [0, 1]."""
        encoded = self.table[list(positions)][self.column]
        pixels = np.stack(
            [
                _decode(item, self.num_channels, self.name, position)
                for item, position in zip(encoded, positions, strict=True)
            ]
        )
        flat = torch.from_numpy(pixels).reshape(len(pixels), -1, self.num_channels)
        return flat.to(torch.float32) / 255


def _last_part(path: str) -> str:
    last = Path(path)
    return last.stem if last.suffix in _LOCAL_ENDINGS else last.name


def _load(config: ImagesConfig) -> Mapping[str, Any]:
    import datasets

    local = Path(config.path).expanduser()
    looks_local = config.path.startswith((".", "/", "~")) or config.path.endswith(_LOCAL_ENDINGS)
    if not local.exists() and looks_local:
        raise SignalError(f"no such file or folder: {config.path}")
    if local.is_file() and local.suffix not in _TABLE_ENDINGS:
        # The library would look for a Hub dataset that is called like the file ending.
        raise SignalError(f"{config.path}: expected a Parquet file or a folder (unpack archives)")
    if local.is_dir() and not any(local.iterdir()):
        raise SignalError(f"{config.path} is empty; expected Parquet files or images")
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
                return dict(datasets.load_dataset(str(local), config.subset, cache_dir=cache))
            return dict(datasets.load_dataset(config.path, config.subset, revision=config.revision))
    except Exception as error:  # the library raises a different type for every way of failing
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local.exists():
            raise SignalError(f"{config.path} does not open as a dataset: {reason}") from error
        raise SignalError(
            f"cannot load {config.path!r} from the Hub ({reason}); check the name and the network, "
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


def _select(source: Mapping[str, Any], expression: str, key: str, path: str) -> tuple[str, range]:
    match = _SLICE.match(expression)
    assert match is not None, "checked by the configuration"
    name = match["name"]
    if name not in source:
        raise SignalError(
            f"{path} has no split {name!r} (it has {', '.join(source)}); "
            f"set signals.{key}, for example --set 'signals.{key}=train[90%:]'"
        )
    size = len(source[name])
    start, stop = _bound(match["start"], size, 0), _bound(match["stop"], size, size)
    if not 0 <= start < stop <= size:
        raise SignalError(
            f"signals.{key} = {expression!r} selects nothing: split {name!r} has {size} signals"
        )
    return name, range(start, stop)


def _require_disjoint(chosen: Mapping[str, tuple[str, range]]) -> None:
    """Raise if a signal is in two splits: a test on training data measures nothing."""
    for (one, (name, first)), (two, (other, second)) in itertools.combinations(chosen.items(), 2):
        low, high = max(first.start, second.start), min(first.stop, second.stop)
        if name == other and low < high:
            raise SignalError(
                f"signals.{one} and signals.{two} share {high - low} signals "
                f"({name}[{low}:{high}]); choose splits without overlap"
            )


def _bound(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return min(value + size if value < 0 else value, size)


def _image_column(features: Mapping[str, Any], path: str) -> str:
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            return name
    raise SignalError(
        f"{path} has no image column (columns: {', '.join(features)}); set signals.image_column"
    )


def _image_values(
    source: Mapping[str, Any], chosen: Sequence[tuple[str, range]], column: str, name: str
) -> ImageValues:
    import datasets

    parts = []
    for split, positions in chosen:
        if column not in source[split].features:
            raise SignalError(f"{name}: split {split!r} has no column {column!r}")
        part = source[split].select(positions).select_columns([column])
        parts.append(part.cast_column(column, datasets.Image(decode=False)))
    table = datasets.concatenate_datasets(parts)
    size, mode = _header(table[0][column], name, 0)
    for position, row in enumerate(table):
        other_size, other_mode = _header(row[column], name, position)
        if other_size != size or other_mode != mode:
            raise SignalError(
                f"{name}: images differ: {_describe(size, mode)} at position 0, "
                f"{_describe(other_size, other_mode)} at position {position}; "
                f"a neural dataset needs one size and one colour mode, convert them first"
            )
    if mode not in ("L", "RGB", "1"):
        raise SignalError(
            f"{name}: images of mode {mode!r}; expected grey (L) or RGB, convert them first"
        )
    return ImageValues(table, column, size, 3 if mode == "RGB" else 1, name)


def _header(
    item: Mapping[str, Any] | None, name: str, position: int
) -> tuple[tuple[int, int], str]:
    from PIL import Image, UnidentifiedImageError

    if item is None or (item["bytes"] is None and item["path"] is None):
        raise SignalError(f"{name}: there is no image at position {position}")
    try:
        with Image.open(_stream(item)) as image:
            return (image.height, image.width), image.mode
    except (UnidentifiedImageError, OSError) as error:
        raise SignalError(f"{name}: the image at position {position} does not open") from error


def _decode(item: Mapping[str, Any], num_channels: int, name: str, position: int) -> Any:
    from PIL import Image

    try:
        with Image.open(_stream(item)) as image:
            return np.asarray(image.convert("RGB" if num_channels == 3 else "L"))
    except (OSError, SyntaxError) as error:  # PIL's words for a file cut short, a broken chunk
        raise SignalError(f"{name}: the image at position {position} is damaged") from error


def _stream(item: Mapping[str, Any]) -> Any:
    return item["path"] if item["bytes"] is None else io.BytesIO(item["bytes"])


def _describe(size: tuple[int, int], mode: str) -> str:
    return f"{size[0]}x{size[1]} {mode}"


def _labels(
    source: Mapping[str, Any],
    chosen: Sequence[tuple[str, range]],
    features: Mapping[str, Any],
    config: ImagesConfig,
) -> tuple[Tensor | None, tuple[str, ...]]:
    import datasets

    column = config.label_column
    if column is None:
        classes = [k for k, v in features.items() if isinstance(v, datasets.ClassLabel)]
        column = classes[0] if classes else ("label" if "label" in features else None)
    if column is None:
        return None, ()
    if column not in features:
        raise SignalError(f"{config.path} has no column {column!r} (signals.label_column)")
    stored: list[Any] = []
    for split, positions in chosen:
        stored += source[split].select(positions)[column]
    if isinstance(features[column], datasets.ClassLabel):
        names = tuple(features[column].names)
    else:
        names = tuple(sorted({str(item) for item in stored if item is not None}, key=_natural))
        stored = [None if item is None else names.index(str(item)) for item in stored]
    return torch.tensor([-1 if item is None else int(item) for item in stored]), names


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (2**62, text)


def _source_indices(source: Mapping[str, Any], chosen: Sequence[tuple[str, range]]) -> Tensor:
    offsets: dict[str, int] = {}
    total = 0
    for name, table in source.items():
        offsets[name] = total
        total += len(table)
    return torch.cat([torch.arange(p.start, p.stop) + offsets[name] for name, p in chosen])


def _description(config: ImagesConfig, chosen: Mapping[str, tuple[str, range]]) -> str:
    local = Path(config.path).expanduser()
    where = local.name if local.exists() else config.path
    ranges = ", ".join(f"{k}: {n}[{p.start}:{p.stop}]" for k, (n, p) in chosen.items())
    return f"{where} ({ranges})"
