"""The function gate: a group element changes the weights and not the function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

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
from nefbench.spec import ParamSpec, UnitSymmetry
from nefbench.weights.symmetries import (
    PERMUTATION,
    GroupElement,
    act,
    random_element,
    symmetry_kinds,
)

NUM_ROWS = 8
INDICES = tuple(range(NUM_ROWS))
PERIODS = 80
"""Phase steps are half periods: up to 40 periods."""
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
DIMS = [(2, 3), (3, 1), (1, 2)]
over_fields = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
over_dims = pytest.mark.parametrize(("in_dim", "out_dim"), DIMS)


def some_rows(spec: ParamSpec) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_ROWS, spec.num_params, dtype=torch.float64, generator=generator)


def difference(field: FieldConfig, dims: tuple[int, int], rows: Tensor, others: Tensor) -> float:
    """Largest difference of the values at 256 points, relative to the largest value of its row."""
    spec = field.spec(*dims)
    generator = torch.Generator().manual_seed(1)
    coords = 2 * torch.rand(256, dims[0], dtype=torch.float64, generator=generator) - 1
    values, other_values = (evaluate(field, spec, some, coords) for some in (rows, others))
    return float(((values - other_values).abs().amax((1, 2)) / values.abs().amax((1, 2))).max())


def element_of(spec: ParamSpec, kinds: list[str] | None = None, seed: int = 0) -> GroupElement:
    return random_element(spec, Draws(seed, INDICES), kinds, max_phase=PERIODS, max_scale=100)


def generators() -> Iterator[object]:
    for name, field in FIELDS.items():
        for kind in (*symmetry_kinds(field.spec(2, 3)), "all"):
            yield pytest.param(field, kind, id=f"{name}-{kind}")


@over_dims
@pytest.mark.parametrize(("field", "kind"), list(generators()))
def test_a_group_element_keeps_the_function(
    field: FieldConfig, kind: str, in_dim: int, out_dim: int
) -> None:
    spec = field.spec(in_dim, out_dim)
    rows = some_rows(spec)

    moved = act(spec, rows, element_of(spec, None if kind == "all" else [kind]))

    assert difference(field, (in_dim, out_dim), rows, moved) <= 1e-10
    is_moved = (rows - moved).abs().amax(1) > 1e-2
    assert is_moved.double().mean() > 0.5


@over_dims
@over_fields
def test_a_word_of_several_elements_keeps_the_function(
    field: FieldConfig, in_dim: int, out_dim: int
) -> None:
    spec = field.spec(in_dim, out_dim)
    rows = some_rows(spec)
    moved = rows

    for seed, kind in enumerate([*symmetry_kinds(spec), *reversed(symmetry_kinds(spec))]):
        element = random_element(spec, Draws(seed, INDICES), [kind], max_phase=8, max_scale=10)
        moved = act(spec, moved, element)

    assert difference(field, (in_dim, out_dim), rows, moved) <= 1e-10


def test_the_kinds_of_every_family() -> None:
    kinds = {name: set(symmetry_kinds(field.spec(2, 3))) for name, field in FIELDS.items()}

    assert kinds == {
        "siren": {"permutation", "sign", "phase"},
        "siren-paper": {"permutation", "sign", "phase"},
        "fouriernet": {"permutation", "sign", "filter-sign", "scale", "phase"},
        "gabornet": {"permutation", "sign", "filter-sign", "scale", "phase"},
        "rffnet": {"permutation", "sign", "scale"},
        "rffnet-frozen": {"permutation", "scale"},
        "mlp": {"permutation", "scale"},
        "shapenet": {"permutation", "sign", "phase"},
        "shapenet-sine": {"permutation", "sign", "phase"},
        "shapenet-tanh": {"permutation", "sign"},
        "shapenet-swish": {"permutation"},
    }


# What is drawn


def test_parameters_stay_in_their_ranges_and_reach_their_ends() -> None:
    spec = FourierNet(hidden_dim=16).spec(2, 1)
    draws = Draws(0, tuple(range(200)))

    element = random_element(spec, draws, max_phase=2, max_scale=100.0)

    for order in element.permutations.values():
        assert torch.equal(order.sort(1).values, torch.arange(16).expand(200, -1))
    assert set(element.parameters["g1", "phase"].unique().tolist()) == {-2, -1, 0, 1, 2}
    assert set(element.parameters["g1", "sign"].unique().tolist()) == {-1, 1}
    scale = element.parameters["g1", "scale"]
    assert 0.01 <= float(scale.min()) < 0.012
    assert 80 < float(scale.max()) <= 100
    assert float(scale.log().mean()) == pytest.approx(0, abs=0.1)


def test_groups_kinds_and_windings_are_drawn_independently() -> None:
    element = element_of(ShapeNet(hidden_dim=8).spec(2, 1))

    values = [tuple(parameter.flatten().tolist()) for parameter in element.parameters.values()]
    values += [tuple(order.flatten().tolist()) for order in element.permutations.values()]
    assert len(values) == 11  # s: sign, phase, 2 windings; t0, t1: sign, phase; 3 orders
    assert len(set(values)) == len(values)


@over_fields
def test_the_element_of_an_index_does_not_depend_on_the_other_indices(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    together = random_element(spec, Draws(3, (5, 0, 9, 5)))

    for place, index in enumerate((5, 0, 9, 5)):
        alone = random_element(spec, Draws(3, (index,)))
        for key, parameter in together.parameters.items():
            assert torch.equal(parameter[place], alone.parameters[key][0])
        for group, order in together.permutations.items():
            assert torch.equal(order[place], alone.permutations[group][0])


def test_kinds_that_are_not_asked_for_stay_at_the_identity() -> None:
    spec = FourierNet(hidden_dim=4).spec(2, 1)

    assert not element_of(spec, ["scale"]).permutations
    assert {key[1] for key in element_of(spec, ["scale"]).parameters} == {"scale"}
    assert not element_of(spec, [PERMUTATION]).parameters
    rows = some_rows(spec)
    assert torch.equal(act(spec, rows, element_of(spec, [])), rows)


def test_one_element_by_hand() -> None:
    # Row of 1-2-1: biases (.5, .25), kernel (2, 3), output bias 7, output kernel (11, 13).
    # Unit 0 is negated, unit 1 takes 3 half periods of pi / 2 more; then both change places.
    spec = Siren(hidden_dim=2, num_layers=2, omega_0=2.0).spec(1, 1)
    row = torch.tensor([[0.5, 0.25, 2.0, 3.0, 7.0, 11.0, 13.0]])
    element = GroupElement(
        {"h0": torch.tensor([[1, 0]])},
        {("h0", "sign"): torch.tensor([[-1, 1]]), ("h0", "phase"): torch.tensor([[0, 3]])},
    )

    moved = act(spec, row, element)

    expected = torch.tensor([[0.25 + 1.5 * math.pi, -0.5, 3.0, -2.0, 7.0, -13.0, -11.0]])
    torch.testing.assert_close(moved, expected)


# What is no symmetry


def without_one_part(symmetry: UnitSymmetry) -> Iterator[UnitSymmetry]:
    """Leave out one slot or one shift, or shift by three quarters."""
    for place in range(len(symmetry.slots)):
        rest = (*symmetry.slots[:place], *symmetry.slots[place + 1 :])
        yield replace(symmetry, slots=rest)
    for place, (bias, amount) in enumerate(symmetry.shifts):
        others = (*symmetry.shifts[:place], *symmetry.shifts[place + 1 :])
        yield replace(symmetry, shifts=(*others, (bias, 0.75 * amount)))
        if symmetry.slots:
            yield replace(symmetry, shifts=others)


@over_fields
def test_a_symmetry_that_misses_any_part_changes_the_function(field: FieldConfig) -> None:
    """A sign or a scale without the outgoing weights, a phase without them, one bias of several."""
    spec = field.spec(2, 3)
    rows = some_rows(spec)

    for symmetry in spec.symmetries:
        for broken in without_one_part(symmetry):
            wrong = ParamSpec(spec.tensors, (broken,))
            element = random_element(wrong, Draws(0, INDICES), [symmetry.kind], max_phase=3)
            moved = act(wrong, rows, element)
            assert difference(field, (2, 3), rows, moved) > 1e-2, broken


@over_fields
def test_inputs_and_outputs_are_not_exchangeable(field: FieldConfig) -> None:
    spec = field.spec(2, 3)
    rows = some_rows(spec)
    inputs, outputs = spec.unflatten(rows), spec.unflatten(rows)
    for tensor in spec.tensors:
        if tensor.axes[-1] is None:
            outputs[tensor.name] = outputs[tensor.name].roll(1, -1)
        if len(tensor.axes) == 2 and tensor.axes[0] is None:
            inputs[tensor.name] = inputs[tensor.name].roll(1, -2)

    for parts in (inputs, outputs):
        assert difference(field, (2, 3), rows, spec.flatten(parts)) > 1e-1


def test_sine_and_cosine_of_a_frequency_move_together() -> None:
    field = RFFNet(hidden_dim=8)
    spec = field.spec(2, 3)
    rows = some_rows(spec)

    def moved(halves: tuple[int, ...]) -> Tensor:
        parts = spec.unflatten(rows)
        kernel = parts["layers_0.linear.kernel"].clone().unflatten(1, (2, 4))
        for half in halves:  # 0: sines, 1: cosines
            kernel[:, half] = kernel[:, half].roll(1, 1)
        coefficients = parts["encoding.coefficients.kernel"].roll(1, 2)
        parts["encoding.coefficients.kernel"] = coefficients
        parts["layers_0.linear.kernel"] = kernel.flatten(1, 2)
        return spec.flatten(parts)

    assert difference(field, (2, 3), rows, moved((0, 1))) <= 1e-10
    assert difference(field, (2, 3), rows, moved((0,))) > 1e-1
    assert difference(field, (2, 3), rows, moved((1,))) > 1e-1


@pytest.mark.parametrize("block", ["shortcut", "residual"])
def test_blocks_on_one_stream_cannot_be_permuted_each_on_its_own(block: str) -> None:
    field = ShapeNet(hidden_dim=6, num_blocks=2, block=block, omega_0=1.0)
    spec = field.spec(2, 3)
    rows = some_rows(spec)

    def moved(prefix: str) -> Tensor:
        """Permute the stream's axes in the tensors of one block, or in all."""
        tensors = tuple(
            tensor
            if tensor.name.startswith(prefix)
            else replace(tensor, axes=(None,) * len(tensor.axes))
            for tensor in spec.tensors
        )
        return ParamSpec(tensors).permute(rows, {"s": torch.arange(6).roll(1)})

    assert difference(field, (2, 3), rows, moved("")) <= 1e-10
    for prefix in ("blocks_0", "blocks_1", "blocks"):
        assert difference(field, (2, 3), rows, moved(prefix)) > 1e-1


def test_the_filters_of_a_multiplicative_network_have_no_single_order() -> None:
    """Every filter has its own: filter i, the map before it and the rows of the map after it."""
    field = FourierNet(hidden_dim=6, num_filters=3)
    spec = field.spec(2, 3)
    rows = some_rows(spec)
    order = {"g1": torch.arange(6).roll(1)}

    assert difference(field, (2, 3), rows, spec.permute(rows, order)) <= 1e-10
    tied = [tensor.name for tensor in spec.tensors if "g1" in tensor.axes]
    assert tied == [
        "filters_1.linear.bias", "filters_1.linear.kernel",
        "linears_0.bias", "linears_0.kernel", "linears_1.kernel",
    ]  # fmt: skip


def test_two_symmetries_of_one_group_and_kind_need_names() -> None:
    spec = Siren(hidden_dim=2).spec(1, 1)
    sign = spec.symmetries[0]

    with pytest.raises(AssertionError, match="need names"):
        ParamSpec(spec.tensors, (sign, sign))
    named = ParamSpec(spec.tensors, (sign, replace(sign, name="again")))
    assert symmetry_kinds(named) == ("permutation", "sign")
    assert set(element_of(named).parameters) == {("h0", "sign"), ("h0", "again")}
