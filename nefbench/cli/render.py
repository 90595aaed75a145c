"""``nefbench render``: evaluate fields at any resolution."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nefbench.cli import console

if TYPE_CHECKING:
    from torch import Tensor

_GAP = 2


def render(
    folder: Annotated[Path, typer.Argument(help="Folder of a neural dataset.")],
    out: Annotated[Path, typer.Option(help="A .png (one picture of all fields) or .npy file.")],
    config: console.ConfigOption = None,
    split: Annotated[str, typer.Option(help="Split to take the fields from.")] = "test",
    fields: Annotated[
        str, typer.Option(metavar="A:B|I,J,…", help="Which fields of the split.")
    ] = "0:16",
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Samples per side.  [default: the fitted grid]"),
    ] = None,
) -> None:
    """Evaluate fields on a grid of any resolution and write an image or an array."""
    console.run(lambda: _render(folder, out, config, split, fields, size))


def _render(
    folder: Path, out: Path, config: str | None, split: str, fields: str, size: str | None
) -> None:
    from nefbench.errors import ConfigError
    from nefbench.weights import load_neural_dataset

    if out.suffix not in (".png", ".npy"):
        raise ConfigError(f"--out: expected a .png or .npy file (got {out.name!r})")
    dataset = load_neural_dataset(folder, config)
    grid = _parse_size(size, dataset.entry.signals.grid_shape, dataset.entry.in_dim)
    rows = dataset.split(split)
    chosen = _parse_fields(fields, len(rows))
    values = dataset.render(rows.weights[chosen], grid)
    if out.suffix == ".npy":
        _write_npy(out, values)
    else:
        if len(grid) != 2:
            raise ConfigError("--out: only images become a .png; write these fields to .npy")
        bad = [chosen[i] for i in (~values.isfinite().flatten(1).all(1)).nonzero().flatten()]
        if bad:
            raise ConfigError(f"--fields: {bad} diverged and have no picture; leave them out")
        _write_png(out, values)
    shape = "x".join(map(str, values.shape))
    console.print_line(f"wrote    {out}: {console.count_text(len(chosen), 'field')}, array {shape}")


def _parse_size(text: str | None, grid: tuple[int, ...], dims: int) -> tuple[int, ...]:
    from nefbench.errors import ConfigError, DatasetFormatError

    if text is None:
        if not grid:
            raise DatasetFormatError("the fitted grid is not known; give --size")
        return grid
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise ConfigError(f"--size: expected N or {'x'.join('HWD'[:dims])} (got {text!r})")
    sides = tuple(int(part) for part in text.split("x"))
    if len(sides) == 1:
        sides *= dims
    if len(sides) != dims:
        raise ConfigError(f"--size: these fields have {dims} dimensions (got {text!r})")
    return sides


def _parse_fields(text: str, count: int) -> list[int]:
    from nefbench.errors import ConfigError

    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match:
        chosen = list(range(int(match[1]), min(int(match[2]), count)))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        chosen = [int(part) for part in text.split(",")]
    else:
        raise ConfigError(f"--fields: expected A:B or I,J,… (got {text!r})")
    if not chosen or max(chosen) >= count:
        raise ConfigError(f"--fields {text}: the split has fields 0 to {count - 1}")
    return chosen


def _write_npy(out: Path, values: Tensor) -> None:
    import io

    import numpy as np

    from nefbench import files

    buffer = io.BytesIO()
    np.save(buffer, values.numpy(), allow_pickle=False)
    files.write_bytes(out, buffer.getvalue())


def _write_png(out: Path, values: Tensor) -> None:
    """Write one 8-bit picture: fields side by side, clipped to [0, 1], one sample one pixel."""
    import io
    import math

    import numpy as np
    from PIL import Image

    from nefbench import files

    count, height, width, channels = values.shape
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    gap = _GAP if count > 1 else 0
    sheet: Any = np.full(
        (lines * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8
    )
    pixels = (values.clamp(0, 1) * 255).round().to(dtype=values.dtype).numpy().astype(np.uint8)
    for index, image in enumerate(pixels):
        top = index // columns * (height + gap)
        left = index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG")
    files.write_bytes(out, buffer.getvalue())
