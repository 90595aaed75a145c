"""Every `sh` and `python` block of the README and docs/ runs, each page in its own folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nefbench.weights import load_neural_dataset

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md", "docs/fit.md", "docs/signals.md", "docs/starts.md", "docs/train.md",
    "docs/inspect.md", "docs/render.md", "docs/symmetries.md", "docs/study.md",
]  # fmt: skip
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS_PER_PAGE = 600


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the first command of docs/fit.md leaves behind; other pages build on it."""
    folder = tmp_path_factory.mktemp("fitted")
    _run(["nefbench", "fit", "digits-siren"], folder)
    return folder


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for kind, code in BLOCK.findall(text) if kind == language]


@pytest.mark.timeout(2 * SECONDS_PER_PAGE)
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("page", PAGES)
def test_commands_and_code_of_the_page_run(page: str, fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted / "runs", tmp_path / "runs")

    for script in blocks(page, "sh"):
        for line in script.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "nefbench", f"{page} documents {words[0]}"
            _run(words, tmp_path)
    code = "\n".join(blocks(page, "python"))
    if code:
        _run([sys.executable, "-P", "-c", code], tmp_path)


@pytest.mark.xdist_group("docs")
def test_the_rebuild_without_nefbench_gives_our_render(fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted / "runs", tmp_path / "runs")
    load, rebuild = blocks("README.md", "python")[1:3]
    code = "\n".join(
        [
            "import sys; sys.modules['nefbench'] = None",
            load,
            rebuild,
            "import numpy; numpy.save('image.npy', image.numpy())",
        ]
    )

    _run([sys.executable, "-P", "-c", code], tmp_path)

    dataset = load_neural_dataset(tmp_path / "runs" / "digits-siren")
    ours = dataset.render(dataset.split("test").weights[:1], (64, 64))[0, ..., 0]
    rebuilt = torch.from_numpy(np.load(tmp_path / "image.npy"))
    # float32: the same operations with omega_0 multiplied in at another place
    torch.testing.assert_close(rebuilt, ours, rtol=0, atol=1e-5)


def test_every_verb_has_a_page_and_the_readme_links_it() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "nefbench", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
    ).stdout
    verbs = re.findall(r"^│ ([a-z]+) ", help_text, re.MULTILINE)

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "fit" in verbs
    for verb in verbs:
        assert (ROOT / "docs" / f"{verb}.md").is_file()
        assert f"(docs/{verb}.md)" in readme


def _run(command: list[str], folder: Path) -> None:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_PER_PAGE,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
