from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

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
from nefbench.spec import ParamSpec
from nefbench.weights.canonical import balance_scales, canonicalise
from nefbench.weights.symmetries import act, random_element, symmetry_kinds

NUM_ROWS = 8
FIELDS: dict[str, FieldConfig] = {
    "siren": Siren(hidden_dim=6, omega_0=30.0),
    "siren-paper": Siren(hidden_dim=5, num_layers=5, omega_0=2.0, preset="paper"),
    "fouriernet": FourierNet(hidden_dim=6),
    "gabornet": GaborNet(hidden_dim=6, num_filters=3),
    "rffnet": RFFNet(hidden_dim=8, num_layers=4),
    "rffnet-frozen": RFFNet(hidden_dim=8, learnable_coefficients=False),
    "mlp": MLP(hidden_dim=6),
    "shapenet": ShapeNet(hidden_dim=6, omega_0=2.0),
    "shapenet-sine": ShapeNet(hidden_dim=5, num_blocks=3, block="shortcut", omega_0=0.7),
    "shapenet-tanh": ShapeNet(hidden_dim=6, block="shortcut", activation="tanh"),
    "shapenet-swish": ShapeNet(hidden_dim=6, block="shortcut", activation="swish"),
}
over_fields = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
over_dims = pytest.mark.parametrize(("in_dim", "out_dim"), [(2, 3), (3, 1), (1, 2)])


def some_rows(spec: ParamSpec) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_ROWS, spec.num_params, dtype=torch.float64, generator=generator)


def moved(spec: ParamSpec, rows: Tensor, kinds: list[str] | None = None) -> Tensor:
    draws = Draws(0, tuple(range(len(rows))))
    return act(spec, rows, random_element(spec, draws, kinds, max_phase=80, max_scale=100))


@over_dims
@over_fields
def test_the_canonical_form_computes_the_same_function(
    field: FieldConfig, in_dim: int, out_dim: int
) -> None:
    spec = field.spec(in_dim, out_dim)
    rows = some_rows(spec)
    coords = 2 * torch.rand(256, in_dim, dtype=torch.float64) - 1

    result = canonicalise(field, in_dim, out_dim, rows)

    before, after = evaluate(field, spec, rows, coords), evaluate(field, spec, result, coords)
    difference = (before - after).abs().amax((1, 2)) / before.abs().amax((1, 2))
    assert float(difference.max()) <= 1e-10


@over_dims
@over_fields
def test_the_canonical_form_is_one_per_orbit(field: FieldConfig, in_dim: int, out_dim: int) -> None:
    spec = field.spec(in_dim, out_dim)
    rows = some_rows(spec)
    result = canonicalise(field, in_dim, out_dim, rows)

    for kinds in (*([kind] for kind in symmetry_kinds(spec)), None):
        again = canonicalise(field, in_dim, out_dim, moved(spec, rows, kinds))
        torch.testing.assert_close(again, result, rtol=0, atol=1e-11)


