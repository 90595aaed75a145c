"""What every verb shares: options, progress on stderr, results on stdout, errors in one line."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_REQUEST = 2
EXIT_INTERRUPTED = 130

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a configuration key; may be repeated."
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="Config of the neural dataset, where it holds several."),
]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress, errors only.")]
ExecutorOption = Annotated[
    str,
    typer.Option(
        help="Where shards run: auto, serial or processes:N. The result is the same.",
    ),
]


ReportProgress = Callable[..., None]
"""``report(what, done, total)`` or ``report(what, done, total, unit)``."""


def run(action: Callable[[], None]) -> None:
    """Run a verb; turn what a user can act on into one line on stderr and an exit code."""
    from nefbench.errors import Interrupted, NefbenchError

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="warning: %(message)s")
    # A scheduler that takes the machine back gets the same orderly end as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        action()
        sys.stdout.flush()  # a full disk or a reader that has gone shows here, not at exit
    except Interrupted as error:
        fail(str(error), EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        fail("interrupted; nothing was left half-written", EXIT_INTERRUPTED)
    except NefbenchError as error:
        fail(f"error: {error}", EXIT_REQUEST)
    except BrokenPipeError:
        _drop_unwritable_output()  # the reader has gone (`| head`)
    except OSError as error:
        _drop_unwritable_output()
        fail(f"error: {_describe(error)}", EXIT_REQUEST)


def fail(message: str, code: int) -> None:
    """Print one line on stderr and leave."""
    line = " ".join(message.split())
    sys.stderr.write(f"{line}\n")
    raise SystemExit(code)


def say(text: str, *, quiet: bool = False) -> None:
    """Print a line of progress on stderr."""
    if not quiet:
        sys.stderr.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_line(text: str) -> None:
    """Print a line of result on stdout."""
    sys.stdout.write(f"{text}\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; the first column is left-aligned, the others right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    for row in rows:
        table.add_row(*row)
    # Names of folders are text: no [markup], no :emoji:.
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:  # a file has no width
        console.width = 160
    if title:  # a line of its own: as part of the table it would be wrapped to the table's width
        console.print(title, style="bold", soft_wrap=True)
    console.print(table)


@contextlib.contextmanager
def progress(unit: str, *, quiet: bool) -> Iterator[ReportProgress]:
    """Yield ``report(what, done, total)``: a bar with rate and time left, or a line now and then.

    A fourth argument names the unit where it is another than usual. On a terminal a bar per
    ``what``; elsewhere a line every half minute.
    """
    if quiet:
        yield lambda *_: None
    elif sys.stderr.isatty():
        with _bars(unit) as report:
            yield report
    else:
        yield _Lines(unit)


@contextlib.contextmanager
def _bars(usual_unit: str) -> Iterator[ReportProgress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(rate_text(speed, task.fields["unit"]) if speed else "")

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def report(what: str, done: int, total: int, unit: str = usual_unit) -> None:
            if total and what not in tasks:
                tasks[what] = bars.add_task(what, total=total, unit=unit)
            if what in tasks:
                bars.update(tasks[what], completed=done, total=total)

        yield report


class _Lines:
    """Progress for logs: the first report starts a clock, then a line every half minute."""

    _SECONDS_BETWEEN = 30.0

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._begin: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int, unit: str | None = None) -> None:
        import time

        now = time.monotonic()
        begin = self._begin.setdefault(what, now)
        last = self._last.setdefault(what, now)
        if now - last < self._SECONDS_BETWEEN or not done:
            return
        self._last[what] = now
        rate = done / (now - begin)
        left = (total - done) / rate
        unit = unit or self._unit
        say(f"{what}: {done}/{total} {unit}, {rate_text(rate, unit)}, {left:,.0f} s left")


def check_device(device: str) -> str:
    """Return the device if this machine has it."""
    import torch

    from nefbench.errors import ConfigError

    if device == "cpu":
        return device
    if device.split(":")[0] != "cuda":
        raise ConfigError(f"--device: expected cpu, cuda or cuda:N (got {device!r})")
    if not torch.cuda.is_available():
        raise ConfigError(f"--device {device}: this machine has no usable CUDA device")
    return device


def rate_text(rate: float, unit: str) -> str:
    """Return a rate per second, or the seconds that one takes where that is more than one."""
    if rate >= 1:
        return f"{rate:,.0f} {unit}/s"
    return f"{1 / rate:,.1f} s per {unit.removesuffix('s')}"


def shell_text(path: Path) -> str:
    """Return a path as it is typed in a shell."""
    return shlex.quote(str(path))


def count_text(number: int, noun: str) -> str:
    """Return ``1 field`` or ``3 fields``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def folder_size(folder: Path) -> str:
    """Size of all files below a folder, with a unit."""
    size = float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    for unit in ("B", "kB", "MB"):
        if size < 999.5:  # three digits, rounded
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _drop_unwritable_output() -> None:
    """Keep Python from complaining at exit about output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{where}no space left on the device; what was finished is kept: free some space and "
            f"run the same command again"
        )
    return f"{where}{error.strerror or error}"
