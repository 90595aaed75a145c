from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nefbench.cli import console
from nefbench.errors import ConfigError, Interrupted

RUN = "import os, signal, sys; from nefbench.cli import console; console.run(lambda: {action})"


@pytest.fixture(autouse=True)
def _keep_signal_handler() -> Iterator[None]:
    import signal

    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("expected a\n  number"), 2, "error: expected a number\n"),
        (Interrupted("interrupted; all is saved"), 130, "interrupted; all is saved\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was left half-written\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.parquet"),
            2,
            "error: a.parquet: no space left on the device; what was finished is kept: "
            "free some space and run the same command again\n",
        ),
        (PermissionError(errno.EACCES, "not allowed", "x"), 2, "error: x: not allowed\n"),
        (OSError("cannot open it"), 2, "error: cannot open it\n"),
    ],
)  # fmt: skip
def test_what_a_user_can_act_on_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        console.run(raising(error))

    assert caught.value.code == code
    assert capsys.readouterr() == ("", line)


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        console.run(raising(ZeroDivisionError()))


def test_a_verb_that_ends_well_returns(capsys: pytest.CaptureFixture[str]) -> None:
    console.run(lambda: console.print_line("result"))

    assert capsys.readouterr() == ("result\n", "")


def test_a_reader_that_has_gone_is_no_error(process: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    outcome = process(code=RUN.format(action="console.print_line('x')"), stdout=writing)
    os.close(writing)

    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_results_that_cannot_be_written_are_an_error_in_one_line(process: Any) -> None:
    with Path("/dev/full").open("w") as full:
        outcome = process(code=RUN.format(action="console.print_line('x')"), stdout=full)

    assert outcome.error.startswith("no space left on the device")


def test_a_request_to_terminate_ends_like_ctrl_c(process: Any) -> None:
    outcome = process(code=RUN.format(action="os.kill(os.getpid(), signal.SIGTERM)"))

    assert outcome.code == 130
    assert outcome.err == "interrupted; nothing was left half-written\n"


def test_warnings_are_lines_on_stderr(process: Any) -> None:
    outcome = process(code=RUN.format(action="__import__('logging').warning('watch %s', 'out')"))

    assert (outcome.code, outcome.out, outcome.err) == (0, "", "warning: watch out\n")


def test_progress_lines_are_printed_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("loud")
    console.say("silent", quiet=True)

    assert capsys.readouterr() == ("", "loud\n")


def test_json_is_one_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"name": "Köln", "values": [1, 2.5]})

    assert capsys.readouterr() == ('{"name": "Köln", "values": [1, 2.5]}\n', "")


def test_a_table_in_a_file_is_not_wrapped_and_its_numbers_are_right_aligned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "x" * 70

    console.print_table(
        "t " * 99, ["name", "first", "second"], [[long, "1", "22"], ["b", "333", ""]]
    )

    out, err = capsys.readouterr()
    title, header, first, second = (line.rstrip() for line in out.splitlines())
    assert (title, err) == (("t " * 99).rstrip(), "")
    assert header.split() == ["name", "first", "second"]
    assert first.split() == [long, "1", "22"]
    assert first.index(" 1 ") + 2 == second.index("333") + 3 == header.index("first") + 5


def test_names_in_tables_are_text_and_neither_markup_nor_emoji(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_table("runs[v2]/a:b:c", ["[bold]", "n"], [["[/red]", ":smile:"]])

    out = capsys.readouterr().out
    for text in ("runs[v2]/a:b:c", "[bold]", "[/red]", ":smile:"):
        assert text in out


def test_quiet_progress_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("fields", quiet=True) as report:
        report("fit", 1, 2)

    assert capsys.readouterr() == ("", "")


def test_progress_of_a_short_task_writes_nothing_to_a_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.progress("fields", quiet=False) as report:
        report("fit", 0, 2)
        report("fit", 1, 2)
        report("fit", 2, 2)

    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_bar_with_counts_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    with console.progress("fields", quiet=False) as report:
        report("nothing to do", 0, 0)
        report("fit", 0, 40)
        report("fit", 30, 40)

    shown = terminal.getvalue()
    assert "fit" in shown
    assert "30/40" in shown
    assert "nothing to do" not in shown
    assert capsys.readouterr().out == ""


def test_the_processor_is_always_there() -> None:
    assert console.check_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["", "gpu", "tpu:0", "cpu:0", "CUDA"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="--device: expected cpu, cuda or cuda:N"):
        console.check_device(device)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 fields"), (1, "1 field"), (2, "2 fields"), (1_234, "1,234 fields")]
)  # fmt: skip
def test_counts_are_written_with_their_noun(number: int, text: str) -> None:
    assert console.count_text(number, "field") == text


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((), "0 B"),
        ((999,), "999 B"),
        ((1000, 500), "1.5 kB"),
        ((999_499,), "999 kB"),
        ((999_700,), "1 MB"),
        ((2_345_678,), "2.35 MB"),
    ],
)
def test_the_size_of_a_folder_has_three_digits_and_a_unit(
    tmp_path: Path, sizes: tuple[int, ...], text: str
) -> None:
    (tmp_path / "deeper").mkdir()
    for index, size in enumerate(sizes):
        (tmp_path / "deeper" / str(index)).write_bytes(bytes(size))

    assert console.folder_size(tmp_path) == text


def test_paths_are_quoted_as_a_shell_needs_them() -> None:
    assert console.shell_text(Path("runs/a b")) == "'runs/a b'"
    assert console.shell_text(Path("runs/digits-siren")) == "runs/digits-siren"
