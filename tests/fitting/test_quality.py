from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting.quality import Evaluator, grid_psnr, grid_quality, metric_names, shape_quality
from nefbench.fields import Siren, evaluate
from nefbench.seeding import Draws
from nefbench.signals import GridSignals, ShapeSignals, signals_from_array
from nefbench.signals.base import Split
from nefbench.signals.shapes import PointSamples, Quantity, Role, ShapeSamples

FIELD = Siren(hidden_dim=6, omega_0=4.0)


def make_signals(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> GridSignals:
    array = np.random.default_rng(0).uniform(low, high, (3, *shape))
    return signals_from_array(array, value_range=(low, high))


def drawn_rows(in_dim: int, out_dim: int) -> Tensor:
    spec = FIELD.spec(in_dim, out_dim)
    return spec.flatten(FIELD.init(in_dim, out_dim, Draws(0, (0, 1, 2))))


def measured(signals: GridSignals, rows: Tensor) -> dict[str, Tensor]:
    evaluator = Evaluator(FIELD, FIELD.spec(signals.in_dim, signals.num_channels))
    values = evaluator.at(rows, signals.coords)
    return grid_quality(signals, evaluator, rows, signals.raw_values([0, 1, 2]), values)


def test_only_images_have_a_structural_similarity_and_a_line_of_one_no_points_between() -> None:
    basic = ("psnr_db", "psnr_peak_db", "mse", "mae", "simse")
    off = ("psnr_off_db", "psnr_ratio")
    assert metric_names(make_signals((5, 4, 1))) == (*basic, "ssim", *off)
    assert metric_names(make_signals((3, 3, 3, 1))) == (*basic, *off)
    assert metric_names(make_signals((7, 1))) == (*basic, *off)
    assert metric_names(make_signals((1, 1))) == basic


@pytest.mark.parametrize("shape", [(9, 2), (6, 5, 3), (4, 3, 5, 1)])
def test_quality_off_the_grid_is_taken_halfway_between_its_points(shape: tuple[int, ...]) -> None:
    signals = make_signals(shape)
    rows = drawn_rows(signals.in_dim, signals.num_channels)

    quality = measured(signals, rows)

    # Slowly, in float64: every cell, every corner.
    grid, spec = signals.grid_shape, FIELD.spec(signals.in_dim, signals.num_channels)
    truth = signals.values.read([0, 1, 2]).double().reshape(3, *grid, -1)
    errors = []
    for cell in np.ndindex(*(size - 1 for size in grid)):
        corners = [truth[(slice(None), *(i + o for i, o in zip(cell, offset, strict=True)))]
                   for offset in np.ndindex(*[2] * len(grid))]  # fmt: skip
        point = [-1 + (2 * i + 1) / (size - 1) for i, size in zip(cell, grid, strict=True)]
        coords = torch.tensor([point[::-1]]).double()
        output = evaluate(FIELD, spec, rows.double(), coords)[:, 0]
        raw = output * torch.tensor(signals.std) + torch.tensor(signals.mean)
        errors.append((raw.clamp(0, 1) - torch.stack(corners).mean(0)).square().mean(1))
    expected = -10 * torch.log10(torch.stack(errors).mean(0))
    torch.testing.assert_close(quality["psnr_off_db"].double(), expected, rtol=1e-4, atol=1e-3)
    ratio = quality["psnr_off_db"] / quality["psnr_db"]
    torch.testing.assert_close(quality["psnr_ratio"], ratio)


def test_only_the_psnr_of_fit_a_nef_sees_what_lies_outside_the_range() -> None:
    signals = make_signals((6, 5, 1))
    rows = 3 * drawn_rows(2, 1)
    evaluator = Evaluator(FIELD, FIELD.spec(2, 1))
    raw = signals.raw_values([0, 1, 2])
    output = signals.denormalise(evaluator.at(rows, signals.coords))
    assert output.max() > 1.1

    quality = measured(signals, rows)

    peak = raw.amax((1, 2))
    error = (output - raw).square().mean((1, 2)) / peak**2 + 1e-8
    torch.testing.assert_close(quality["psnr_peak_db"], -10 * torch.log10(error))
    clipped = (output.clamp(0, 1) - raw).square().mean((1, 2))
    torch.testing.assert_close(quality["mse"], clipped)


def test_every_column_is_measured_and_none_else() -> None:
    for shape in ((9, 2), (6, 5, 3), (4, 3, 5, 1), (1, 1)):
        signals = make_signals(shape) if shape != (1, 1) else make_signals((1, 1))
        rows = drawn_rows(signals.in_dim, signals.num_channels)
        assert tuple(measured(signals, rows)) == tuple(metric_names(signals))


def test_quality_does_not_depend_on_the_unit_of_the_values() -> None:
    array = np.random.default_rng(1).random((3, 6, 5, 1))
    plain = signals_from_array(array)
    volts = signals_from_array(array * 4 - 2, value_range=(-2.0, 2.0))
    rows = drawn_rows(2, 1)

    first, second = measured(plain, rows), measured(volts, rows)

    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=1e-3, atol=1e-4)
    raw = volts.raw_values([0, 1, 2])
    values = Evaluator(FIELD, FIELD.spec(2, 1)).at(rows, volts.coords)
    torch.testing.assert_close(grid_psnr(volts, raw, values), second["psnr_db"])


