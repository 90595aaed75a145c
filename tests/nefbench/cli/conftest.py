"""How the tests of the command call it: in this process, or as a process of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fitting import FitConfig, fit_dataset
from nefbench.cli.app import app
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig, Split
from nefbench.spec import ParamSpec
from nefbench.weights import ConfigEntry, FieldRows, Manifest, NeuralDataset, write_manifest
from nefbench.weights.manifest import SHAPE_COORDINATES, SignalsEntry
from nefbench.weights.parts import write_part
from nefbench.weights.statistics import summarise_dataset


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only line on stderr of a request that was refused."""
        assert self.code == 2, self
        assert self.out == "", self
        assert self.err.endswith("\n"), self
        assert self.err.count("\n") == 1, self
        assert self.err.startswith("error: "), self
        return self.err.removeprefix("error: ").rstrip("\n")


Command = Callable[..., Outcome]


@pytest.fixture
def nefbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> Iterator[Command]:
    """Run ``nefbench ARGUMENTS…`` in this process, in the folder ``tmp_path``."""
    del one_thread  # its effect is what is wanted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Run ``python -m nefbench ARGUMENTS…`` as a process, in the folder ``tmp_path``."""

    def run(*arguments: str | Path, code: str | None = None, **options: Any) -> Outcome:
        start = ["-m", "nefbench"] if code is None else ["-c", code]
        # Buffered output as in daily life, whatever the environment of the tests says.
        hidden = ("PYTHONUNBUFFERED", "PYTHONSAFEPATH")
        done = subprocess.run(
            [sys.executable, *start, *map(str, arguments)],
            check=False,
            encoding="utf-8",
            env={key: value for key, value in os.environ.items() if key not in hidden},
            timeout=120,
            **({"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
        )
        return Outcome(done.returncode, done.stdout or "", done.stderr or "")

    return run


@pytest.fixture(scope="session")
def tiny_settings() -> list[str]:
    """Arguments that make ``nefbench fit digits-siren`` a matter of milliseconds."""
    settings = (
        "signals.max_signals=40", "signals.validation_size=10", "signals.test_size=10",
        "field.hidden_dim=2", "field.num_layers=2", "num_steps=2", "part_rows=10",
    )  # fmt: skip
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 40 fitted digits; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    signals = DigitsConfig(max_signals=40, validation_size=10, test_size=10).open()
    config = FitConfig(
        field=Siren(hidden_dim=2, num_layers=2, omega_0=9.0), num_steps=2, part_rows=10
    )
    fit_dataset(signals, config, folder)
    return folder


@pytest.fixture
def tiny(untouched: Path, tmp_path: Path) -> Path:
    """A copy of 40 fitted digits (20, 10, 10 in parts of 10), called ``tiny`` in ``tmp_path``."""
    shutil.copytree(untouched, tmp_path / "tiny")
    return Path("tiny")


@pytest.fixture(scope="session")
def blobs_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of fields of shapes with drawn weights; not to be changed."""
    folder = tmp_path_factory.mktemp("blobs") / "blobs"
    field = Siren(hidden_dim=3, num_layers=2, omega_0=1.0)
    spec = field.spec(3, 1)
    entry = ConfigEntry(
        field=field,
        in_dim=3,
        out_dim=1,
        tensors=spec.layout,
        signals=SignalsEntry(
            name="blobs",
            source="drawn",
            fingerprint="f" * 64,
            licence="MIT",
            grid_shape=(),
            mean=(0.0,),
            std=(1.0,),
            class_names=("round", "flat"),
            coordinates=SHAPE_COORDINATES,
            output="occupancy",
        ),
        splits=(Split("train", 0, 4), Split("test", 4, 10)),
        fit={"num_steps": 7, "init": {"kind": "shared"}, "optimizer": {"kind": "adam"}},
        digest="d" * 64,
        engine="none",
        generator="none",
        metrics=("iou", "iou_uniform", "iou_near_surface", "iou_ratio"),
        provenance=("view", "num_steps"),
    )
    rows = torch.stack([_blob(spec, index) for index in range(10)])
    iou = torch.linspace(0.9, 0.5, 10)
    everything = FieldRows(
        weights=rows,
        signal_index=100 + torch.arange(10),
        init_seed=torch.zeros(10, dtype=torch.int64),
        loss=torch.zeros(10),
        status=("ok",) * 10,
        labels=torch.arange(10) % 2,
        quality={
            "iou": iou + 0.1,
            "iou_uniform": iou,
            "iou_near_surface": iou - 0.1,
            "iou_ratio": iou / (iou + 0.1),
        },
        provenance={"view": torch.zeros(10, dtype=torch.int64), "num_steps": torch.arange(10)},
    )
    parts = tuple(
        write_part(folder, "siren", entry, split, start, everything.select(mask))
        for split, start, mask in (
            ("train", 0, torch.arange(10) < 4), ("test", 4, torch.arange(10) >= 4),
        )
    )  # fmt: skip
    dataset = NeuralDataset(folder, "siren", dataclasses.replace(entry, parts=parts))
    write_manifest(folder, Manifest(configs={"siren": summarise_dataset(dataset)}))
    return folder


def _blob(spec: ParamSpec, index: int) -> torch.Tensor:
    """The logit ``8 (cos 4x' + cos 4y' + cos 4z' - 2)`` around a point that depends on the index.

    A blob that reaches pi / 8 along each axis: there the cosine is 0.
    """
    centre = torch.tensor([0.01, -0.005, 0.002]) * index
    params = {
        "kernel_net_0.linear.bias": math.pi / 2 - 4 * centre,
        "kernel_net_0.linear.kernel": 4 * torch.eye(3),
        "output_linear.bias": torch.tensor([-16.0]),
        "output_linear.kernel": torch.full((3, 1), 8.0),
    }
    return spec.flatten(params)


@pytest.fixture
def blobs(blobs_made: Path, tmp_path: Path) -> Path:
    """A copy of ten fields of shapes (4 train, 6 test), called ``blobs`` in ``tmp_path``."""
    shutil.copytree(blobs_made, tmp_path / "blobs")
    return Path("blobs")


def _missing(_: Path) -> None:
    pass


def _empty(folder: Path) -> None:
    folder.mkdir()


def _foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"picture")


def _cut_manifest(folder: Path, tiny: Path) -> None:
    shutil.copytree(tiny, folder)
    text = (folder / "nefbench.json").read_text()
    (folder / "nefbench.json").write_text(text[: len(text) // 2])


def _changed_manifest(folder: Path, tiny: Path, **change: Any) -> None:
    shutil.copytree(tiny, folder)
    content = json.loads((folder / "nefbench.json").read_text())
    (folder / "nefbench.json").write_text(json.dumps(content | change))


UNUSABLE: dict[str, tuple[Callable[..., None], str]] = {
    "missing": (lambda folder, _: _missing(folder), "no such folder: unusable"),
    "empty": (
        lambda folder, _: _empty(folder),
        "unusable is not a neural dataset: it has no nefbench.json; 'nefbench fit' makes one",
    ),
    "foreign": (
        lambda folder, _: _foreign(folder),
        "unusable is not a neural dataset: it has no nefbench.json",
    ),
    "cut manifest": (_cut_manifest, "unusable/nefbench.json is damaged: not valid JSON"),
    "another json": (
        lambda folder, tiny: _changed_manifest(folder, tiny, format_version=None),
        "unusable/nefbench.json has no format_version; it was not written by nefbench",
    ),
    "newer format": (
        lambda folder, tiny: _changed_manifest(folder, tiny, format_version=99),
        "unusable/nefbench.json has format version 99, this nefbench reads up to 1; upgrade",
    ),
    "unknown key": (
        lambda folder, tiny: _changed_manifest(folder, tiny, colour="blue"),
        "unusable/nefbench.json is damaged: unknown key 'colour'",
    ),
}


@pytest.fixture(params=UNUSABLE)
def unusable(request: pytest.FixtureRequest, untouched: Path, tmp_path: Path) -> tuple[Path, str]:
    """A folder that is no neural dataset, and how the message about it begins."""
    make, message = UNUSABLE[request.param]
    make(tmp_path / "unusable", untouched)
    return Path("unusable"), message


@pytest.fixture(params=["cut", "flipped byte", "missing"])
def damaged(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path) -> tuple[Path, str, str]:
    """A folder with a damaged part of the test split: folder, message, remedy."""
    name = "tiny/siren-h2-shared/test/part-000030-000040.parquet"
    part = tmp_path / name
    content = bytearray(part.read_bytes())
    if request.param == "cut":
        part.write_bytes(content[:-100])
        message = f"{name} has {len(content) - 100} bytes, {len(content)} expected"
    elif request.param == "flipped byte":
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        message = f"{name}: checksum differs from nefbench.json; the file is damaged"
    else:
        part.unlink()
        message = f"{name} is missing"
    return tiny, message, "fit tiny --config siren-h2-shared --only 30:40"


@pytest.fixture
def tiny_toml() -> str:
    """Return a study of four trials: two starts, two numbers of steps; seconds."""
    return """
name = "tiny"

[sources.digits]
kind = "digits"
max_signals = 150
validation_size = 30
test_size = 30

[fields.siren.fit]
field = { kind = "siren", hidden_dim = 4 }
engine = "vmapped"

[fields.siren.space]
"init.kind" = { kind = "choice", values = ["shared", "random"] }
num_steps = { kind = "choice", values = [2, 6] }

[classifiers.mlp.classifier]
model = { kind = "mlp", hidden_dims = [16] }
num_epochs = 2
seeds = [0, 1]

[design]
kind = "grid"
"""
