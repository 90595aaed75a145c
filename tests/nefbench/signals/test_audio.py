from __future__ import annotations

import math
import pickle
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError, SignalError
from nefbench.signals.audio import AudioConfig, read_header, read_samples

RATE = 8000


def tone(frequency: float, count: int = 64, channels: int = 1) -> np.ndarray:
    time = np.arange(count)[:, None] / RATE + 0.001 * np.arange(channels)
    return (0.8 * np.sin(2 * math.pi * frequency * time)).astype(np.float32)


def as_16_bits(samples: np.ndarray) -> np.ndarray:
    return np.round(samples * 32767).astype(np.int16)


def save(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, samples)
    return path


ALL_TRAIN: dict[str, Any] = {"validation_size": 0, "test_size": 0}


def folder_of(folder: Path, names: list[str], **options: Any) -> str:
    for number, name in enumerate(names):
        save(folder / name, as_16_bits(tone(200 + 50 * number, **options)))
    return str(folder)


def complaint(**keys: Any) -> str:
    with pytest.raises(SignalError) as caught:
        AudioConfig(**keys).open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def chunk(key: bytes, content: bytes) -> bytes:
    return key + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def format_chunk(encoding: int, channels: int, bits: int, rate: int = RATE) -> bytes:
    block = channels * bits // 8
    packed = struct.pack("<HHIIHH", encoding, channels, rate, rate * block, block, bits)
    return chunk(b"fmt ", packed)


def riff(path: Path, *chunks: bytes) -> Path:
    content = b"WAVE" + b"".join(chunks)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    return path


def decoded(path: Path) -> np.ndarray:
    header = read_header(path)
    return read_samples(path, header, header.num_samples)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("dtype", "scale"), [("u1", 2.0**7), ("i2", 2.0**15), ("i4", 2.0**31)])
def test_integers_are_read_as_scipy_wrote_them(
    tmp_path: Path, dtype: str, scale: float, channels: int
) -> None:
    limits = np.iinfo(dtype)
    draw = np.random.default_rng(0)
    raw = draw.integers(limits.min, limits.max, (33, channels), dtype=dtype, endpoint=True)
    raw[0], raw[1] = limits.min, limits.max

    samples = decoded(save(tmp_path / "x.wav", raw))

    expected = (raw.astype(np.float64) - (128 if dtype == "u1" else 0)) / scale
    assert samples.dtype == np.float32
    assert np.array_equal(samples, expected.astype(np.float32))
    assert samples.min() == -1


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_floats_are_read_as_they_are(tmp_path: Path, dtype: str) -> None:
    raw = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(dtype)

    assert np.array_equal(decoded(save(tmp_path / "x.wav", raw)), raw.astype(np.float32))


def test_24_bits_are_read_as_the_standard_library_wrote_them(tmp_path: Path) -> None:
    numbers = [0, 1, -1, 2**23 - 1, -(2**23), 0x123456]
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((2, 3, RATE, 0, "NONE", ""))
        file.writeframes(b"".join(n.to_bytes(3, "little", signed=True) for n in numbers))

    samples = decoded(tmp_path / "x.wav")

    assert samples.tolist() == (np.array(numbers) / 2**23).reshape(3, 2).tolist()


def test_the_extensible_form_and_other_chunks_are_understood(tmp_path: Path) -> None:
    raw = np.array([[1000, -1000], [16384, 0]], dtype="<i2")
    layout = struct.pack("<HHIIHH", 0xFFFE, 2, RATE, RATE * 4, 4, 16)
    extension = struct.pack("<HHIH", 22, 16, 3, 1) + bytes(14)
    path = riff(
        tmp_path / "x.wav",
        chunk(b"LIST", b"odd"),
        chunk(b"fmt ", layout + extension),
        chunk(b"fact", bytes(4)),
        chunk(b"data", raw.tobytes()),
        chunk(b"LIST", b"after"),
    )

    assert read_header(path).num_samples == 2
    assert np.array_equal(decoded(path), raw / np.float32(32768))


