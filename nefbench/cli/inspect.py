"""``nefbench inspect``: what a neural dataset folder holds, with a gallery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nefbench.cli import console, pictures
from nefbench.cli.fit import copies_text, median_steps, print_quality

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from nefbench.metrics import NMI, SetRatio
    from nefbench.weights import ConfigEntry, FieldRows, NeuralDataset

_SHOWN = 10
_ZOOM = 8
_MOST_PIXELS = 128
_MOST_POINTS = 1024
_COLUMNS = 5


def inspect(
    folder: Annotated[Path, typer.Argument(help="Folder of a neural dataset.")],
    config: console.ConfigOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Gallery picture (PNG).", show_default="gallery-FOLDER-CONFIG.png"),
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Print what a folder holds, check every part, and draw a gallery of each config."""
    console.run(lambda: _inspect(folder, config, out, json))


def _inspect(folder: Path, config_name: str | None, out: Path | None, as_json: bool) -> None:
    from nefbench.errors import ConfigError
    from nefbench.weights import load_all, load_neural_dataset

    if out is not None and not out.name:
        raise ConfigError(f"--out: expected a file name (got {str(out)!r})")
    one = config_name is not None
    datasets = [load_neural_dataset(folder, config_name)] if one else load_all(folder)
    if out is not None and len(datasets) > 1:
        raise ConfigError(f"--out is one picture, {folder} holds several configs; add --config")
    if as_json:
        console.print_json({dataset.name: _as_json(dataset) for dataset in datasets})
        return
    if not datasets:
        console.print_line(f"{folder} holds no fields yet")
    for dataset in datasets:
        _print_entry(dataset)
        if dataset.entry.is_complete:
            last = _check_parts(dataset)
            console.print_line("check    every part agrees with its checksum")
            print_quality("", dataset)
            _print_measures(dataset)
            _print_measured(measure(dataset, last))
            default = Path(f"gallery-{folder.resolve().name}-{dataset.name}.png")
            _draw(dataset, last, out or default)
        console.print_line("")


def _as_json(dataset: NeuralDataset) -> dict[str, Any]:
    """Return the record in the manifest, and under ``measured`` what was measured just now."""
    from nefbench.config import config_to_mapping

    measured = None
    if dataset.entry.is_complete:
        measured = config_to_mapping(measure(dataset, _check_parts(dataset)))
    return {**config_to_mapping(dataset.entry), "measured": measured}


