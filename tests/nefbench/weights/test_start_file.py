from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nefbench.errors import DatasetFormatError
from nefbench.fields import FieldConfig, RFFNet, Siren
from nefbench.weights.start_file import (
    StartFile,
    checksum_of,
    npz_bytes,
    read_start_file,
    start_for,
    step_sizes_for,
    write_start_file,
)

FIELD = Siren(hidden_dim=3, num_layers=2, omega_0=7.0)
NUM_PARAMS = 2 * 3 + 3 + 3 * 1 + 1


def make_start(*, with_step_sizes: bool = True) -> StartFile:
    draw = torch.Generator().manual_seed(0)
    return StartFile(
        field=FIELD,
        in_dim=2,
        out_dim=1,
        params=torch.randn(1, NUM_PARAMS, generator=draw),
        step_sizes=torch.rand(1, NUM_PARAMS, generator=draw) if with_step_sizes else None,
        made={"fit": {"seed": 3, "init": {"kind": "meta"}}, "note": "ä"},
    )


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "start.npz"
    write_start_file(path, make_start())
    return path


@pytest.mark.parametrize("with_step_sizes", [True, False])
def test_what_is_written_is_read_again(tmp_path: Path, with_step_sizes: bool) -> None:
    start = make_start(with_step_sizes=with_step_sizes)

    write_start_file(tmp_path / "start.npz", start)

    again = read_start_file(tmp_path / "start.npz")
    assert torch.equal(again.params, start.params)
    assert (again.step_sizes is None) == (start.step_sizes is None)
    if start.step_sizes is not None:
        assert again.step_sizes is not None
        assert torch.equal(again.step_sizes, start.step_sizes)
    assert (again.field, again.in_dim, again.out_dim) == (FIELD, 2, 1)
    assert again.made == start.made


def test_the_same_content_gives_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    shuffled = dataclasses.replace(
        make_start(), made=dict(reversed(list(make_start().made.items())))
    )
    write_start_file(tmp_path / "again.npz", shuffled)

    assert (tmp_path / "again.npz").read_bytes() == stored.read_bytes()
    assert list(tmp_path.iterdir()) != []
    with zipfile.ZipFile(stored) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert checksum_of(stored) == hashlib.sha256(stored.read_bytes()).hexdigest()


