"""``nefbench render``: evaluate fields at any resolution."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nefbench.cli import console, pictures

if TYPE_CHECKING:
    from torch import Tensor

    from nefbench.weights import FieldRows, NeuralDataset
    from nefbench.weights.surfaces import Mesh

_GAP = 2
_AXES = {1: "W", 2: "HxW", 3: "ZxYxX"}


def render(
    folder: Annotated[Path, typer.Argument(help="Folder of a neural dataset.")],
    out: Annotated[
        Path,
        typer.Option(
            help="A .png (one picture of all fields) or .npy file; of shapes also a mesh per "
            "field: .obj, .ply, .stl or .off."
        ),
    ],
    config: console.ConfigOption = None,
    split: Annotated[str, typer.Option(help="Split to take the fields from.")] = "test",
    fields: Annotated[
        str, typer.Option(metavar="A:B|I,J,…", help="Which fields of the split.")
    ] = "0:16",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Samples per side.",
            show_default="the fitted grid; 64 for shapes",
        ),
    ] = None,
) -> None:
    """Evaluate fields on a grid of any resolution and write a picture, an array or meshes."""
    console.run(lambda: _render(folder, out, config, split, fields, size))


@dataclass(frozen=True)
class _Request:
    """What to draw.

    Attributes:
        dataset: Where the fields are.
        rows: The fields of the split.
        chosen: Which of them.
        grid: Samples per axis.
        out: Where to.
    """

    dataset: NeuralDataset
    rows: FieldRows
    chosen: list[int]
    grid: tuple[int, ...]
    out: Path

    @property
    def distinct(self) -> list[int]:
        """The chosen fields, each once."""
        return list(dict.fromkeys(self.chosen))

    @property
    def captions(self) -> list[str]:
        """Class and quality of every chosen field."""
        return [pictures.caption(self.dataset, self.rows, index) for index in self.chosen]


def _render(
    folder: Path, out: Path, config: str | None, split: str, fields: str, size: str | None
) -> None:
    from nefbench.errors import ConfigError
    from nefbench.weights import load_neural_dataset
    from nefbench.weights.surfaces import MESH_ENDINGS

    endings = (".png", ".npy", *MESH_ENDINGS)
    if out.suffix not in endings:
        raise ConfigError(
            f"--out: expected a {', '.join(endings[:-1])} or {endings[-1]} file (got {out.name!r})"
        )
    dataset = load_neural_dataset(folder, config)
    if out.suffix in MESH_ENDINGS and not dataset.is_of_shapes:
        raise ConfigError(
            f"--out: only shapes have meshes; write a .png or .npy (got {out.name!r})"
        )
    grid = _parse_size(size, dataset.default_grid, dataset.entry.in_dim)
    rows = dataset.split(split)
    request = _Request(dataset, rows, _parse_fields(fields, len(rows)), grid, out)
    if dataset.is_of_shapes and out.suffix != ".npy":
        _write_surfaces(request)
    else:
        _write_values(request)


def _write_values(request: _Request) -> None:
    dataset, chosen, out = request.dataset, request.chosen, request.out
    values = dataset.render(request.rows.weights[chosen], request.grid)
    note = ""
    if out.suffix == ".npy":
        _write_npy(out, values)
    else:
        _write_picture(request, values)
        note = pictures.channels_text(values.shape[-1]) if len(request.grid) > 1 else ""
    shape = "x".join(map(str, values.shape))
    count = console.count_text(len(chosen), "field")
    console.print_line(f"wrote    {out}: {count}, array {shape}{note}")


def _write_picture(request: _Request, values: Tensor) -> None:
    from nefbench.errors import ConfigError

    if len(request.grid) > 3:
        raise ConfigError("--out: fields of more than 3 dimensions have no .png; write a .npy")
    finite = values.isfinite().flatten(1).all(1)
    bad = [request.chosen[index] for index in (~finite).nonzero().flatten()]
    if bad:
        raise ConfigError(f"--fields: {bad} diverged and have no picture; leave them out")
    if len(request.grid) == 2:
        _write_png(request.out, pictures.pixels(request.dataset, values))
        return
    from nefbench import plots

    captions = request.captions
    if len(request.grid) == 3:
        figure = pictures.slices_figure(request.dataset, values, captions)
    else:
        panels = [
            plots.LinePanel(line, caption=text.replace("\n", ", "))
            for line, text in zip(values, captions, strict=True)
        ]
        figure = plots.lines_figure(panels)
    plots.save_picture(figure, request.out)


def _write_surfaces(request: _Request) -> None:
    """Write the surfaces there are, as one picture or as meshes, and name the fields without."""
    from nefbench.errors import ConfigError

    if min(request.grid) < 2:
        raise ConfigError("--size: a surface takes at least 2 samples per side")
    grid = "x".join(map(str, request.grid))
    is_picture = request.out.suffix == ".png"
    triangles = _draw_surfaces(request) if is_picture else _write_meshes(request)
    without = [index for index in request.distinct if index not in triangles]
    if not triangles:
        raise ConfigError(f"--fields: none of {without} has a surface on a grid of {grid}")
    if without:
        console.say(f"warning: no surface on a grid of {grid}: fields {without}")
    if is_picture:
        target, what = request.out.as_posix(), console.count_text(len(triangles), "surface")
    else:
        names = [_mesh_name(request, index).as_posix() for index in triangles]
        target = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        what = "1 mesh" if len(names) == 1 else f"{len(names):,} meshes"
    console.print_line(
        f"wrote    {target}: {what}, grid {grid}, {sum(triangles.values()):,} triangles"
    )


def _surfaces(request: _Request) -> Iterator[tuple[int, Mesh]]:
    """Yield the chosen fields that have a surface, each once, with it."""
    from nefbench.weights.surfaces import field_surface

    for index in request.distinct:
        mesh = field_surface(request.dataset, request.rows.weights[index], request.grid)
        if not mesh.is_empty:
            yield index, mesh


def _draw_surfaces(request: _Request) -> dict[int, int]:
    """Draw one picture; return how many triangles each drawn field has."""
    from nefbench import plots

    meshes = dict(_surfaces(request))
    if meshes:
        captions = [pictures.caption(request.dataset, request.rows, index) for index in meshes]
        figure = pictures.surfaces_figure(list(meshes.values()), captions)
        plots.save_picture(figure, request.out)
    return {index: len(mesh.faces) for index, mesh in meshes.items()}


def _write_meshes(request: _Request) -> dict[int, int]:
    """Write a file per field; return how many triangles each written field has."""
    from nefbench.weights.surfaces import write_mesh

    triangles = {}
    for index, mesh in _surfaces(request):
        write_mesh(_mesh_name(request, index), mesh)
        triangles[index] = len(mesh.faces)
    return triangles


def _mesh_name(request: _Request, index: int) -> Path:
    """Name a file after its signal, and after the field too where a signal has several."""
    if len(request.distinct) == 1:
        return request.out
    signals = request.rows.signal_index[request.distinct].tolist()
    signal = int(request.rows.signal_index[index])
    name = f"{request.out.stem}-{signal}"
    if signals.count(signal) > 1:
        name = f"{name}-{index}"
    return request.out.with_name(f"{name}{request.out.suffix}")


def _parse_size(text: str | None, grid: tuple[int, ...], dims: int) -> tuple[int, ...]:
    from nefbench.errors import ConfigError, DatasetFormatError

    if text is None:
        if not grid:
            raise DatasetFormatError("the fitted grid is not known; give --size")
        return grid
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise ConfigError(f"--size: expected N or {_AXES.get(dims, 'AxBx…')} (got {text!r})")
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