def test_a_file_from_a_pipe_goes_on_to_its_end(tmp_path: Path) -> None:
    path = save(tmp_path / "x.wav", as_16_bits(tone(300)))
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff" * 4
    path.write_bytes(content)

    assert read_header(path).num_samples == 64


def test_folders_are_classes(tmp_path: Path) -> None:
    names = [f"{word}/{number}.wav" for word in ("no", "yes") for number in range(10)]
    signals = AudioConfig(path=folder_of(tmp_path / "words", names)).open()

    assert signals.class_names == ("no", "yes")
    assert signals.labels is not None
    assert signals.labels.tolist() == (signals.indices >= 10).long().tolist()
    assert sorted(signals.indices.tolist()) == list(range(20))
    assert [(s.name, len(s)) for s in signals.splits] == [
        ("train", 14),
        ("validation", 2),
        ("test", 4),
    ]
    assert (signals.grid_shape, signals.num_channels, signals.in_dim) == ((64,), 1, 1)
    assert (signals.name, signals.value_range) == ("words", (-1.0, 1.0))
    assert signals.source == "words (20 WAV files, 8,000 Hz, 0.008 s)"
    for row, index in enumerate(signals.indices.tolist()):
        expected = as_16_bits(tone(200 + 50 * index)) / np.float32(32768)
        assert np.array_equal(signals.values.read([row])[0].numpy(), expected)


def test_statistics_are_those_of_the_training_files(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", [f"{n}.wav" for n in range(10)], channels=2)

    signals = AudioConfig(path=path).open()

    train = signals.values.read(range(len(signals.splits[0]))).flatten(0, 1).double()
    assert signals.mean == pytest.approx(train.mean(0).tolist())
    assert signals.std == pytest.approx(train.std(0, correction=0).tolist())
    assert (signals.labels, signals.class_names) == (None, ())
    given = AudioConfig(path=path, mean=(0.0, 0.0), std=(1.0, 1.0)).open()
    assert torch.equal(given.targets([3]), given.values.read([3]))


SPLIT_NAMES = ("train", "validation", "test")


def split_files(*parts: str) -> list[str]:
    return [f"{part}/{word}/{n}.wav" for part in parts for word in "ab" for n in range(5)]


def test_folders_at_the_top_are_splits(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", split_files(*SPLIT_NAMES))

    signals = AudioConfig(path=path).open()

    assert [(s.name, len(s)) for s in signals.splits] == [(part, 10) for part in SPLIT_NAMES]
    assert signals.class_names == ("a", "b")
    # Sorted: test/…, train/…, validation/….
    assert sorted(signals.indices[:10].tolist()) == list(range(10, 20))
    assert signals.indices[10:].tolist() == [*range(20, 30), *range(10)]
    files = signals.values.files  # type: ignore[attr-defined]
    assert {file.split("/")[0] for file in files[10:20]} == {"validation"}
    assert signals.labels is not None
    assert ["ab"[label] for label in signals.labels] == [file.split("/")[1] for file in files]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train",), [("train", 7), ("validation", 1), ("test", 2)]),
        (("train", "test"), [("train", 9), ("validation", 1), ("test", 10)]),
        (("train", "validation"), [("train", 8), ("validation", 10), ("test", 2)]),
    ],
)
def test_missing_splits_are_drawn_from_the_training_files(
    tmp_path: Path, parts: tuple[str, ...], expected: list[tuple[str, int]]
) -> None:
    path = folder_of(tmp_path / "x", split_files(*parts))

    signals = AudioConfig(path=path).open()

    assert [(split.name, len(split)) for split in signals.splits] == expected
    assert sorted(signals.indices.tolist()) == list(range(10 * len(parts)))
    for split in signals.splits:
        indices = signals.indices[split.start : split.stop]
        files = signals.values.files[split.start : split.stop]  # type: ignore[attr-defined]
        home = split.name if split.name in parts else "train"
        assert {file.split("/")[0] for file in files} == {home}
        assert len(set(indices.tolist())) == len(split)


