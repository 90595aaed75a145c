"""``nefbench import``: neural datasets in other formats become ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console
from nefbench.cli.fit import print_quality

if TYPE_CHECKING:
    from nefbench.weights import NeuralDataset


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with nef.json and nefs_A-B.hdf5 files, or of .pth files, one per field."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the neural dataset.")],
    name: Annotated[str | None, typer.Option(help="Name of the new config.")] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,VALIDATION,TEST|FILE",
            help="Fields per split, in order; of .pth files also a JSON file of paths.",
            show_default="as the folder says, else all are train",
        ),
    ] = None,
    omega_0: Annotated[
        float | None,
        typer.Option(help="Frequency factor of fields in .pth files.", show_default="30"),
    ] = None,
    quiet: console.QuietOption = False,
) -> None:
    """Read fields of fit-a-nef (HDF5) or SIRENs saved with PyTorch, every bit kept."""
    console.run(lambda: _import(source, out, name, splits, omega_0, quiet))


def _import(
    source: Path,
    out: Path,
    name: str | None,
    splits: str | None,
    omega_0: float | None,
    quiet: bool,
) -> None:
    from nefbench.errors import ConfigError
    from nefbench.hub import write_card
    from nefbench.weights import read_manifest
    from nefbench.weights.hdf5 import import_fit_a_nef
    from nefbench.weights.state_dicts import is_of_state_dicts

    has_hdf5 = any(any(source.glob(name)) for name in ("nef.json", "nefs_*.hdf5"))
    if source.is_dir() and not has_hdf5 and not is_of_state_dicts(source):
        raise ConfigError(
            f"{source} holds no fields that can be read: neither nef.json and nefs_*.hdf5 (one "
            f"architecture of fit-a-nef, for example MNIST/SIREN) nor .pth or .pt files, one per "
            f"field"
        )
    if not (source / "nef.json").exists() and is_of_state_dicts(source):
        dataset = _import_state_dicts(source, out, name, splits, omega_0, quiet)
    elif omega_0 is not None:
        raise ConfigError("--omega-0 goes with a folder of .pth files; nef.json has its own")
    else:
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


def _import_state_dicts(
    source: Path,
    out: Path,
    name: str | None,
    splits: str | None,
    omega_0: float | None,
    quiet: bool,
) -> NeuralDataset:
    from nefbench.weights.state_dicts import import_state_dicts

    is_file = splits is not None and splits.endswith(".json")
    with console.progress("fields", quiet=quiet) as report_progress:
        return import_state_dicts(
            source,
            out,
            name=name,
            splits=Path(str(splits)) if is_file else _parse_splits(splits),
            omega_0=30.0 if omega_0 is None else omega_0,
            on_progress=report_progress,
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
