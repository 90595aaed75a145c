from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOMS = ("nefbench", "fitting", "classifiers", "studies")
ROOT = Path(__file__).resolve().parents[2]

WITHOUT = """
import importlib, json, pkgutil, sys
for name in {absent}:
    sys.modules[name] = None  # importing it fails
imported = []
for room in {rooms}:
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{{room}}."):
        if module.name in {doors}:
            continue
        importlib.import_module(module.name)
        imported.append(module.name)

from classifiers import MLP, ClassifierConfig, train_classifier
from fitting import FitConfig, fit_dataset
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig
signals = DigitsConfig(max_signals=60, validation_size=10, test_size=10).open()
dataset = fit_dataset(
    signals, FitConfig(field=Siren(hidden_dim=2, num_layers=2), num_steps=1), "dataset"
)
config = ClassifierConfig(model=MLP(hidden_dims=(4,)), num_epochs=1, seeds=(0,))
report = train_classifier(dataset, config)
print(json.dumps({{"imported": imported, "num_rows": report.num_rows}}))
"""

OWNERS = """
import importlib.metadata, json
owners = importlib.metadata.packages_distributions()
print(json.dumps({name: owners.get(name) for name in [%s, "tests", "benchmarks", "docs"]}))
"""


def run(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules(room: str) -> set[str]:
    """Names of the modules of a package, from its files."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / room).rglob("*.py"))
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    return names - {room}


def test_fitting_and_classifying_need_neither_optuna_nor_datasets_nor_pyg(tmp_path: Path) -> None:
    absent = ["optuna", "datasets", "huggingface_hub", "torch_geometric", "h5py"]
    rooms = ["nefbench", "fitting", "classifiers"]
    doors = ["classifiers.pyg", "classifiers.bench.sparse"]  # to torch_geometric, on request only

    code = WITHOUT.format(absent=absent, rooms=rooms, doors=doors)
    found = json.loads(run(code, tmp_path))

    assert set(found["imported"]) == set().union(*map(modules, rooms)) - set(doors)
    assert found["num_rows"] == {"train": 40, "validation": 10, "test": 10}


def test_the_four_packages_and_no_other_belong_to_one_distribution(tmp_path: Path) -> None:
    owners = json.loads(run(OWNERS % ", ".join(map(repr, ROOMS)), tmp_path))

    assert {name: owners[name] for name in ROOMS} == {name: ["nefbench"] for name in ROOMS}
    for name in ("tests", "benchmarks", "docs"):
        assert "nefbench" not in (owners[name] or []), name


def test_what_is_packaged_is_the_four_rooms_with_their_presets_and_types() -> None:
    setuptools = pytest.importorskip("setuptools")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    found = setuptools.find_packages(ROOT, include=settings["packages"]["find"]["include"])

    assert {name.split(".")[0] for name in found} == set(ROOMS)
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file(), room
        for pattern in settings["package-data"][room]:
            assert list((ROOT / room).glob(pattern)), (room, pattern)
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(found)


def test_the_test_folders_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
