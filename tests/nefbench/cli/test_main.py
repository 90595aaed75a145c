from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nefbench

HOME = Path(nefbench.__file__).resolve().parent.parent
VERBS = ("demo", "fit", "train", "study", "report", "inspect", "render", "import", "bench")


def test_help_lists_every_verb(process: Any) -> None:
    outcome = process("--help")

    assert (outcome.code, outcome.err) == (0, "")
    for verb in VERBS:
        assert verb in outcome.out
    assert "neural fields" in outcome.out


def test_help_of_every_verb_needs_no_heavy_library(process: Any) -> None:
    # pydantic is not in the list: typer itself looks for it
    heavy = ["torch", "numpy", "matplotlib", "pyarrow", "datasets", "sklearn", "optuna", "h5py"]
    script = f"""
import sys
from nefbench.__main__ import main
for words in [["--help"], *([verb, "--help"] for verb in {VERBS}), [], ["no-such-verb"]]:
    sys.argv = ["nefbench", *words]
    try:
        main()
    except SystemExit as end:
        print(words, end.code)
print("HEAVY", [name for name in {heavy} if name in sys.modules])
"""

    outcome = process(code=script)

    assert outcome.code == 0
    assert outcome.out.count("Usage: nefbench") == len(VERBS) + 2
    assert outcome.out.rstrip().endswith("HEAVY []")
    assert "No such command 'no-such-verb'" in outcome.err


def test_the_installed_command_is_this_program() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="nefbench")

    assert entry.value == "nefbench.__main__:main"


def test_an_unknown_verb_is_refused(process: Any) -> None:
    outcome = process("fitt")

    assert outcome.code == 2
    assert outcome.out == ""
    assert "No such command 'fitt'" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("room", ["fitting", "classifiers", "studies"])
@pytest.mark.parametrize("form", ["package", "folder", "module"])
def test_another_package_of_our_name_is_reported_with_both_paths(
    process: Any, tmp_path: Path, room: str, form: str
) -> None:
    if form == "module":
        other = tmp_path / f"{room}.py"
        other.write_text("")
    else:
        other = tmp_path / room
        other.mkdir()
        if form == "package":
            (other / "__init__.py").write_text("raise RuntimeError('must not be imported')")

    outcome = process("--help")

    shown = other / "__init__.py" if form == "package" else other
    assert outcome.error == (
        f"package {room!r} is shadowed: expected it in {HOME / room}, "
        f"got {shown.resolve()}; rename that folder or change the working directory"
    )


def test_python_m_and_the_installed_command_are_the_same(process: Any, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "nefbench"
    if not script.exists():
        pytest.skip("the command is not installed beside this Python")

    direct = subprocess.run(
        [script, "--help"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True
    )

    assert direct.stdout == process("--help").out
