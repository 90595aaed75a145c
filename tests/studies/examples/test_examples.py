"""Every example runs as its first lines say, and prints what it is for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import studies.examples

FOLDER = Path(studies.examples.__file__).parent
PRINTED = {
    "own_objective.py": "best: ",
    "classifier_sweep.py": "Does the size of a classifier decide how much it overfits? On siren",
    "accuracy_and_quality.py": "What does one objective cost the other? Along the front of",
}


def test_every_example_is_tried() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == {*PRINTED, "__init__.py"}


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(FOLDER / name)], cwd=tmp_path, capture_output=True, text=True,
        timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert PRINTED[name] in done.stdout
