from __future__ import annotations

import pytest
import torch
from torch import Tensor

from classifiers.gauge_fixing import GaugeFixing, fix_gauge, reference_row
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import (
    MLP,
    FieldConfig,
    FourierNet,
    GaborNet,
    RFFNet,
    ShapeNet,
    Siren,
    evaluate,
)
from nefbench.seeding import Draws
from nefbench.weights.alignment import align
from nefbench.weights.canonical import balance_scales, canonicalise
from nefbench.weights.symmetries import act, random_element

FIELDS: dict[str, FieldConfig] = {
    "siren": Siren(hidden_dim=5, omega_0=9.0),
    "fouriernet": FourierNet(hidden_dim=4, num_filters=3),
    "gabornet": GaborNet(hidden_dim=4, num_filters=3),
    "rffnet": RFFNet(hidden_dim=6, num_layers=3),
    "mlp": MLP(hidden_dim=5),
    "shapenet": ShapeNet(hidden_dim=4, omega_0=2.0),
}
over_fields = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
KINDS: tuple[GaugeFixing, ...] = ("canonical", "aligned")
SMALL = space_of(Siren(hidden_dim=2, num_layers=2), 2, 1)

pytestmark = pytest.mark.usefixtures("one_thread")


def some_rows(space: WeightSpace, count: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, space.num_params, dtype=torch.float64, generator=generator)


def moved(space: WeightSpace, rows: Tensor) -> Tensor:
    """Move every row by an element of its own, of all kinds that the field has."""
    element = random_element(space.spec, Draws(3, tuple(range(len(rows)))), max_phase=20)
    return act(space.spec, rows, element)


def assert_same_fields(space: WeightSpace, rows: Tensor, others: Tensor) -> None:
    """Compare values at 64 points, and that the rows themselves differ."""
    assert space.field is not None
    coords = 2 * torch.rand(64, 2, dtype=torch.float64) - 1
    before, after = (evaluate(space.field, space.spec, r, coords) for r in (others, rows))
    difference = (before - after).abs().amax((1, 2)) / before.abs().amax((1, 2))
    assert float(difference.max()) <= 1e-10
    assert bool((rows != others).any(1).all())


@over_fields
def test_canonical_rows_compute_the_same_fields_and_are_one_per_orbit(field: FieldConfig) -> None:
    space = space_of(field, 2, 3)
    rows = some_rows(space)

    fixed = fix_gauge("canonical", space, rows)

    assert_same_fields(space, fixed, rows)
    others = fix_gauge("canonical", space, moved(space, rows))
    torch.testing.assert_close(others, fixed, rtol=1e-9, atol=1e-9)


@over_fields
def test_aligned_rows_compute_the_same_fields_and_are_one_per_orbit(field: FieldConfig) -> None:
    space = space_of(field, 2, 3)
    rows = some_rows(space)
    others = moved(space, rows)
    # Each set has a reference of its own, found from the moved rows alone.
    reference, other_reference = (reference_row(space, r) for r in (rows, others))

    fixed = fix_gauge("aligned", space, rows, reference)

    assert_same_fields(space, fixed, rows)
    torch.testing.assert_close(other_reference, reference, rtol=1e-9, atol=1e-9)
    other_fixed = fix_gauge("aligned", space, others, other_reference)
    torch.testing.assert_close(other_fixed, fixed, rtol=1e-9, atol=1e-9)
    assert float((others - rows).abs().amax(1).min()) > 0.1
    canonical = fix_gauge("canonical", space, rows)
    spreads = [float(r.var(0, correction=0).sum()) for r in (fixed, canonical)]
    assert spreads[0] < spreads[1]


@pytest.mark.parametrize("name", ["siren", "mlp"])
def test_the_reference_is_the_mean_of_what_was_aligned_to_the_one_before(name: str) -> None:
    field = FIELDS[name]
    space = space_of(field, 2, 1)
    rows = some_rows(space, 7)

    reference = canonicalise(field, 2, 1, rows)[0]
    for _ in range(5):
        total = sum((align(field, 2, 1, row[None], reference)[0] for row in rows[1:]),
                    align(field, 2, 1, rows[:1], reference)[0])  # fmt: skip
        reference = balance_scales(space.spec, total[None] / 7)[0][0]

    torch.testing.assert_close(reference_row(space, rows), reference, rtol=1e-10, atol=1e-10)
    assert reference_row(space, rows.float()).dtype == torch.float64


def test_a_thousand_rows_spread_over_the_split_make_the_reference() -> None:
    rows = some_rows(SMALL, 2500)
    chosen = torch.arange(1000) * 2500 // 1000
    is_left_out = torch.ones(2500, dtype=torch.bool)
    is_left_out[chosen] = False
    others = rows.clone()
    others[is_left_out] = 7.0

    reference = reference_row(SMALL, rows)

    assert torch.equal(reference_row(SMALL, others), reference)
    assert torch.equal(reference_row(SMALL, rows[chosen]), reference)
    assert not torch.equal(reference_row(SMALL, rows[:1000]), reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_others_and_keeps_its_dtype(
    kind: GaugeFixing, dtype: torch.dtype
) -> None:
    rows = some_rows(SMALL, 1500).to(dtype)  # more than are treated at once
    reference = reference_row(SMALL, rows[:10])

    together = fix_gauge(kind, SMALL, rows, reference)

    assert together.dtype == dtype
    for place in (0, 1023, 1024, 1499):
        alone = fix_gauge(kind, SMALL, rows[place : place + 1], reference)
        torch.testing.assert_close(together[place : place + 1], alone)


def test_nothing_to_do_is_nothing_done() -> None:
    rows = some_rows(SMALL, 3)

    assert fix_gauge("none", SMALL, rows) is rows
    for kind in KINDS:
        assert fix_gauge(kind, SMALL, rows[:0], reference_row(SMALL, rows)).shape == (0, 9)


def test_progress_counts_rows_and_in_the_search_for_a_reference_rows_per_round() -> None:
    rows, heard = some_rows(SMALL, 1500), list[tuple[int, int]]()

    fix_gauge("canonical", SMALL, rows, on_rows=lambda *news: heard.append(news))
    reference_row(SMALL, rows[:20], on_rows=lambda *news: heard.append(news))

    assert heard == [
        (0, 1500), (1024, 1500), (1500, 1500),
        (0, 100), (20, 100), (40, 100), (60, 100), (80, 100), (100, 100),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_plain_values_are_refused_in_one_line(kind: GaugeFixing) -> None:
    message = f"gauge_fixing = '{kind}': plain values have no symmetries; leave it out"

    with pytest.raises(TrainingError) as caught:
        fix_gauge(kind, space_of_values((4,)), torch.ones(2, 4), torch.ones(4))

    assert str(caught.value) == message
    with pytest.raises(TrainingError, match="plain values have no symmetries"):
        reference_row(space_of_values((4,)), torch.ones(2, 4))


def test_a_reference_that_is_missing_or_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="there is none"):
        fix_gauge("aligned", SMALL, some_rows(SMALL))
    with pytest.raises(ValueError, match="expected a reference of 9 weights"):
        fix_gauge("aligned", SMALL, some_rows(SMALL), torch.ones(8))
