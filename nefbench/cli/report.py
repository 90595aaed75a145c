"""``nefbench report``: the questions of a study, answered on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nefbench.cli import console


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.", metavar="STUDY")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="STUDY/report")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Study, where the storage holds several.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of datasets and trainings that studies share.",
            show_default="STUDY/../store",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", help="Record of the trials.", show_default="STUDY/journal.log"
        ),
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Write what a study found: one page of HTML that needs nothing else.

    Beside it the same as Markdown, and every figure as PNG, PDF and CSV. A study
    that still runs can be looked at.
    """
    console.run(lambda: _report(folder, out, name, store, storage, json))


def _report(
    folder: Path,
    out: Path | None,
    name: str | None,
    store: Path | None,
    storage: str | None,
    as_json: bool,
) -> None:
    from studies.report import report_study

    written = report_study(
        folder, out=out, name=name, store=store or folder.resolve().parent / "store",
        storage=storage,
    )  # fmt: skip
    if as_json:
        console.print_json(
            {
                "study": written.name,
                "page": written.page.as_posix(),
                "answers": {answer.key: answer.verdict for answer in written.answers},
                "unanswered": {item.key: item.needs for item in written.unanswered},
            }
        )
        return
    for answer in written.answers:
        console.print_line(answer.question)
        for line in (answer.verdict, *answer.details):
            console.print_line(f"  {line}")
    for item in written.unanswered:
        console.print_line(f"not answered: {item.question}")
        console.print_line(f"  needs {item.needs}")
    console.print_line(f"wrote    {written.page}, {written.markdown.name} and figures")
