from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nefbench.fields import Siren
from nefbench.weights import load_neural_dataset

h5py = pytest.importorskip("h5py")

SPEC = Siren(hidden_dim=2, num_layers=2).spec(2, 1)


@pytest.fixture
def source(nefbench: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write 12 fields as fit-a-nef does, in files of 8 and 4; returns the folder."""
    del nefbench  # it changes into tmp_path

    def write(*, labels: bool = True) -> Path:
        folder = tmp_path / "SIREN"
        folder.mkdir()
        params = {"output_dim": 1, "hidden_dim": 2, "num_layers": 2, "omega_0": 9.0}
        (folder / "nef.json").write_text(json.dumps({"name": "SIREN", "params": params}))
        for start, stop in ((0, 8), (8, 12)):
            with h5py.File(folder / f"nefs_{start}-{stop}.hdf5", "w") as file:
                file["params"] = weights()[start:stop]
                layout = json.dumps([[name, list(shape)] for name, shape in SPEC.layout])
                file.create_dataset("param_config", data=[layout], dtype=h5py.string_dtype())
                if labels:
                    file["labels"] = np.arange(start, stop) % 3
        return Path("SIREN")

    return write


def weights() -> Any:
    return np.random.default_rng(0).normal(size=(12, SPEC.num_params)).astype(np.float32)


def test_every_bit_of_the_weights_arrives(nefbench: Any, source: Any) -> None:
    outcome = nefbench("import", source(), "--out", "d")

    assert (outcome.code, outcome.err) == (0, "")
    dataset = load_neural_dataset("d")
    rows = dataset.split("train")
    assert rows.weights.numpy().tobytes() == weights().tobytes()
    assert rows.labels is not None
    assert rows.labels.tolist() == [index % 3 for index in range(12)]
    assert dataset.name == "siren-h2-imported"
    assert Path("d/README.md").is_file()
    lines = outcome.out.splitlines()
    assert lines[0] == "wrote    d (siren-h2-imported): 12 fields, siren, 9 weights"
    assert lines[-1].split() == ["train", "12", "0"]
    assert "next" not in outcome.out  # one split: nothing to choose and to test on


def test_splits_are_laid_in_order_and_the_next_step_is_a_classifier(
    nefbench: Any, source: Any
) -> None:
    outcome = nefbench("import", source(), "--out", "a b", "--splits", "6,3,3", "--name", "mine")

    dataset = load_neural_dataset("a b")
    stored = [dataset.split(name).weights.numpy() for name in ("train", "validation", "test")]
    assert [len(rows) for rows in stored] == [6, 3, 3]
    assert np.concatenate(stored).tobytes() == weights().tobytes()
    assert outcome.out.splitlines()[0].startswith("wrote    a b (mine): 12 fields")
    assert outcome.out.splitlines()[-1] == "next     nefbench train 'a b' --config mine"


def test_imported_fields_can_be_classified_inspected_and_rendered(
    nefbench: Any, source: Any
) -> None:
    nefbench("import", source(), "--out", "d", "--splits", "6,3,3")

    train = nefbench("train", "d", "--set", "num_epochs=1", "--set", "seeds=[0]", "--out", "c")
    inspect = nefbench("inspect", "d")
    render = nefbench("render", "d", "--out", "x.npy", "--size", "4x4")

    assert train.code == inspect.code == render.code == 0
    assert "6 train, 3 validation, 3 test" in train.out
    assert "check    every part agrees with its checksum" in inspect.out
    version = load_neural_dataset("d").entry.version
    assert inspect.out.splitlines()[3] == (
        "fit      imported from fit-a-nef; start, steps and optimizer are not known; "
        f"nefbench {version}"
    )
    assert np.load("x.npy").shape == (3, 4, 4, 1)


def test_an_import_from_the_same_folder_again_changes_nothing(
    nefbench: Any, source: Any, snapshot: Any
) -> None:
    folder = source()
    nefbench("import", folder, "--out", "d")
    before = snapshot(Path("d"))

    assert nefbench("import", folder, "--out", "d").code == 0
    assert snapshot(Path("d")) == before


def test_imported_fields_stand_beside_fitted_ones(nefbench: Any, source: Any, tiny: Path) -> None:
    assert nefbench("import", source(), "--out", tiny).code == 0

    assert load_neural_dataset(tiny, "siren-h2-imported").entry.num_fields == 12
    assert load_neural_dataset(tiny, "siren-h2-shared").entry.num_fields == 40


def test_imported_fields_cannot_be_fitted_again(nefbench: Any, source: Any) -> None:
    nefbench("import", source(), "--out", "d")

    error = nefbench("fit", "d").error

    assert error.startswith("d (siren-h2-imported) does not say how to open its signals")


@pytest.mark.parametrize(
    "splits", ["6,6", "6,3,3,0", "a,b,c", "6,3,-3", "6;3;3", "", "6.0,3,3", "²,3,3"]
)
def test_splits_that_are_not_three_numbers_are_refused(
    nefbench: Any, source: Any, splits: str
) -> None:
    error = nefbench("import", source(), "--out", "d", "--splits", splits).error

    assert error == f"--splits: expected three numbers such as 55000,5000,10000 (got {splits!r})"
    assert not Path("d").exists()


@pytest.mark.parametrize("splits", ["6,3,2", "12,0,0"])
def test_splits_that_do_not_fit_the_fields_are_refused(
    nefbench: Any, source: Any, splits: str
) -> None:
    assert "12 fields" in nefbench("import", source(), "--out", "d", "--splits", splits).error
    assert not Path("d").exists()


def test_a_source_that_does_not_exist_is_named(nefbench: Any) -> None:
    assert nefbench("import", "nowhere", "--out", "d").error == "no such folder: nowhere"


@pytest.mark.parametrize("content", [[], ["holiday.jpg"]])
def test_a_folder_of_neither_format_is_refused_with_both_named(
    nefbench: Any, tmp_path: Path, content: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    for name in content:
        (tmp_path / "other" / name).write_text("{}")

    outcome = nefbench("import", "other", "--out", "d")

    assert outcome.error == (
        "other holds no fields that can be read: neither nef.json and nefs_*.hdf5 (one "
        "architecture of fit-a-nef, for example MNIST/SIREN) nor .pth or .pt files, one per field"
    )
    assert not Path("d").exists()


@pytest.mark.parametrize(
    ("content", "missing"), [("nef.json", "nefs_*.hdf5"), ("nefs_0-2.hdf5", "nef.json")]
)
def test_half_a_folder_of_fit_a_nef_is_refused_with_what_is_missing(
    nefbench: Any, tmp_path: Path, content: str, missing: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / content).write_text("{}")

    error = nefbench("import", "other", "--out", "d").error

    assert error.startswith(f"other has no {missing}; expected the folder of one architecture")
    assert not Path("d").exists()


def test_a_damaged_file_is_named(nefbench: Any, source: Any) -> None:
    folder = source()
    file = folder / "nefs_8-12.hdf5"
    file.write_bytes(file.read_bytes()[:100])

    error = nefbench("import", folder, "--out", "d").error

    assert error.startswith("SIREN/nefs_8-12.hdf5 is not a readable HDF5 file")
    assert not Path("d").exists()


def test_a_name_that_is_no_folder_name_is_refused(nefbench: Any, source: Any) -> None:
    error = nefbench("import", source(), "--out", "d", "--name", "../up").error

    assert error.startswith("expected a name of letters, digits")


def test_a_foreign_target_is_not_written_to(
    nefbench: Any, source: Any, tmp_path: Path, snapshot: Any
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"picture")

    error = nefbench("import", source(), "--out", "photos").error

    assert error.startswith("photos exists and is not a neural dataset")
    assert snapshot(tmp_path / "photos") == {"holiday.jpg": b"picture"}


# State dicts


@pytest.fixture
def inrs(nefbench: Any, tmp_path: Path) -> Path:
    """Twelve fields of three classes as DWSNets save them: 9 for training, 3 for the test."""
    del nefbench  # it changes into tmp_path
    torch.manual_seed(0)
    for image in range(12):
        split, place = ("training", image) if image < 9 else ("testing", image - 9)
        folder = tmp_path / "mnist-inrs" / f"mnist_png_{split}_{image % 3}_{place}" / "checkpoints"
        folder.mkdir(parents=True)
        layers = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1))
        saved = {f"seq.{key}": value for key, value in layers.state_dict().items()}
        torch.save(saved, folder / "model_final.pth")
    return Path("mnist-inrs")


def test_saved_sirens_can_be_inspected_and_rendered(nefbench: Any, inrs: Path) -> None:
    outcome = nefbench("import", inrs, "--out", "d", "--splits", "6,3,3", "--omega-0", "20")

    assert (outcome.code, outcome.err) == (0, "")
    dataset = load_neural_dataset("d")
    assert dataset.field == Siren(hidden_dim=4, num_layers=3, omega_0=20.0)
    labels = dataset.split("test").labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2]
    lines = outcome.out.splitlines()
    assert lines[0] == "wrote    d (siren-h4-imported): 12 fields, siren, 37 weights"
    assert lines[-1] == "next     nefbench train d --config siren-h4-imported"
    inspect = nefbench("inspect", "d")
    render = nefbench("render", "d", "--out", "x.npy")
    assert inspect.code == render.code == 0
    assert "INRs of DWSNets in folder mnist-inrs" in inspect.out
    assert "fit      imported from state-dicts; start, steps and optimizer are not" in inspect.out
    assert "check    every part agrees with its checksum" in inspect.out
    rendered = dataset.render(dataset.split("test").weights)
    assert np.array_equal(np.load("x.npy"), rendered.numpy())
    assert rendered.shape == (3, 28, 28, 1)


def test_a_file_of_splits_is_named_by_its_ending(nefbench: Any, inrs: Path) -> None:
    paths = sorted(path.relative_to(inrs).as_posix() for path in inrs.rglob("*.pth"))
    listed = {"train": paths[5:], "val": paths[:2], "test": paths[2:5]}
    Path("s.json").write_text(json.dumps(listed))

    assert nefbench("import", inrs, "--out", "d", "--splits", "s.json", "--quiet").code == 0
    assert [len(load_neural_dataset("d").split(name)) for name in ("train", "validation", "test")] \
        == [7, 2, 3]  # fmt: skip
    assert nefbench("import", inrs, "--out", "e", "--splits", "t.json").error.startswith(
        "t.json is not readable JSON"
    )


def test_the_frequency_of_fit_a_nef_is_not_asked_for(nefbench: Any, source: Any) -> None:
    error = nefbench("import", source(), "--out", "d", "--omega-0", "20").error

    assert error == "--omega-0 goes with a folder of .pth files; nef.json has its own"
    assert not Path("d").exists()


def test_a_folder_of_pickles_is_refused_in_one_line(nefbench: Any, tmp_path: Path) -> None:
    (tmp_path / "nfn").mkdir()
    (tmp_path / "nfn" / "sirens.pkl").write_bytes(b"\x80\x04]q\x00.")

    error = nefbench("import", "nfn", "--out", "d").error

    assert error.startswith("nfn/sirens.pkl is a pickle; it is not opened because unpickling runs")
    assert not Path("d").exists()
