"""Pictures of fields, by what they represent: what ``render`` and ``inspect`` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from nefbench.weights import FieldRows, NeuralDataset
    from nefbench.weights.surfaces import Mesh

LEADING = {"psnr_db": ("PSNR", "{:.1f} dB"), "iou_uniform": ("IoU", "IoU {:.3f}")}
"""The quality that fields are sorted by and captioned with: its name, and how it is written."""


def leading_quality(fields: FieldRows) -> str | None:
    """Return the column of ``LEADING`` that these fields have."""
    return next((name for name in LEADING if name in fields.quality), None)


def caption(dataset: NeuralDataset, fields: FieldRows, index: int) -> str:
    """Return a field's class and quality, a line each, as far as known."""
    label = -1 if fields.labels is None else int(fields.labels[index])
    unknown = "" if fields.labels is None else "no label"
    lines = [dataset.class_names[label] if label >= 0 else unknown]
    measure = leading_quality(fields)
    if measure is not None:
        lines.append(LEADING[measure][1].format(float(fields.quality[measure][index])))
    return "\n".join(filter(None, lines))


def pixels(dataset: NeuralDataset, values: Tensor) -> Tensor:
    """Map raw values ``[…, c]`` from their range to [0, 1]; one or three channels are shown."""
    low, high = dataset.entry.signals.value_range
    shown = values if values.shape[-1] in (1, 3) else values[..., :1]
    return shown if (low, high) == (0.0, 1.0) else (shown - low) / (high - low)


def channels_text(num_channels: int) -> str:
    """Say that not all channels are shown, where that is so."""
    return "" if num_channels in (1, 3) else f", channel 0 of {num_channels}"


def slices_figure(dataset: NeuralDataset, values: Tensor, captions: Sequence[str]) -> Figure:
    """Draw the middle slices of volumes ``[N, z, y, x, c]`` along the three axes."""
    from nefbench import plots

    shown = pixels(dataset, values)
    rows = []
    for axis, title in ((1, "middle z\n(y down, x right)"), (2, "middle y\n(z down, x right)"),
                        (3, "middle x\n(z down, y right)")):  # fmt: skip
        middle = shown.select(axis, shown.shape[axis] // 2)
        rows.append(plots.GalleryRow(title, middle, captions if axis == 3 else ()))
    return plots.gallery_figure(rows)


def surfaces_figure(
    meshes: Sequence[Mesh], captions: Sequence[str], *, columns: int | None = None
) -> Figure:
    """Draw surfaces of shapes; those that are empty keep their place."""
    from nefbench import plots
    from nefbench.signals.shapes import BOX_SIDE

    shaded = [
        plots.ShadedSurface(
            mesh.vertices, mesh.faces, f"{text}\nno surface" if mesh.is_empty else text
        )
        for mesh, text in zip(meshes, captions, strict=True)
    ]
    return plots.surfaces_figure(shaded, side=BOX_SIDE, columns=columns)
