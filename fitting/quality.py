"""How well fields represent their signals: on the fitted points and between them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nefbench.fields import FieldConfig, render
from nefbench.metrics import (
    iou,
    mae,
    midpoint_coords,
    midpoint_values,
    mse,
    psnr,
    psnr_peak,
    quality_ratio,
    simse,
    ssim,
)
from nefbench.signals import GridSignals, ShapeSignals, Signals
from nefbench.signals.shapes import PointSamples, ShapeSamples
from nefbench.spec import ParamSpec

_GRID_METRICS = ("psnr_db", "psnr_peak_db", "mse", "mae", "simse")
_OFF_GRID_METRICS = ("psnr_off_db", "psnr_ratio")
_SHAPE_METRICS = ("iou", "iou_uniform", "iou_near_surface", "iou_ratio")


def metric_names(signals: Signals) -> tuple[str, ...]:
    """Quality measures that apply to these signals, in the order of their columns."""
    if isinstance(signals, ShapeSignals):
        return (*_SHAPE_METRICS, "mae") if signals.quantity != "occupancy" else _SHAPE_METRICS
    assert isinstance(signals, GridSignals)
    names: tuple[str, ...] = _GRID_METRICS
    if len(signals.grid_shape) == 2:
        names += ("ssim",)
    if min(signals.grid_shape) > 1:
        names += _OFF_GRID_METRICS
    return names


@dataclass(frozen=True)
class Evaluator:
    """Evaluates rows of one architecture.

    Attributes:
        field: The architecture.
        spec: Names and shapes of a row.
    """

    field: FieldConfig
    spec: ParamSpec

    def at(self, rows: Tensor, coords: Tensor) -> Tensor:
        """Values ``[B, q, c]`` of rows ``[B, P]`` at shared or own points, without gradients."""
        return render(self.field, self.spec, rows, coords)


def grid_psnr(signals: GridSignals, raw: Tensor, values: Tensor) -> Tensor:
    """PSNR of outputs ``[B, Q, c]`` against raw values ``[B, Q, c]``, in dB ``[B]``."""
    return psnr(signals.unit_values(raw), signals.unit_values(signals.denormalise(values)))


def grid_quality(
    signals: GridSignals, evaluator: Evaluator, rows: Tensor, raw: Tensor, values: Tensor
) -> dict[str, Tensor]:
    """Measure rows ``[B, P]`` with outputs ``values`` on the grid against raw values ``[B, Q, c]``.

    Values are mapped to [0, 1] by the signals' range and reconstructions clipped to it, except for
    the PSNR of fit-a-nef. Off the grid, halfway between its points, the truth is the linear
    interpolation of the signal.
    """
    truth = signals.unit_values(raw)
    unclipped = signals.unit_values(signals.denormalise(values))
    estimate = unclipped.clamp(0, 1)
    quality = {
        "psnr_db": psnr(truth, estimate),
        "psnr_peak_db": psnr_peak(truth, unclipped),
        "mse": mse(truth, estimate),
        "mae": mae(truth, estimate),
        "simse": simse(truth, estimate),
    }
    if len(signals.grid_shape) == 2:
        height, width = signals.grid_shape
        quality["ssim"] = ssim(truth, estimate, (height, width))
    if min(signals.grid_shape) > 1:
        between = midpoint_coords(signals.grid_shape).to(rows.device)
        outputs = signals.denormalise(evaluator.at(rows, between))
        off = psnr(midpoint_values(truth, signals.grid_shape), signals.unit_values(outputs))
        quality["psnr_off_db"] = off
        quality["psnr_ratio"] = quality_ratio(off, quality["psnr_db"])
    return quality


def shape_quality(
    signals: ShapeSignals,
    evaluator: Evaluator,
    rows: Tensor,
    fitted: PointSamples,
    values: Tensor,
    held_out: ShapeSamples,
) -> dict[str, Tensor]:
    """Measure rows ``[B, P]``, whose outputs at ``fitted`` are ``values``, by their overlap.

    ``iou`` is the one of the uniform points that were fitted to, ``iou_uniform`` and
    ``iou_near_surface`` those of points held out; the ratio is that of held-out to fitted uniform.
    """

    def outputs(samples: PointSamples) -> Tensor:
        return signals.denormalise(evaluator.at(rows, samples.points))[..., 0]

    fitted_outputs = signals.denormalise(values)[..., 0]

    def overlap(samples: PointSamples, values: Tensor) -> Tensor:
        return iou(_inside(signals, samples.values), _inside_by_output(signals, values))

    uniform = outputs(held_out.uniform)
    quality = {
        "iou": overlap(fitted, fitted_outputs),
        "iou_uniform": overlap(held_out.uniform, uniform),
        "iou_near_surface": overlap(held_out.near_surface, outputs(held_out.near_surface)),
    }
    quality["iou_ratio"] = quality_ratio(quality["iou_uniform"], quality["iou"])
    if signals.quantity == "signed-distance":
        quality["mae"] = mae(held_out.uniform.values[..., None], uniform[..., None])
    return quality


def _inside(signals: ShapeSignals, values: Tensor) -> Tensor:
    return values >= 0.5 if signals.quantity == "occupancy" else values < 0


def _inside_by_output(signals: ShapeSignals, values: Tensor) -> Tensor:
    return values >= 0 if signals.quantity == "occupancy" else values < 0