class Balls:
    """Balls around the origin, sampled on points that are given."""

    def __init__(self, radii: Sequence[float], quantity: Quantity) -> None:
        self.radii, self.quantity = radii, quantity

    def __len__(self) -> int:
        return len(self.radii)

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        generator = torch.Generator().manual_seed(1 if role == "fit" else 2)

        def samples(count: int) -> PointSamples:
            points = torch.rand(count, 3, generator=generator) * 1.1 - 0.55
            distance = torch.stack([points.norm(dim=1) - self.radii[i] for i in positions])
            inside = (distance < 0).float()
            values = distance if self.quantity == "signed-distance" else inside
            return PointSamples(points.expand(len(positions), count, 3), values)

        return ShapeSamples(samples(400), samples(200))


@pytest.mark.parametrize("quantity", ["occupancy", "signed-distance"])
def test_the_overlap_of_shapes_is_counted_on_points_held_out(quantity: Quantity) -> None:
    balls = Balls([0.3, 0.4, 0.5], quantity)
    signals = ShapeSignals(
        name="balls", source="formula", indices=torch.arange(3), splits=(Split("train", 0, 3),),
        shapes=balls, quantity=quantity, std=(0.5,),
    )  # fmt: skip
    rows, spec = drawn_rows(3, 1), FIELD.spec(3, 1)
    fitted, held_out = (balls.read([0, 1, 2], role) for role in ("fit", "held-out"))

    evaluator = Evaluator(FIELD, spec)
    values = evaluator.at(rows, fitted.uniform.points)
    quality = shape_quality(signals, evaluator, rows, fitted.uniform, values, held_out)

    def overlap(samples: PointSamples) -> list[float]:
        found = []
        for row, points, values in zip(rows, samples.points, samples.values, strict=True):
            output = FIELD.apply(spec.unflatten(row), points)[:, 0].tolist()
            guess = [o >= 0 if quantity == "occupancy" else o < 0 for o in output]
            truth = [v > 0.5 if quantity == "occupancy" else v < 0 for v in values.tolist()]
            both = sum(g and t for g, t in zip(guess, truth, strict=True))
            found.append(both / sum(g or t for g, t in zip(guess, truth, strict=True)))
        return found

    assert tuple(sorted(quality)) == tuple(sorted(metric_names(signals)))
    assert quality["iou"].tolist() == pytest.approx(overlap(fitted.uniform))
    assert quality["iou_uniform"].tolist() == pytest.approx(overlap(held_out.uniform))
    assert quality["iou_near_surface"].tolist() == pytest.approx(overlap(held_out.near_surface))
    ratio = quality["iou_uniform"] / quality["iou"]
    torch.testing.assert_close(quality["iou_ratio"], ratio)
    if quantity == "signed-distance":
        output = evaluate(FIELD, spec, rows, held_out.uniform.points[0])[..., 0] * 0.5
        error = (output - held_out.uniform.values).abs().mean(1)
        assert quality["mae"].tolist() == pytest.approx(error.tolist(), rel=1e-5)
        assert not math.isnan(quality["mae"].sum())
