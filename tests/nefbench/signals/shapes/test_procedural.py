from __future__ import annotations

import pickle
from typing import Any, get_args

import pytest
import torch

from nefbench.config import config_from_mapping
from nefbench.errors import ConfigError
from nefbench.signals.shapes import (
    BOX_SIDE,
    DISTANCE_SCALE,
    ProceduralShapesConfig,
    Role,
    ShapeSamples,
)
from nefbench.signals.shapes.procedural import CLASS_NAMES, ProceduralShapes

SMALL = ProceduralShapesConfig(
    train_size=24,
    validation_size=12,
    test_size=12,
    num_uniform=600,
    num_near_surface=500,
    num_held_out=400,
)
DISTANCES = ProceduralShapesConfig(
    quantity="signed-distance", num_uniform=600, num_near_surface=500, num_held_out=400
)


def tensors(samples: ShapeSamples) -> list[torch.Tensor]:
    parts = (samples.uniform, samples.near_surface)
    return [tensor for part in parts for tensor in (part.points, part.values)]


def test_the_default_set_is_2400_shapes_of_twelve_balanced_classes() -> None:
    signals = ProceduralShapesConfig().open()

    assert len(signals) == 2_400
    assert signals.labels is not None
    assert len(signals.class_names) == 12
    for split, each in zip(signals.splits, (160, 20, 20), strict=True):
        counts = signals.labels[split.start : split.stop].bincount(minlength=12)
        assert counts.tolist() == [each] * 12
    assert signals.std == (1.0,)
    assert DISTANCES.open().std == (DISTANCE_SCALE,)


