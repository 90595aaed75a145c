"""A study that takes seconds: digits, tiny fields, a short training."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from classifiers import MLP, ClassifierConfig
from fitting import FitConfig
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig
from studies.design import Grid, StudyConfig
from studies.space import Choice, ClassifierSpace, FitSpace


@pytest.fixture
def tiny_study() -> StudyConfig:
    """A grid of four trials: two starts, two numbers of steps."""
    return StudyConfig(
        name="tiny",
        sources={"digits": DigitsConfig(max_signals=150, validation_size=30, test_size=30)},
        fields={
            "siren": FitSpace(
                fit=FitConfig(field=Siren(hidden_dim=4), engine="vmapped"),
                space={
                    "init.kind": Choice(values=("shared", "random")),
                    "num_steps": Choice(values=(2, 6)),
                },
            )
        },
        classifiers={
            "mlp": ClassifierSpace(
                classifier=ClassifierConfig(
                    model=MLP(hidden_dims=(16,)), num_epochs=2, seeds=(0, 1)
                )
            )
        },
        design=Grid(),
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Address of a PostgreSQL server of our own; without its programs the test is skipped."""
    pytest.importorskip("psycopg")
    found = shutil.which("initdb") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
    )
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    programs = Path(found).resolve().parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user: list[str] = []
    # Not pytest's folder: the server refuses to run as root, and others may not look into that.
    with tempfile.TemporaryDirectory(prefix="nefbench-postgresql-") as name:
        folder = Path(name)
        if getpass.getuser() == "root":
            user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")

        def run(program: str, *arguments: str) -> None:
            command = [*user, str(programs / program), "-D", str(folder / "data"), *arguments]
            # Into a file: the server would keep a pipe open.
            with (folder / "output.txt").open("w", encoding="utf-8") as output:
                subprocess.run(
                    command, cwd=folder, stdout=output, stderr=output, timeout=120, check=True
                )

        run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "start")
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-m", "immediate", "stop")