def test_numpy_alone_reads_a_start_file(stored: Path) -> None:
    with np.load(stored, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        assert archive["params"].shape == archive["step_sizes"].shape == (1, NUM_PARAMS)
        assert archive["params"].dtype == archive["step_sizes"].dtype == np.float32

    assert header["format_version"] == 1
    assert header["field"] == {"kind": "siren", "hidden_dim": 3, "num_layers": 2, "omega_0": 7.0,
                               "preset": "fit-a-nef"}  # fmt: skip
    assert (header["in_dim"], header["out_dim"]) == (2, 1)
    assert header["tensors"][0] == ["kernel_net_0.linear.bias", [3]]


def changed(stored: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write the same file with other arrays; ``header`` is given as plain data."""
    with np.load(stored) as archive:
        arrays: dict[str, Any] = dict(archive)
    arrays["header"] = json.loads(arrays["header"].tobytes())
    change(arrays)
    if not isinstance(arrays.get("header"), np.ndarray | None):
        arrays["header"] = np.frombuffer(json.dumps(arrays["header"]).encode(), dtype=np.uint8)
    stored.write_bytes(npz_bytes(arrays))
    return stored


def nan_params(arrays: dict[str, Any]) -> None:
    arrays["params"][0, 3] = np.nan


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no params": (lambda a: a.pop("params"), "expected arrays header, params"),
    "no header": (lambda a: a.pop("header"), "expected arrays header, params"),
    "more": (lambda a: a.update(more=np.zeros(1)), "expected arrays header, params"),
    "one axis": (lambda a: a.update(params=a["params"][0]), r"of shape \(1, 13\) \(got float32 of"),
    "short": (lambda a: a.update(params=a["params"][:, 1:]), r"got float32 of shape \(1, 12\)"),
    "float64": (lambda a: a.update(params=a["params"].astype(float)), "got float64 of shape"),
    "wrong rates": (lambda a: a.update(step_sizes=a["params"][:, 1:]), "expected step_sizes as"),
    "nan": (nan_params, "params holds NaN or infinite"),
    "version": (lambda a: a["header"].update(format_version=2), "version 2, this nefbench reads"),
    "no version": (lambda a: a["header"].pop("format_version"), "no format_version"),
    "a list": (lambda a: a.update(header=[]), "no format_version"),
    "unknown key": (lambda a: a["header"].update(x=1), "damaged: unknown key 'x'"),
    "bad field": (lambda a: a["header"]["field"].update(hidden_dim=0), "hidden_dim"),
    "bad sizes": (lambda a: a["header"].update(in_dim=-1), "expected in_dim and out_dim >= 1"),
    "layout": (lambda a: a["header"]["tensors"].pop(), "its tensors are not those of siren"),
    "not JSON": (lambda a: a.update(header=np.zeros(3, np.uint8)), "its header is not JSON"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_says_something_else_is_refused_in_one_line(stored: Path, name: str) -> None:
    change, message = CHANGES[name]
    changed(stored, change)

    with pytest.raises(DatasetFormatError, match=message) as error:
        read_start_file(stored)
    assert str(stored) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_other_formats_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text").write_text("no")

    with pytest.raises(DatasetFormatError, match="no such start file"):
        read_start_file(tmp_path / "none.npz")
    with pytest.raises(DatasetFormatError, match="cannot read start file"):
        read_start_file(tmp_path)
    for name in ("array.npy", "text"):
        with pytest.raises(DatasetFormatError, match="is not a start file"):
            read_start_file(tmp_path / name)


def test_a_file_cut_short_or_changed_on_the_disk_is_refused(stored: Path) -> None:
    content = stored.read_bytes()

    for damaged in (content[: len(content) // 2], content[:-1], content[:200] + b"x" * 400):
        stored.write_bytes(damaged)
        with pytest.raises(DatasetFormatError):
            read_start_file(stored)


def test_pickled_objects_are_never_loaded(stored: Path) -> None:
    buffer = io.BytesIO()
    header = np.frombuffer(b"{}", dtype=np.uint8)
    np.savez(buffer, header=header, params=np.array([{"a": 1}], dtype=object))
    stored.write_bytes(buffer.getvalue())

    with pytest.raises(DatasetFormatError, match=r"damaged or no start file.*allow_pickle=False"):
        read_start_file(stored)


def test_a_checksum_asks_for_one_file_and_no_other(stored: Path) -> None:
    assert torch.equal(read_start_file(stored, checksum_of(stored)).params, make_start().params)

    with pytest.raises(DatasetFormatError, match="not the start file that was asked for"):
        read_start_file(stored, "0" * 64)


@pytest.mark.parametrize(
    ("field", "in_dim", "out_dim", "difference"),
    [
        (Siren(hidden_dim=4, num_layers=2, omega_0=7.0), 2, 1, "field.hidden_dim = 3 there, 4"),
        (Siren(hidden_dim=3, num_layers=2, omega_0=9.0), 2, 1, "field.omega_0 = 7.0 there, 9.0"),
        (FIELD, 3, 1, "in_dim = 2 there, 3 here"),
        (FIELD, 2, 3, "out_dim = 1 there, 3 here"),
        (RFFNet(hidden_dim=4), 2, 1, "field.kind = 'siren' there, 'rffnet' here"),
    ],
)
def test_a_start_of_another_architecture_is_refused_and_both_are_named(
    stored: Path, field: FieldConfig, in_dim: int, out_dim: int, difference: str
) -> None:
    for sha256 in (None, checksum_of(stored)):
        with pytest.raises(DatasetFormatError) as error:
            start_for(stored, sha256, field, in_dim, out_dim)

        message = str(error.value)
        assert "starts siren of width 3, 2 to 1, 13 weights" in message
        assert f"the fields to fit are {field.kind} of width {field.hidden_dim}" in message
        assert difference in message
        assert "\n" not in message


def test_a_start_of_the_same_architecture_is_given(stored: Path) -> None:
    for sha256 in (None, checksum_of(stored)):
        assert torch.equal(start_for(stored, sha256, FIELD, 2, 1).params, make_start().params)


def test_step_sizes_are_asked_for_by_the_number_of_weights(stored: Path, tmp_path: Path) -> None:
    step_sizes = make_start().step_sizes
    assert step_sizes is not None
    assert torch.equal(step_sizes_for(stored, None, NUM_PARAMS), step_sizes)

    with pytest.raises(DatasetFormatError, match="step sizes for 13 weights, the fields to fit"):
        step_sizes_for(stored, None, 14)
    write_start_file(tmp_path / "without.npz", make_start(with_step_sizes=False))
    with pytest.raises(DatasetFormatError, match="has no step sizes: learn them"):
        step_sizes_for(tmp_path / "without.npz", None, NUM_PARAMS)
    with pytest.raises(DatasetFormatError, match="come from a start file"):
        step_sizes_for(None, None, NUM_PARAMS)