def _check_parts(dataset: NeuralDataset) -> FieldRows:
    """Read every byte against its checksum; return the last split."""
    for split in dataset.split_names[:-1]:
        dataset.split(split)
    return dataset.split(dataset.split_names[-1])


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured over the ok fields of the last split.

    Attributes:
        split: Its name.
        nmi: How k-means clusters of its weights agree with the classes.
        nmi_missing: Why ``nmi`` is None; empty otherwise.
        ratio: Quality off the fitted points over quality on them.
        ratio_of: The two columns that were divided.
        median_steps: Optimizer steps per field, if recorded.
    """

    split: str
    nmi: NMI | None
    nmi_missing: str
    ratio: SetRatio | None
    ratio_of: tuple[str, str] | None
    median_steps: float | None


def measure(dataset: NeuralDataset, fields: FieldRows) -> Measured:
    """Measure the last split; k-means takes seconds."""
    from nefbench.metrics import nmi, set_ratio

    good = fields.select(fields.is_ok)
    found, missing = None, "no labels"
    if good.labels is not None:
        try:
            found, missing = nmi(good.weights, good.labels), ""
        except ValueError as error:
            missing = str(error)
    pairs = (("psnr_off_db", "psnr_db"), ("iou_uniform", "iou"))
    pair = next((pair for pair in pairs if set(pair) <= set(good.quality)), None)
    ratio = set_ratio(*(good.quality[name] for name in pair)) if pair else None
    known = ratio is not None and ratio.num_fields > 0
    return Measured(
        split=dataset.split_names[-1],
        nmi=found,
        nmi_missing=missing,
        ratio=ratio if known else None,
        ratio_of=pair if known else None,
        median_steps=median_steps(fields),
    )


def _print_entry(dataset: NeuralDataset) -> None:
    from nefbench.config import config_to_mapping

    entry = dataset.entry
    arch = config_to_mapping(entry.field)
    settings = ", ".join(f"{key} {value}" for key, value in arch.items() if key != "kind")
    console.print_line(f"config   {dataset.name}")
    console.print_line(
        f"field    {entry.field.kind}: {settings}; {entry.spec.num_params:,} weights in "
        f"{len(entry.tensors)} tensors"
    )
    console.print_line(
        f"signals  {entry.signals.name}, {_shape_text(dataset)}, {len(entry.signals.class_names)} "
        f"classes; {entry.signals.source}; licence {entry.signals.licence}"
    )
    if entry.properties:
        console.print_line(f"numbers  {_properties_text(entry)}")
    console.print_line(f"fit      {_fit_text(entry)}")
    state = "complete" if entry.is_complete else "NOT FINISHED"
    console.print_line(
        f"files    {console.count_text(len(entry.parts), 'part')}, "
        f"{console.folder_size(dataset.folder / dataset.name)}; {entry.num_finished:,} of "
        f"{entry.num_fields:,} fields, {state}; digest {entry.digest[:12]}"
    )


def _shape_text(dataset: NeuralDataset) -> str:
    signals = dataset.entry.signals
    if dataset.is_of_shapes:
        return f"{signals.output} in {dataset.entry.in_dim} dimensions"
    shape = "x".join(map(str, (*signals.grid_shape, len(signals.mean))))
    low, high = signals.value_range
    return shape if (low, high) == (0.0, 1.0) else f"{shape} from {low:g} to {high:g}"


def _properties_text(entry: ConfigEntry) -> str:
    """Name the properties, with their ranges over all splits once they are known."""
    texts = []
    for name in entry.properties:
        known = [s.properties[name] for s in entry.summary.values() if name in s.properties]
        ends = [end for ends in known for end in ends]
        texts.append(f"{name} from {min(ends):g} to {max(ends):g}" if ends else name)
    return ", ".join(texts)


def _fit_text(entry: ConfigEntry) -> str:
    fit = entry.fit
    if "imported_from" in fit:
        return (
            f"imported from {fit['imported_from']}; start, steps and optimizer are not known; "
            f"nefbench {entry.version}"
        )
    optimizer = fit.get("optimizer", {})
    steps = f"{fit.get('num_steps', 'unknown')} steps"
    if fit.get("until_psnr") is not None:
        steps = f"at most {steps} until {fit['until_psnr']:g} dB"
    return (
        f"{fit.get('init', {}).get('kind', 'unknown')} start, {steps}, "
        f"{optimizer.get('kind', 'unknown')} {optimizer.get('learning_rate', '')}"
        f"{copies_text(fit.get('num_refits', 1), (fit.get('views') or {}).get('count', 1))}; "
        f"engine {entry.engine}; nefbench {entry.version}"
    )


def _print_measures(dataset: NeuralDataset) -> None:
    """Print every measure of the last split."""
    split = dataset.split_names[-1]
    quality = dataset.entry.summary[split].quality
    rows = [
        [name, *(f"{numbers[key]:.4g}" for key in ("median", "worst_5_percent", "worst"))]
        for name, numbers in quality.items()
    ]
    if rows:
        console.print_table(f"split {split}", ["measure", "median", "worst 5 %", "worst"], rows)


def _print_measured(measured: Measured) -> None:
    place = f"fields of split {measured.split}"
    if measured.ratio is not None and measured.ratio_of is not None:
        off, inside = measured.ratio_of
        console.print_line(
            f"ratio    R {measured.ratio.ratio_of_means:.4f} (ratio of means), "
            f"{measured.ratio.mean_of_ratios:.4f} (mean of ratios): {off} over {inside}, "
            f"{measured.ratio.num_fields:,} {place}"
        )
    nmi = measured.nmi
    if nmi is not None:
        console.print_line(
            f"nmi      {nmi.value:.2f} (k-means, k {nmi.num_clusters}, "
            f"{nmi.num_restarts} restarts, seed {nmi.seed}, {nmi.num_fields:,} {place})"
        )
    elif measured.nmi_missing != "no labels":
        console.print_line(f"nmi      not measured: {measured.nmi_missing}")


def _draw(dataset: NeuralDataset, fields: FieldRows, path: Path) -> None:
    """Draw fields of a split, from the worst to the best where their quality is known."""
    import torch

    from nefbench import plots
    from nefbench.errors import MissingDependencyError

    good = fields.select(fields.is_ok)
    if not len(good):
        console.print_line("gallery  no picture: no field is ok")
        return
    if not dataset.default_grid:
        console.print_line("gallery  no picture: the fitted grid is not known")
        return
    measure = pictures.leading_quality(good)
    order = torch.arange(len(good))
    if measure is not None:
        order = good.quality[measure].argsort(stable=True)
    picked = order[torch.linspace(0, len(good) - 1, min(_SHOWN, len(good))).long()]
    captions = [pictures.caption(dataset, good, index) for index in picked.tolist()]
    try:
        figure = _gallery(dataset, good.weights[picked], captions)
    except MissingDependencyError as error:
        console.print_line(f"gallery  no picture: {error}")
        return
    if figure is None:
        console.print_line(f"gallery  no picture of {dataset.entry.in_dim} dimensions")
        return
    table = [(int(good.signal_index[index]), *caption.split("\n")) for index, caption in
             zip(picked.tolist(), captions, strict=True)]  # fmt: skip
    columns = ("signal_index", *(f"caption_{i}" for i in range(len(table[0]) - 1)))
    target = plots.save_figure(figure, path, columns, table)[0]
    order_text = "in index order"
    if measure is not None:
        order_text = f"from the worst {pictures.LEADING[measure][0]} to the best"
    on_a_line = dataset.entry.in_dim == 1  # all channels are drawn
    note = "" if on_a_line else pictures.channels_text(dataset.entry.out_dim)
    console.print_line(f"gallery  {target} ({order_text}{note})")


def _gallery(dataset: NeuralDataset, weights: Tensor, captions: list[str]) -> Figure | None:
    """Draw fields of any domain of up to three dimensions."""
    from nefbench import plots

    if dataset.is_of_shapes:
        from nefbench.weights.surfaces import field_surface

        meshes = [field_surface(dataset, row) for row in weights]
        return pictures.surfaces_figure(meshes, captions, columns=_COLUMNS)
    grid = dataset.default_grid
    if len(grid) > 3:
        return None
    values = dataset.render(weights)
    if len(grid) == 3:
        return pictures.slices_figure(dataset, values, captions)
    most = _MOST_PIXELS if len(grid) == 2 else _MOST_POINTS
    zoom = max(1.0, min(_ZOOM, most / max(grid)))
    finer = dataset.render(weights, [round(side * zoom) for side in grid])
    if len(grid) == 1:
        panels = [
            plots.LinePanel(line, dots, text.replace("\n", ", "))
            for line, dots, text in zip(finer, values, captions, strict=True)
        ]
        return plots.lines_figure(panels, columns=_COLUMNS)
    return plots.gallery_figure(
        [
            plots.GalleryRow("fitted grid", pictures.pixels(dataset, values), captions),
            plots.GalleryRow("finer grid", pictures.pixels(dataset, finer)),
        ]
    )
