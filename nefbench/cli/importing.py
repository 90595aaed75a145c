"""``nefbench import``: neural datasets in other formats become ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nefbench.cli import console
from nefbench.cli.fit import print_quality


def import_(
    source: Annotated[Path, typer.Argument(help="Folder with nef.json and nefs_A-B.hdf5 files.")],
    out: Annotated[Path, typer.Option(help="Folder of the neural dataset.")],
    name: Annotated[str | None, typer.Option(help="Name of the new config.")] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,VALIDATION,TEST",
            help="Fields per split, in order.",
            show_default="all are train",
        ),
    ] = None,
) -> None:
    """Read fields fitted with fit-a-nef (HDF5), every bit kept."""
    console.run(lambda: _import(source, out, name, splits))


def _import(source: Path, out: Path, name: str | None, splits: str | None) -> None:
    from nefbench.hub import write_card
    from nefbench.weights import read_manifest
    from nefbench.weights.hdf5 import import_fit_a_nef

    dataset = import_fit_a_nef(source, out, name=name, splits=_parse_splits(splits))
    write_card(out, read_manifest(out))
    entry = dataset.entry
    console.print_line(
        f"wrote    {out} ({dataset.name}): {console.count_text(entry.num_fields, 'field')}, "
        f"{entry.field.kind}, {entry.spec.num_params:,} weights"
    )
    print_quality(dataset.name, dataset)
    if dataset.class_names and len(entry.splits) == 3:
        console.print_line(
            f"next     nefbench train {console.shell_text(out)} --config {dataset.name}"
        )


def _parse_splits(text: str | None) -> list[tuple[str, int]] | None:
    from nefbench.errors import ConfigError
    from nefbench.signals import SPLIT_NAMES

    if text is None:
        return None
    sizes = text.split(",")
    if len(sizes) != len(SPLIT_NAMES) or not all(size.strip().isdecimal() for size in sizes):
        raise ConfigError(
            f"--splits: expected three numbers such as 55000,5000,10000 (got {text!r})"
        )
    return [(name, int(size)) for name, size in zip(SPLIT_NAMES, sizes, strict=True)]