def test_other_sounds_and_archives_are_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", [f"a/{n}.wav" for n in range(5)])
    (tmp_path / "x" / "a" / "6.flac").touch()

    flac, archive = f"{path}/a/6.flac", f"{path}/a/7.tar"
    assert complaint(path=path) == f"{flac}: expected .wav files; convert it, or move it"
    (tmp_path / "x" / "a" / "6.flac").rename(archive)
    assert complaint(path=path).startswith(f"{archive} is an archive; unpack it, or move it out")


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    path = folder_of(
        tmp_path / "x", [*(f"a/{n}.WAV" for n in range(4)), "a/deep/4.wav", "a/._0.wav", ".b/0.wav"]
    )
    (tmp_path / "x" / "readme.txt").write_text("x")
    (tmp_path / "x" / "empty").mkdir()

    signals = AudioConfig(path=path).open()

    assert (len(signals), signals.class_names) == (5, ("a",))


def test_files_are_cut_to_their_first_samples(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.wav", as_16_bits(tone(300 + number, 40 + number)))

    signals = AudioConfig(path=str(tmp_path), num_samples=40).open()

    assert signals.grid_shape == (40,)
    for row, index in enumerate(signals.indices.tolist()):
        expected = as_16_bits(tone(300 + index, 40)) / np.float32(32768)
        assert np.array_equal(signals.values.read([row])[0].numpy(), expected)
    assert complaint(path=str(tmp_path), num_samples=42) == (
        "0.wav has 40 samples, signals.num_samples asks for 42; lower it or remove the file"
    )
    assert complaint(path=str(tmp_path)) == (
        "0.wav has 40 samples, 1.wav has 41; cut them with --set signals.num_samples=40 or less"
    )


def test_files_of_two_rates_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.wav", as_16_bits(tone(300)))
    save(tmp_path / "b.wav", as_16_bits(tone(300)), rate=16_000)

    assert complaint(path=str(tmp_path), **ALL_TRAIN) == (
        "a.wav has 8,000 Hz, b.wav has 16,000; resample them to one rate, nefbench does not"
    )


def test_mono_beside_stereo_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.wav", as_16_bits(tone(300)))
    save(tmp_path / "b.wav", as_16_bits(tone(300, channels=2)))

    assert complaint(path=str(tmp_path), **ALL_TRAIN) == (
        "a.wav has 1 channel(s), b.wav has 2; convert them to one number of channels"
    )


@pytest.mark.parametrize(
    ("encoding", "kind"), [(2, "ADPCM"), (6, "A-law"), (7, "mu-law"), (0x55, "MP3")]
)
def test_compressed_files_are_refused(tmp_path: Path, encoding: int, kind: str) -> None:
    path = riff(tmp_path / "x.wav", format_chunk(encoding, 1, 8), chunk(b"data", bytes(10)))

    assert (
        complaint(path=str(tmp_path), **ALL_TRAIN)
        == f"{path} is compressed ({kind}); convert it to PCM first"
    )


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], "ends within its header; the file is damaged"),
        ([format_chunk(1, 1, 16)], "ends within its header; the file is damaged"),
        ([chunk(b"data", bytes(8))], "ends within its header; the file is damaged"),
        ([chunk(b"fmt ", bytes(7))], "ends within its header; the file is damaged"),
        ([format_chunk(1, 1, 16), chunk(b"data", b"")], "holds no samples; remove it"),
        ([format_chunk(0x1234, 1, 16)], "is compressed (format 0x1234); convert it to PCM first"),
        ([format_chunk(1, 0, 16)], "0 channel(s) of 16 bits at 8000 Hz; expected PCM of 8 to 32"),
        ([format_chunk(1, 1, 64)], "1 channel(s) of 64 bits at 8000 Hz; expected PCM of 8 to 32"),
        ([format_chunk(3, 1, 16)], "1 channel(s) of 16 bits at 8000 Hz; expected PCM of 8 to 32"),
        ([format_chunk(1, 1, 16, 0)], "1 channel(s) of 16 bits at 0 Hz; expected PCM of 8 to 32"),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, chunks: list[bytes], expected: str) -> None:
    path = riff(tmp_path / "x.wav", *chunks)

    message = complaint(path=str(tmp_path), **ALL_TRAIN)
    assert message.startswith(str(path))
    assert expected in message


