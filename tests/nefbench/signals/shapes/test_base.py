from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from nefbench.errors import SignalError
from nefbench.signals.base import Split
from nefbench.signals.shapes import (
    PointSamples,
    ProceduralShapesConfig,
    Quantity,
    Role,
    ShapeSamples,
    ShapeSignals,
)


@dataclasses.dataclass(frozen=True)
class Cubes:
    """Cubes of the given half sides, with points drawn once for all of them."""

    sides: tuple[float, ...]
    quantity: Quantity = "occupancy"
    broken: int | None = None

    def __len__(self) -> int:
        return len(self.sides)

    def read(self, positions: Sequence[int], role: Role) -> ShapeSamples:
        generator = torch.Generator().manual_seed(1 if role == "fit" else 2)
        half = torch.tensor([self.sides[i] for i in positions])[:, None]

        def samples(count: int) -> PointSamples:
            points = torch.rand(count, 3, generator=generator) - 0.5
            distance = points.abs().amax(1) - half
            inside = (distance < 0).float()
            values = inside if self.quantity == "occupancy" else distance
            return PointSamples(points.repeat(len(positions), 1, 1), values)

        drawn = ShapeSamples(samples(60), samples(40))
        if self.broken in positions:
            drawn.uniform.values[list(positions).index(self.broken), 3] = torch.nan
        return drawn


def make_signals(cubes: Cubes) -> ShapeSignals:
    return ShapeSignals(
        name="cubes", source="formula", indices=torch.arange(len(cubes)) + 10,
        splits=(Split("train", 0, len(cubes)),), shapes=cubes, quantity=cubes.quantity,
        std=(1.0 if cubes.quantity == "occupancy" else 0.25,),
    )  # fmt: skip


def keys(points: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(point) for point in points.tolist()]


def test_points_outside_come_first_and_all_of_them_before_any_is_repeated() -> None:
    signals = make_signals(Cubes((0.3, 0.4)))
    pool = signals.pool([0, 1], seed=5, sizes=(150, 120))

    assert pool.coords.shape == (2, 270, 3)
    assert pool.targets.shape == (2, 270, 1)
    everything = pool.samples.all
    for row in range(2):
        assert pool.targets[row, :, 0].tolist() == [0.0] * 150 + [1.0] * 120
        inside = everything.values[row] > 0.5
        for start, size, found in ((0, 150, ~inside), (150, 120, inside)):
            expected = set(keys(everything.points[row, found]))
            chosen = keys(pool.coords[row, start : start + size])
            first, second = chosen[: len(expected)], chosen[len(expected) : 2 * len(expected)]
            assert set(first) == expected
            assert len(second) < len(expected) or set(second) == expected
            assert first[: len(second)] != second, "each time in another order"


def test_a_pool_depends_on_seed_and_shape_and_not_on_its_company_or_size() -> None:
    signals = make_signals(Cubes((0.3, 0.4, 0.35)))
    pool = signals.pool([0, 1, 2], seed=5, sizes=(150, 120))

    alone = signals.pool([1], seed=5, sizes=(150, 120))
    shorter = signals.pool([1], seed=5, sizes=(40, 30))
    other = signals.pool([1], seed=6, sizes=(150, 120))

    assert torch.equal(alone.coords[0], pool.coords[1])
    assert torch.equal(shorter.coords[0, :40], alone.coords[0, :40])
    assert torch.equal(shorter.coords[0, 40:], alone.coords[0, 150:180])
    assert not torch.equal(other.coords, alone.coords)


def test_distances_are_scaled_and_taken_in_one_random_order() -> None:
    signals = make_signals(Cubes((0.3,), "signed-distance"))

    pool = signals.pool([0], seed=0, sizes=(100,))

    everything = pool.samples.all
    assert sorted(keys(pool.coords[0])) == sorted(keys(everything.points[0]))
    assert not torch.equal(pool.coords[0], everything.points[0])
    distance = pool.coords[0].abs().amax(1) - 0.3
    torch.testing.assert_close(pool.targets[0, :, 0], distance / 0.25)


def test_distances_are_cut_where_they_are_fitted_and_where_they_are_measured() -> None:
    whole = make_signals(Cubes((0.3, 0.4), "signed-distance"))
    cut = dataclasses.replace(whole, truncation=0.05, std=(0.05,))

    pool, samples = cut.pool([0, 1], seed=0, sizes=(100,)), cut.read([0, 1], "held-out")

    assert whole.read([0, 1], "held-out").uniform.values.abs().max() > 0.1
    assert samples.uniform.values.abs().max() == pytest.approx(0.05)
    expected = whole.pool([0, 1], seed=0, sizes=(100,)).targets * 0.25
    torch.testing.assert_close(pool.targets, expected.clamp(-0.05, 0.05) / 0.05)
    assert cut.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("quantity", "truncation", "message"),
    [
        ("occupancy", 0.1, "occupancies are no distances"),
        ("signed-distance", 0.0, "expected 0 < truncation"),
        ("signed-distance", 2.0, "expected 0 < truncation"),
    ],
)
def test_a_truncation_that_means_nothing_is_refused(
    quantity: Quantity, truncation: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ProceduralShapesConfig(quantity=quantity, truncation=truncation)


@pytest.mark.parametrize(("side", "missing"), [(0.0, "inside"), (0.6, "outside")])
def test_a_shape_without_a_sample_on_one_side_is_named(side: float, missing: str) -> None:
    signals = make_signals(Cubes((0.3, side)))

    with pytest.raises(SignalError, match=f"cubes: shape 1 has no sample {missing} among 100"):
        signals.pool([0, 1], seed=0, sizes=(10, 10))


def test_a_shape_with_a_value_that_is_not_finite_is_named() -> None:
    signals = make_signals(Cubes((0.3, 0.3), broken=1))

    with pytest.raises(SignalError, match="shape 1 has NaN or infinite values"):
        signals.pool([0, 1], seed=0, sizes=(10, 10))


def test_other_shapes_have_another_fingerprint() -> None:
    first = make_signals(Cubes((0.3, 0.4))).fingerprint

    assert first == make_signals(Cubes((0.3, 0.4))).fingerprint
    assert first != make_signals(Cubes((0.3, 0.45))).fingerprint
    assert first != make_signals(Cubes((0.3, 0.4), "signed-distance")).fingerprint
