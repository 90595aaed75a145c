"""``nefbench inspect``: what a neural dataset folder holds, with a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nefbench.cli import console
from nefbench.cli.fit import print_quality

if TYPE_CHECKING:
    from torch import Tensor

    from nefbench.weights import NeuralDataset

_SHOWN = 10
_ZOOM = 8
_MOST_PIXELS = 128


def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder of a neural dataset.")],
    config: console.ConfigOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Gallery picture (PNG).  [default: gallery-FOLDER-CONFIG.png]"),
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Print what a folder holds, check every part, and draw a gallery of each config."""
    console.run(lambda: _inspect(folder, config, out, json))


def _inspect(folder: Path, config_name: str | None, out: Path | None, as_json: bool) -> None:
    from nefbench.config import config_to_mapping
    from nefbench.errors import ConfigError
    from nefbench.weights import load_all, load_neural_dataset

    if out is not None and not out.name:
        raise ConfigError(f"--out: expected a file name (got {str(out)!r})")
    one = config_name is not None
    datasets = [load_neural_dataset(folder, config_name)] if one else load_all(folder)
    if out is not None and len(datasets) > 1:
        raise ConfigError(f"--out is one picture, {folder} holds several configs; add --config")
    if as_json:
        for dataset in datasets:
            for split in dataset.split_names if dataset.entry.is_complete else ():
                dataset.split(split)
        console.print_json({dataset.name: config_to_mapping(dataset.entry) for dataset in datasets})
        return
    if not datasets:
        console.print_line(f"{folder} holds no fields yet")
    for dataset in datasets:
        _print_entry(dataset)
        if dataset.entry.is_complete:
            default = Path(f"gallery-{folder.resolve().name}-{dataset.name}.png")
            _draw(dataset, out or default)
        console.print_line("")


def _print_entry(dataset: NeuralDataset) -> None:
    from nefbench.config import config_to_mapping

    entry = dataset.entry
    arch = config_to_mapping(entry.field)
    settings = ", ".join(f"{key} {value}" for key, value in arch.items() if key != "kind")
    shape = "x".join(map(str, (*entry.signals.grid_shape, len(entry.signals.mean))))
    optimizer = entry.fit.get("optimizer", {})
    console.print_line(f"config   {dataset.name}")
    console.print_line(
        f"field    {entry.field.kind}: {settings}; {entry.spec.num_params:,} weights in "
        f"{len(entry.tensors)} tensors"
    )
    console.print_line(
        f"signals  {entry.signals.name}, {shape}, {len(entry.signals.class_names)} classes; "
        f"{entry.signals.source}; licence {entry.signals.licence}"
    )
    console.print_line(
        f"fit      {entry.fit.get('init', {}).get('kind', 'unknown')} start, "
        f"{entry.fit.get('num_steps', 'unknown')} steps, {optimizer.get('kind', 'unknown')} "
        f"{optimizer.get('learning_rate', '')}; engine {entry.engine}; nefbench {entry.version}"
    )
    state = "complete" if entry.is_complete else "NOT FINISHED"
    console.print_line(
        f"files    {console.count_text(len(entry.parts), 'part')}, "
        f"{console.folder_size(dataset.folder / dataset.name)}; {entry.num_finished:,} of "
        f"{entry.num_fields:,} fields, {state}; digest {entry.digest[:12]}"
    )
    if entry.is_complete:
        for split in dataset.split_names:
            dataset.split(split)  # reads every byte against its checksum
        console.print_line("check    every part agrees with its checksum")
        print_quality("", entry)


def _draw(dataset: NeuralDataset, path: Path) -> None:
    """Draw fields of the last split on two grids, from the worst PSNR to the best if known."""
    import torch

    from nefbench import plots

    grid = dataset.entry.signals.grid_shape
    if len(grid) != 2:
        console.print_line("gallery  no picture: the signals are not images")
        return
    fields = dataset.split(dataset.split_names[-1])
    good = fields.select(fields.is_ok)
    if not len(good):
        console.print_line("gallery  no picture: no field is ok")
        return
    psnr_db = good.quality.get("psnr_db")
    order = torch.arange(len(good)) if psnr_db is None else psnr_db.argsort(stable=True)
    picked = order[torch.linspace(0, len(good) - 1, min(_SHOWN, len(good))).long()]
    finer = tuple(max(side, min(side * _ZOOM, _MOST_PIXELS)) for side in grid)
    captions = [
        _caption(dataset, good.labels, index, None if psnr_db is None else float(psnr_db[index]))
        for index in picked.tolist()
    ]
    rows = [
        plots.GalleryRow("fitted grid", dataset.render(good.weights[picked]), captions),
        plots.GalleryRow("finer grid", dataset.render(good.weights[picked], finer)),
    ]
    table = [(int(good.signal_index[index]), *caption.split("\n")) for index, caption in
             zip(picked.tolist(), captions, strict=True)]  # fmt: skip
    columns = ("signal_index", *(f"caption_{i}" for i in range(len(table[0]) - 1)))
    target = plots.save_figure(plots.gallery_figure(rows), path, columns, table)[0]
    order_text = "in index order" if psnr_db is None else "from the worst PSNR to the best"
    console.print_line(f"gallery  {target} ({order_text})")


def _caption(
    dataset: NeuralDataset, labels: Tensor | None, index: int, psnr_db: float | None
) -> str:
    label = -1 if labels is None else int(labels[index])
    unknown = "" if labels is None else "no label"
    name = dataset.class_names[label] if label >= 0 else unknown
    quality = "" if psnr_db is None else f"{psnr_db:.1f} dB"
    return "\n".join(part for part in (name, quality) if part)
