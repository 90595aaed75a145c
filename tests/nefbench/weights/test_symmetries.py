"""The function gate: a group element changes the weights and not the function."""

from __future__ import annotations

import pytest
import torch

from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren, evaluate
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element, symmetry_kinds

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=6, omega_0=30.0),
    Siren(hidden_dim=5, num_layers=5, omega_0=9.0, preset="paper"),
    FourierNet(hidden_dim=6),
    GaborNet(hidden_dim=6, num_filters=3),
    RFFNet(hidden_dim=6, num_layers=4),
    MLP(hidden_dim=6),
]
CASES = [
    pytest.param(field, kind, id=f"{field.kind}-{kind}")
    for field in FIELDS
    for kind in (*symmetry_kinds(field.spec(2, 3)), "all")
]


@pytest.mark.parametrize(("field", "kind"), CASES)
def test_a_group_element_keeps_the_function(field: FieldConfig, kind: str) -> None:
    spec = field.spec(2, 3)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, spec.num_params, dtype=torch.float64, generator=generator)
    coords = 2 * torch.rand(256, 2, dtype=torch.float64, generator=generator) - 1
    kinds = None if kind == "all" else [kind]
    element = random_element(spec, Draws(0, tuple(range(8))), kinds, max_phase=40, max_scale=100)

    moved = act(spec, rows, element)

    before, after = evaluate(field, spec, rows, coords), evaluate(field, spec, moved, coords)
    assert float((before - after).abs().max() / before.abs().max()) <= 1e-10
    assert bool(((rows - moved).abs().amax(1) > 0.1).all()), "every row was moved"
