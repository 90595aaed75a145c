from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nefbench.cli.app import app

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for worker processes in /proc"
)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*.parquet"))


def parent_and_state(process: str) -> tuple[int, str] | None:
    try:
        text = Path("/proc", process, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return int(parent), state


def children(pid: int) -> list[str]:
    names = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [name for name in names if (parent_and_state(name) or (0, ""))[0] == pid]


def is_running(process: str) -> bool:
    found = parent_and_state(process)
    return found is not None and found[1] not in "ZX"  # nobody may collect an orphan's status


def fit_and_kill(command: list[str], folder: Path, num_parts: int) -> list[str]:
    """Start a fit, kill it without warning at so many parts; returns its child processes."""
    running = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while len(parts(folder)) < num_parts and time.monotonic() < deadline:
            assert running.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        workers = children(running.pid)
    finally:
        running.kill()
        running.wait()
    return workers


def test_a_fit_killed_twice_completes_to_the_same_bytes_and_leaves_no_worker(
    tmp_path: Path, stoppable: list[str], undisturbed: dict[str, bytes], snapshot: Any
) -> None:
    command = [
        sys.executable, "-m", "nefbench", "fit", *stoppable,
        "--out", "out", "--executor", "processes:2",
    ]  # fmt: skip

    for num_parts in (1, 4):
        workers = fit_and_kill(command, tmp_path, num_parts)

        assert len(workers) >= 2
        deadline = time.monotonic() + 60
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_running, workers))
        saved = {
            path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
            for path in parts(tmp_path)
        }
        assert num_parts <= len(saved) < 10
        assert saved.items() <= undisturbed.items()

    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, capture_output=True, check=True, timeout=120
    )

    assert 0 < json.loads(done.stdout)["num_fitted"] < 60
    assert snapshot(tmp_path / "out") == undisturbed


def test_leftovers_of_a_killed_writer_are_cleared_away(
    tmp_path: Path, stoppable: list[str], undisturbed: dict[str, bytes], snapshot: Any
) -> None:
    # As a process leaves it that was killed while it wrote a part and, before, the first record.
    out = tmp_path / "out"
    names = [name for name in undisturbed if name != "README.md"]
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(undisturbed[name])
    half = next(out / name for name in names if "test" in name)
    half.with_name(f".{half.name}.123.tmp").write_bytes(half.read_bytes()[:50])
    half.unlink()
    (out / ".nefbench.json.123.tmp").write_bytes(b"{")

    done = CliRunner().invoke(app, ["fit", *stoppable, "--out", str(out), "--json"])

    assert json.loads(done.stdout)["num_fitted"] == 6
    assert snapshot(out) == undisturbed
