"""Write files so that a reader sees the old content or the whole new one, never a part of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY_SUFFIX = ".tmp"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block succeeds.

    The file is flushed to the disk before it is renamed, and the folder after. When the block
    raises (a full disk, an interrupt), the temporary file is removed and ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the content of ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replace the content of ``path`` atomically; UTF-8, line ends as given."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, keys in the order given, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files of killed writers below ``folder``; returns how many there were.

    Files of processes that still run on this machine are left alone.
    """
    leftovers = [path for path in folder.rglob(f".*{TEMPORARY_SUFFIX}") if not _is_written(path)]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _is_written(temporary: Path) -> bool:
    """Tell whether the process named in a temporary file's name is another one that runs."""
    writer = temporary.name.split(".")[-2]
    if not writer.isdigit() or int(writer) == os.getpid():
        return False
    try:
        os.kill(int(writer), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