def test_samples_have_the_configured_sizes_and_kinds() -> None:
    shapes = SMALL.open().shapes

    fit, held_out = shapes.read([0, 5, 7], "fit"), shapes.read([0], "held-out")
    assert [tuple(t.shape) for t in tensors(fit)] == [(3, 600, 3), (3, 600), (3, 500, 3), (3, 500)]
    assert [tuple(t.shape) for t in tensors(held_out)] == [
        (1, 400, 3),
        (1, 400),
        (1, 400, 3),
        (1, 400),
    ]
    assert all(tensor.dtype == torch.float32 for tensor in tensors(fit))
    assert set(fit.uniform.values.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("role", get_args(Role))
def test_a_shape_has_the_same_points_in_any_company(role: Role) -> None:
    shapes = SMALL.open().shapes

    together = shapes.read([30, 6, 18, 7, 29, 0, 12, 24], role)
    for row, position in enumerate([30, 6, 18]):
        alone = shapes.read([position], role)
        for one, many in zip(tensors(alone), tensors(together), strict=True):
            assert torch.equal(one[0], many[row])


def test_a_shape_depends_on_seed_and_index_alone() -> None:
    few = ProceduralShapesConfig(
        train_size=7, num_uniform=600, num_near_surface=500, num_held_out=400
    )
    other = ProceduralShapesConfig(seed=1, num_uniform=600, num_near_surface=500)

    ours, theirs = SMALL.open().shapes.read([5], "fit"), few.open().shapes.read([5], "fit")
    assert all(map(torch.equal, tensors(ours), tensors(theirs)))
    differing = zip(tensors(ours), tensors(other.open().shapes.read([5], "fit")), strict=True)
    assert not any(torch.equal(one, two) for one, two in differing)


def test_fewer_points_are_the_first_of_more() -> None:
    more = ProceduralShapesConfig(num_uniform=900, num_near_surface=700).open().shapes

    for few, many in zip(
        tensors(SMALL.open().shapes.read([3], "fit")), tensors(more.read([3], "fit")), strict=True
    ):
        assert torch.equal(few[0], many[0, : few.shape[1]])


def test_held_out_points_are_other_points() -> None:
    shapes = SMALL.open().shapes
    fit, held_out = shapes.read([4], "fit"), shapes.read([4], "held-out")

    for one, two in (
        (fit.uniform, held_out.uniform),
        (fit.near_surface, held_out.near_surface),
    ):
        ours, theirs = set(map(tuple, one.points[0].tolist())), two.points[0].tolist()
        assert ours.isdisjoint(map(tuple, theirs))


def test_all_points_lie_in_the_box_and_uniform_ones_fill_it() -> None:
    samples = SMALL.open().shapes.read(range(24), "fit")

    for tensor in (samples.uniform.points, samples.near_surface.points):
        assert tensor.abs().max() <= BOX_SIDE / 2 + 1e-6
    # 14,400 points: mean 0 and variance 1.1**2 / 12, both within 4 standard errors.
    points = samples.uniform.points.flatten(0, 1)
    assert points.mean(0).abs().max() < 4 * BOX_SIDE / (12 * 14_400) ** 0.5
    torch.testing.assert_close(
        points.square().mean(0), torch.full((3,), BOX_SIDE**2 / 12), rtol=0.03, atol=0
    )


def test_near_surface_points_are_as_far_off_as_the_noise() -> None:
    samples = DISTANCES.open().shapes.read(range(12), "fit").near_surface

    # Off a plane the distance is normal with the noise's deviation; thin parts and edges differ.
    spread = samples.values.square().mean(1).sqrt()
    assert spread.min() > 0.014
    assert spread.max() < 0.026
    assert ((samples.values < 0).float().mean(1) > 0.3).all()
    quiet = ProceduralShapesConfig(quantity="signed-distance", noise=1e-5, num_near_surface=500)
    assert quiet.open().shapes.read(range(12), "fit").near_surface.values.abs().max() < 2e-4


def test_occupancy_is_where_the_distance_is_negative() -> None:
    occupancy = SMALL.open().shapes.read(range(12), "held-out")
    distance = DISTANCES.open().shapes.read(range(12), "held-out")

    assert torch.equal(occupancy.uniform.points, distance.uniform.points)
    for one, two in zip(tensors(occupancy)[1::2], tensors(distance)[1::2], strict=True):
        assert torch.equal(one, (two < 0).float())


@pytest.mark.parametrize("label", range(12), ids=CLASS_NAMES)
def test_the_longest_side_goes_from_minus_to_plus_one_half(label: int) -> None:
    shapes = SMALL.open().shapes
    assert isinstance(shapes, ProceduralShapes)
    solid = shapes.solids([label, label + 12, label + 24])
    unit = torch.rand(3, 40_000, 3, generator=torch.Generator().manual_seed(0))
    points = solid.surface(unit)

    high, low = points.amax(1), points.amin(1)
    sides = (high - low).amax(1)
    # 40,000 points come within 0.02 of the ends.
    assert (sides <= 1 + 1e-5).all()
    assert (sides > 0.98).all()
    assert (high + low).abs().max() < 0.03


def test_parts_overlap_where_they_meet() -> None:
    # A seam inside a thing is a place with a distance of zero well below the surface: there,
    # points of the surface of a part would count as seen though everything around is inside.
    shapes = SMALL.open().shapes
    assert isinstance(shapes, ProceduralShapes)
    directions = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    directions /= directions.norm(dim=1, keepdim=True)
    for label in range(12):
        solid = shapes.solids([label])
        points = solid.surface(torch.rand(1, 3_000, 3, generator=torch.Generator().manual_seed(2)))
        seen = points[:, (solid.distance(points).abs() < 1e-4)[0]]
        around = (seen[0, :, None] + 0.003 * directions).reshape(1, -1, 3)
        outside = (solid.distance(around) > 0).reshape(-1, 24).any(1)
        # Beside a few points in the corners between parts.
        assert outside.float().mean() > 0.995, CLASS_NAMES[label]


def test_every_shape_fills_at_least_a_hundredth_of_the_box() -> None:
    config = ProceduralShapesConfig(num_uniform=1_500, num_near_surface=2, num_held_out=2)
    signals = config.open()
    share = torch.cat(
        [
            signals.shapes.read(range(start, start + 240), "fit").uniform.values.mean(1)
            for start in range(0, len(signals), 240)
        ]
    )

    # With 1,500 points the standard error is about 0.3 %: look at the lowest again, to 0.1 %.
    closer = ProceduralShapesConfig(num_uniform=16_000, num_near_surface=2, num_held_out=2)
    lowest = share.argsort()[:60].tolist()
    again = closer.open().shapes.read(lowest, "fit").uniform.values.mean(1)
    assert again.min() > 0.012


def test_shapes_of_a_class_differ_and_are_turned_within_the_limit() -> None:
    straight = ProceduralShapesConfig(turn=0.0, num_uniform=2_000).open().shapes
    turned = ProceduralShapesConfig(num_uniform=2_000).open().shapes
    first, second = (straight.read([p], "fit").near_surface.points for p in (2, 14))
    assert not torch.equal(first, second)

    # A bookcase that is not turned has its sides along the axes: it equals its mirror image in x.
    solids = {}
    for name, shapes in (("straight", straight), ("turned", turned)):
        assert isinstance(shapes, ProceduralShapes)
        solids[name] = shapes.solids([2])
    points = (torch.rand(1, 2_000, 3, generator=torch.Generator().manual_seed(3)) - 0.5) * 1.1
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    for name, largest in (("straight", 1e-6), ("turned", 0.5)):
        solid = solids[name]
        difference = (solid.distance(points) - solid.distance(mirrored)).abs().max()
        assert difference < largest
    assert difference > 0.01


def test_a_pool_for_fitting_can_be_made_of_every_class() -> None:
    pool = SMALL.open().pool(range(12), seed=0, sizes=(700, 300))

    assert pool.coords.shape == (12, 1_000, 3)
    assert pool.targets[:, :700].unique().tolist() == [0.0]
    assert pool.targets[:, 700:].unique().tolist() == [1.0]


def test_the_recorded_configuration_opens_the_same_shapes() -> None:
    signals = SMALL.open()
    assert signals.config is not None

    again = config_from_mapping(ProceduralShapesConfig, signals.config).open()
    assert again.fingerprint == signals.fingerprint
    assert pickle.loads(pickle.dumps(signals)).fingerprint == signals.fingerprint


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"seed": -1}, "expected seed from 0 to 2**63 - 1 (got -1)"),
        ({"test_size": 0}, "expected test_size >= 1 (got 0)"),
        ({"num_uniform": 0}, "expected num_uniform >= 1 (got 0)"),
        ({"turn": 200.0}, "expected turn from 0 to 180 degrees (got 200.0)"),
        ({"noise": 0.0}, "expected noise above 0 and up to 0.1 (got 0.0)"),
    ],
)
def test_numbers_out_of_range_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(ProceduralShapesConfig, {"kind": "shapes", **keys})
    assert str(caught.value) == expected
