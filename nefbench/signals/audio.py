"""Signals from a folder of WAV files: waveforms, read from the files as they are needed."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.signals.base import GridSignals
from nefbench.signals.class_folders import list_class_files
from nefbench.signals.splits import check_split_sizes, check_statistics, given_or_measured

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WIDTHS = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8)}
_COMPRESSED = {2: "ADPCM", 6: "A-law", 7: "mu-law", 0x11: "IMA ADPCM", 0x31: "GSM", 0x55: "MP3"}
_UNKNOWN_SIZE = 0xFFFFFFFF  # written by programs that write to a pipe


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig:
    """Waveforms in WAV files of one sample rate, PCM of 8 to 32 bits or floating point.

    Files lie in ``<path>/<class>/…``, or directly in ``path`` and have no class. All of it may lie
    in a folder ``train``, beside folders ``validation`` and ``test``; splits without one are drawn.
    """

    kind: Literal["audio"] = "audio"
    path: str
    """The folder."""
    num_samples: int | None = None
    """Cut every file to its first samples, this many; left out, all must have one length."""
    name: str | None = None
    """What a reader calls it; the folder's name if left out."""
    validation_size: float = 0.1
    """Signals in the validation split: a number, a share below 1 of the training files, or 0 for no
    such split. Not used where there is a folder ``validation``."""
    test_size: float = 0.2
    """Signals in the test split, likewise."""
    split_seed: int = 0
    """Seed of the permutation that assigns signals to splits."""
    mean: tuple[float, ...] | None = None
    """Mean per channel; computed over the training signals if left out."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel; computed over the training signals if left out."""

    def __post_init__(self) -> None:
        if self.num_samples is not None and self.num_samples < 1:
            raise ValueError(f"expected num_samples >= 1 (got {self.num_samples})")
        check_split_sizes(self.validation_size, self.test_size, self.split_seed)
        check_statistics(self.mean, self.std)

    def open(self) -> GridSignals:
        """List the files and read their headers; samples are read later, block by block."""
        folder = Path(self.path).expanduser().absolute()
        name = self.name or folder.name
        found = list_class_files(
            folder,
            [".wav"],
            validation_size=self.validation_size,
            test_size=self.test_size,
            split_seed=self.split_seed,
            stream="audio/splits",
        )
        files = tuple(path.relative_to(folder).as_posix() for path in found.paths)
        waves = {file: read_header(folder / file) for file in sorted(files)}
        num_samples = _common_length(waves, self.num_samples)
        rate = _common(waves, "rate", "Hz", "resample them to one rate, nefbench does not")
        _common(waves, "num_channels", "channel(s)", "convert them to one number of channels")
        values = WaveValues(folder, files, tuple(waves[file] for file in files), num_samples)
        for position, wave in enumerate(values.waves):
            if wave.encoding == _FLOAT:  # only these can go wrong: better now than in mid-fit
                values.read([position])
        mean, std = given_or_measured(self.mean, self.std, values, found.splits[0], name)
        return GridSignals(
            name=name,
            source=f"{folder.name} ({len(files):,} WAV files, {rate:,} Hz, "
            f"{num_samples / rate:.4g} s)",
            grid_shape=(num_samples,),
            values=values,
            value_range=(-1.0, 1.0),
            indices=found.indices,
            splits=found.splits,
            mean=mean,
            std=std,
            labels=found.labels,
            class_names=found.class_names,
            config=config_to_mapping(self),
        )


@dataclass(frozen=True, slots=True)
class Wave:
    """Where and how the samples of one WAV file lie in it.

    Attributes:
        rate: Sample rate in Hz.
        num_channels: 1 for mono, 2 for stereo.
        encoding: 1 for integers (PCM), 3 for floating point.
        width: Bytes per number.
        offset: First byte of the samples.
        num_samples: Samples per channel.
    """

    rate: int
    num_channels: int
    encoding: int
    width: int
    offset: int
    num_samples: int


