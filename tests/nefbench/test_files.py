from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nefbench.files import remove_leftovers, replacing, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_content_takes_the_name_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent

    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_the_old_content_stays_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        fail()

    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_interrupt_leaves_neither_the_file_nor_a_temporary(tmp_path: Path) -> None:
    def interrupted() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert names(tmp_path) == []


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"

    write_text(path, "x")

    assert path.read_text() == "x"


def test_text_is_written_as_utf8_with_the_line_ends_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ä\r\nb\n")

    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\r\nb\n"


def test_bytes_are_written_as_given(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"\x00\xff")
    write_bytes(tmp_path / "a", b"\x01")

    assert (tmp_path / "a").read_bytes() == b"\x01"


def test_json_keeps_the_order_of_keys_and_is_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"z": [1, 2.5], "a": "ä"})

    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "z": [\n    1,\n    2.5\n  ],\n  "a": "ä"\n}\n'
    )


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    with pytest.raises(TypeError):
        write_json(path, {"a": {1, 2}})

    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


def test_leftovers_of_killed_writers_are_removed_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    # What a writer leaves that is killed inside the block.
    killed = (
        "import os, sys, pathlib\n"
        "from nefbench.files import replacing\n"
        "writers = [replacing(pathlib.Path(f) / 'part.parquet') for f in sys.argv[1:]]\n"
        "for writer in writers:\n"
        "    writer.__enter__().write_text('half')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", killed, tmp_path, tmp_path / "deep"], check=True)
    (tmp_path / "keep.tmp").write_text("not ours")
    (tmp_path / ".hidden").write_text("not ours")
    left = [len(names(tmp_path)), len(names(tmp_path / "deep"))]

    removed = remove_leftovers(tmp_path)

    assert left == [4, 1]
    assert removed == 2
    assert names(tmp_path) == [".hidden", "deep", "keep.tmp"]
    assert names(tmp_path / "deep") == []


def test_a_clean_folder_has_no_leftovers(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")

    assert remove_leftovers(tmp_path) == 0
    assert names(tmp_path) == ["a.txt"]


def test_the_temporary_of_a_writer_that_still_runs_is_left_alone(tmp_path: Path) -> None:
    writing = (
        "import sys, pathlib\n"
        "from nefbench.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1]) / 'part.parquet') as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", writing, tmp_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    writer.stdout.readline()

    removed = remove_leftovers(tmp_path)
    writer.communicate("")

    assert removed == 0
    assert names(tmp_path) == ["part.parquet"]
