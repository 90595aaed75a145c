"""One look for all figures, and one way to save them: PNG, PDF and the drawn numbers as CSV."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nefbench import files

P = ParamSpec("P")
T = TypeVar("T")

COLUMN_WIDTH = 3.4
"""Width of one text column in inches."""
PAGE_WIDTH = 7.0
"""Width of both text columns in inches."""

INIT_COLOURS = {"shared": "#0072B2", "random": "#D55E00", "pixels": "#666666"}
"""One colour per kind of start, safe for colour-blind readers (Okabe and Ito 2008)."""

CLASS_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9",
    "#D55E00", "#F0E442", "#000000", "#999999", "#8C510A",
)  # fmt: skip
"""Colours of classes, repeated if there are more."""

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


def themed(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that makes a figure: everything it creates gets the common style."""

    @functools.wraps(draw)
    def draw_in_style(*args: P.args, **kwargs: P.kwargs) -> T:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return draw_in_style


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(
    figure: Figure, path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> list[Path]:
    """Write ``path`` as .png, .pdf and .csv; the same figure gives the same bytes.

    Args:
        figure: What to save.
        path: Target; its ending is replaced.
        columns: Header of the table of drawn numbers.
        rows: The drawn numbers.

    Returns:
        The three files.
    """
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([columns, *rows])
    files.write_text(path.with_suffix(".csv"), table.getvalue())
    for ending in (".pdf", ".png"):
        files.write_bytes(path.with_suffix(ending), _encoded(figure, ending[1:]))
    return [path.with_suffix(ending) for ending in (".png", ".pdf", ".csv")]


def save_picture(figure: Figure, path: Path) -> None:
    """Write ``path`` as PNG alone; the same figure gives the same bytes."""
    files.write_bytes(path, _encoded(figure, "png"))


def _encoded(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with rc_context(_STYLE):
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            # Lay out once: the layout starts from the last one, so every saving would shift it.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(content, format=kind, metadata=metadata)
    return content.getvalue()