@dataclass(frozen=True)
class WaveValues:
    """Waveforms in WAV files; travels to another process as their paths.

    Attributes:
        folder: The folder that the files are named in.
        files: Path in it of every signal's file.
        waves: Header of every file.
        num_samples: Samples that are read of each, from the first.
    """

    folder: Path
    files: tuple[str, ...]
    waves: tuple[Wave, ...]
    num_samples: int

    def __len__(self) -> int:
        """Number of signals ``N``."""
        return len(self.files)

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return waveforms ``[n, num_samples, c]``, float32 in [-1, 1].

        Raises:
            SignalError: If a file is gone or cut short, or holds floats out of range.
        """
        return torch.stack(
            [
                torch.from_numpy(
                    read_samples(self.folder / self.files[p], self.waves[p], self.num_samples)
                )
                for p in positions
            ]
        )


def read_header(path: Path) -> Wave:
    """Read the header of a WAV file.

    Source: Microsoft, "Multimedia Programming Interface and Data Specifications 1.0" (1991), and
    for ``WAVE_FORMAT_EXTENSIBLE`` Microsoft's "Multiple channel audio data and WAVE files" (2001).

    Raises:
        SignalError: If it is none, is cut short, or its samples are compressed.
    """
    try:
        with path.open("rb") as stream:
            return _parse(stream, path)
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    except struct.error as error:
        raise SignalError(f"{path} ends within its header; the file is damaged") from error


def read_samples(path: Path, wave: Wave, num_samples: int) -> npt.NDArray[np.float32]:
    """Read the first samples of a WAV file, ``[num_samples, c]`` in [-1, 1].

    Integers of ``b`` bits are divided by ``2**(b - 1)``; those of 8 bits are unsigned, 128 is 0.

    Raises:
        SignalError: If they are not there, or are floats out of range.
    """
    size = num_samples * wave.num_channels * wave.width
    try:
        raw = np.fromfile(path, np.uint8, size, offset=wave.offset)
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) < size:
        raise SignalError(f"{path} has changed since it was opened: it is shorter now")
    samples = _decoded(raw, wave).reshape(num_samples, wave.num_channels)
    if wave.encoding == _FLOAT:
        _check_floats(samples, path)
    return samples


def _parse(stream: BinaryIO, path: Path) -> Wave:
    kind, _, form = struct.unpack("<4sI4s", stream.read(12))
    if (kind, form) != (b"RIFF", b"WAVE"):
        raise SignalError(f"{path} is not a WAV file (it does not begin with RIFF and WAVE)")
    layout = None
    while True:
        key, size = struct.unpack("<4sI", stream.read(8))
        if key == b"fmt ":
            layout = _parse_format(stream.read(size), path)
            stream.seek(size % 2, os.SEEK_CUR)
        elif key == b"data" and layout is not None:
            break
        else:
            stream.seek(size + size % 2, os.SEEK_CUR)
    rate, num_channels, encoding, width = layout
    offset = stream.tell()
    there = stream.seek(0, os.SEEK_END) - offset
    if size == _UNKNOWN_SIZE:
        size = there
    if size > there:
        raise SignalError(
            f"{path} is cut short: its header tells of {size:,} bytes of samples, {there:,} follow"
        )
    num_samples = size // (num_channels * width)
    if not num_samples:
        raise SignalError(f"{path} holds no samples; remove it")
    return Wave(rate, num_channels, encoding, width, offset, num_samples)


def _parse_format(content: bytes, path: Path) -> tuple[int, int, int, int]:
    encoding, num_channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", content)
    if encoding == _EXTENSIBLE:
        (encoding,) = struct.unpack_from("<H", content, 24)
    if encoding not in _WIDTHS:
        kind = _COMPRESSED.get(encoding, f"format {encoding:#06x}")
        raise SignalError(f"{path} is compressed ({kind}); convert it to PCM first")
    width = block // num_channels if num_channels else 0
    if width not in _WIDTHS[encoding] or width * num_channels != block or not rate:
        raise SignalError(
            f"{path}: {num_channels} channel(s) of {bits} bits at {rate} Hz; "
            f"expected PCM of 8 to 32 bits or floats of 32 or 64"
        )
    return rate, num_channels, encoding, width


def _decoded(raw: npt.NDArray[np.uint8], wave: Wave) -> npt.NDArray[np.float32]:
    if wave.encoding == _FLOAT:
        with np.errstate(over="ignore"):
            return raw.view(f"<f{wave.width}").astype(np.float32)
    if wave.width == 1:
        return (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
    # Left-justified in 32 bits; the shift by a power of two is exact.
    wide = np.zeros((len(raw) // wave.width, 4), np.uint8)
    wide[:, 4 - wave.width :] = raw.reshape(-1, wave.width)
    return wide.view("<i4").astype(np.float32) / np.float32(2**31)


def _check_floats(samples: npt.NDArray[np.float32], path: Path) -> None:
    low, high = float(samples.min()), float(samples.max())
    if not np.isfinite(samples).all():
        raise SignalError(f"{path} holds NaN or infinite samples; remove or repair it")
    if low < -1 or high > 1:
        raise SignalError(
            f"{path}: samples must lie in [-1, 1] (got {low:.6g} to {high:.6g}); "
            f"rescale all files by one factor"
        )


def _common_length(waves: Mapping[str, Wave], wanted: int | None) -> int:
    if wanted is None:
        shortest = min(wave.num_samples for wave in waves.values())
        remedy = f"cut them with --set signals.num_samples={shortest} or less"
        return _common(waves, "num_samples", "samples", remedy)
    for file, wave in waves.items():
        if wave.num_samples < wanted:
            raise SignalError(
                f"{file} has {wave.num_samples:,} samples, signals.num_samples asks for "
                f"{wanted:,}; lower it or remove the file"
            )
    return wanted


def _common(waves: Mapping[str, Wave], key: str, unit: str, remedy: str) -> int:
    """Return the number that the headers of all files agree in."""
    numbers: dict[int, str] = {}
    for file, wave in waves.items():
        numbers.setdefault(getattr(wave, key), file)
    (number, first), *others = numbers.items()
    if others:
        other, file = others[0]
        raise SignalError(f"{first} has {number:,} {unit}, {file} has {other:,}; {remedy}")
    return number