@over_fields
def test_the_canonical_form_is_its_own(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    result = canonicalise(field, 2, 3, some_rows(spec))

    again = canonicalise(field, 2, 3, result)

    torch.testing.assert_close(again, result, rtol=1e-14, atol=1e-14)
    assert bool((result != some_rows(spec)).any(1).all())


@over_fields
def test_other_functions_have_other_forms(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    result = canonicalise(field, 2, 3, some_rows(spec))

    assert float(torch.pdist(result).min()) > 0.1


@pytest.mark.parametrize("preset", ["fit-a-nef", "paper"])
def test_a_siren_by_hand(preset: str) -> None:
    # One input, two units, omega_0 2: half a period of the bias is pi / 2, or pi in preset paper.
    field = Siren(hidden_dim=2, num_layers=2, omega_0=2.0, preset=preset)
    half = math.pi / (1 if preset == "paper" else 2)
    row = torch.tensor([[0.1 + 3 * half, 0.2, 5.0, -3.0, 7.0, 11.0, 13.0]], dtype=torch.float64)

    result = canonicalise(field, 1, 1, row)

    # Unit 1 is negated: kernel 3, bias -0.2, out -13. Unit 0 loses 3 half periods: bias 0.1, out
    # -11. The smaller kernel comes first.
    expected = torch.tensor([[-0.2, 0.1, 3.0, 5.0, 7.0, -13.0, -11.0]], dtype=torch.float64)
    torch.testing.assert_close(result, expected)


def test_biases_of_sines_lie_in_half_a_period_and_kernels_have_positive_sums() -> None:
    field = Siren(hidden_dim=32)
    spec = field.spec(2, 1)

    parts = spec.unflatten(canonicalise(field, 2, 1, some_rows(spec)))

    for layer in ("kernel_net_0.linear", "kernel_net_1.linear"):
        bias, kernel = parts[f"{layer}.bias"] * 30, parts[f"{layer}.kernel"]
        assert -math.pi / 2 - 1e-12 <= float(bias.min()) < float(bias.max()) < math.pi / 2 + 1e-12
        assert float(kernel.sum(1).min()) >= 0
        norms = kernel.norm(dim=1)
        assert torch.equal(norms, norms.sort(dim=1).values)


def test_a_bias_on_the_branch_cut_stays_where_it_is() -> None:
    field = Siren(hidden_dim=1, num_layers=2, omega_0=1.0, preset="paper")
    half = math.pi / 2
    for kernel, bias in ((2.0, -half), (2.0, half), (-2.0, half), (-2.0, -half)):
        row = torch.tensor([[bias, kernel, 0.0, 1.0]], dtype=torch.float64)
        result = canonicalise(field, 1, 1, row)

        assert result[0, :2].tolist() == [-half, 2.0]
        assert torch.equal(canonicalise(field, 1, 1, result), result)


@pytest.mark.parametrize("name", ["fouriernet", "gabornet", "rffnet", "mlp"])
def test_units_with_a_scale_receive_and_send_the_same_norm(name: str) -> None:
    field = FIELDS[name]
    spec = field.spec(2, 3)
    rows = moved(spec, some_rows(spec), ["scale"])

    parts = spec.unflatten(canonicalise(field, 2, 3, rows))

    for symmetry in spec.symmetries:
        if symmetry.kind == "scale":
            bias, kernel, leaving = (parts[slot.tensor] for slot in symmetry.slots)
            entering = bias.square() + kernel.square().sum(1)
            torch.testing.assert_close(entering, leaving.square().sum(2), rtol=1e-12, atol=0)


def test_balanced_rows_are_the_shortest_of_their_orbit() -> None:
    spec = MLP(hidden_dim=6).spec(2, 3)
    rows, scales = balance_scales(spec, moved(spec, some_rows(spec), ["scale"]))

    for seed in range(20):
        draws = Draws(seed, tuple(range(NUM_ROWS)))
        element = random_element(spec, draws, ["scale"], max_scale=1.1)
        assert bool((act(spec, rows, element).norm(dim=1) > rows.norm(dim=1)).all())
    assert set(scales) == {("h0", "scale"), ("h1", "scale"), ("h2", "scale")}


def test_a_unit_without_input_or_output_keeps_its_scale() -> None:
    field = MLP(hidden_dim=2, num_layers=1)
    # Unit 0 has bias 0 and kernel 0; unit 1 has bias 3, kernel 4 and sends nothing.
    row = torch.tensor([[0.0, 3.0, 0.0, 4.0, 1.0, 2.0, 0.0]], dtype=torch.float64)

    assert torch.equal(canonicalise(field, 1, 1, row), row)


def test_the_dtype_stays_and_no_rows_are_no_rows() -> None:
    field = FourierNet(hidden_dim=3, num_filters=2)
    rows = some_rows(field.spec(2, 1)).float()

    assert canonicalise(field, 2, 1, rows).dtype == torch.float32
    assert canonicalise(field, 2, 1, rows[:0]).shape == rows[:0].shape


def test_one_row_does_not_change_another() -> None:
    field = FourierNet(hidden_dim=3, num_filters=2)
    rows = some_rows(field.spec(2, 1))
    broken = rows.clone()
    broken[1, 3] = math.nan

    together = canonicalise(field, 2, 1, broken)

    alone = canonicalise(field, 2, 1, rows[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-13, atol=1e-13)