@pytest.mark.parametrize("content", [b"RIFX" + bytes(60), b"fLaC" + bytes(60)])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.wav").write_bytes(content)

    assert "x.wav is not a WAV file" in complaint(path=str(tmp_path), **ALL_TRAIN)


def test_files_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.wav", as_16_bits(tone(300)))
    path.write_bytes(path.read_bytes()[:-28])

    assert complaint(path=str(tmp_path), **ALL_TRAIN) == (
        f"{path} is cut short: its header tells of 128 bytes of samples, 100 follow"
    )


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (1.5, "samples must lie in [-1, 1] (got -0.8 to 1.5); rescale all files by one factor"),
        (math.nan, "holds NaN or infinite samples; remove or repair it"),
    ],
)
def test_floats_that_do_not_fit_are_found_in_every_split(
    tmp_path: Path, bad: float, expected: str
) -> None:
    for number in range(5):
        samples = np.full((32, 1), -0.8, dtype=np.float32)
        samples[7] = bad if number == 3 else 0.5
        path = save(tmp_path / f"{number}.wav", samples)

    for seed in range(3):
        message = complaint(path=str(tmp_path), split_seed=seed)
        assert message.startswith(str(path.with_name("3.wav")))
        assert message.endswith(expected)


def test_a_file_that_shrinks_or_goes_is_named(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", [f"{n}.wav" for n in range(5)])
    signals = AudioConfig(path=path).open()
    files = sorted((tmp_path / "x").iterdir())
    for file in files:
        file.write_bytes(file.read_bytes()[:-2])

    with pytest.raises(SignalError, match="wav has changed since it was opened"):
        signals.targets([0])
    for file in files:
        file.unlink()
    with pytest.raises(SignalError, match=r"^cannot read .*wav: No such file"):
        signals.targets([0])


def test_signals_travel_as_paths_and_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "x", [f"{n}.wav" for n in range(5)], count=10_000)
    monkeypatch.chdir(tmp_path)
    signals = AudioConfig(path="x").open()
    travelling = pickle.dumps(signals)
    monkeypatch.chdir("/")

    assert len(travelling) < 5000
    assert torch.equal(pickle.loads(travelling).targets([4]), signals.targets([4]))


def test_the_recorded_configuration_opens_the_same_signals(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "x", [f"{n}.wav" for n in range(9)])
    first = AudioConfig(path=path, num_samples=30, split_seed=2, name="z", test_size=2).open()
    assert first.config is not None

    again = config_from_mapping(AudioConfig, first.config).open()

    assert (again.fingerprint, again.name) == (first.fingerprint, "z")
    other = AudioConfig(path=path, num_samples=30, split_seed=3, test_size=2).open()
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "expected a folder of .wav files at {}; check signals.path"),
        (["a/.b.wav"], "{} holds no .wav files; check signals.path"),
        (["test/a.wav"], "{} has folders test and no train folder; put every file below train,"),
        (
            ["train/a.wav", "other/b.wav", "test/c.wav"],
            "{} has folders train, test and other/b.wav; put every file below train, validation",
        ),
        (
            ["train/a.wav", "test/.b.wav"],
            "{}/test holds no .wav files; add some, or remove it",
        ),
        (
            ["a/a.wav", "b.wav"],
            "{} has class folders and, beside them, b.wav; move it into a class folder",
        ),
        (
            ["train/a/a.wav", "test/b.wav"],
            "{} has class folders and, beside them, test/b.wav; move it into a class folder",
        ),
        (["a.wav", "b.wav"], "{}: 2 signals leave none to train on beside 1 for validation and 1"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    tmp_path: Path, names: list[str], expected: str
) -> None:
    path = folder_of(tmp_path / "x", names)

    assert complaint(path=path).startswith(expected.format(path))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"num_samples": 0}, "expected num_samples >= 1 (got 0)"),
        ({"test_size": 1.5}, "expected test_size to be a number, or a share below 1 (got 1.5)"),
        ({"split_seed": -1}, "expected split_seed from 0 to 2**63 - 1 (got -1)"),
        ({"mean": [0.5]}, "mean and std go together: give both or neither"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(AudioConfig, {"path": "x", **keys})
    assert str(caught.value) == expected
