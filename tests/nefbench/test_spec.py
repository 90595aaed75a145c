from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nefbench.spec import ParamSpec, TensorSpec

SHAPES = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5
)

# Rows of 11: bias (2), kernel (3 x 2), output (3).
SPEC = ParamSpec(
    (
        TensorSpec("a.bias", (2,), ("g",)),
        TensorSpec("a.kernel", (3, 2), (None, "g")),
        TensorSpec("frozen", (3,), ("f",), trainable=False),
    )
)
ROW = torch.arange(11.0)


@settings(deadline=None, max_examples=50)
@given(shapes=SHAPES, lead=st.lists(st.integers(1, 3), max_size=2), seed=st.integers(0, 99))
def test_flatten_inverts_unflatten_exactly(
    shapes: list[tuple[int, ...]], lead: list[int], seed: int
) -> None:
    spec = ParamSpec(
        tuple(TensorSpec(f"t{i}", shape, (None,) * len(shape)) for i, shape in enumerate(shapes))
    )
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*lead, spec.num_params, generator=generator)

    parts = spec.unflatten(rows)

    assert [tuple(part.shape) for part in parts.values()] == [(*lead, *shape) for shape in shapes]
    assert torch.equal(spec.flatten(parts), rows)


def test_tensors_lie_one_after_another_row_major() -> None:
    parts = SPEC.unflatten(ROW)

    assert list(parts) == ["a.bias", "a.kernel", "frozen"]
    assert parts["a.bias"].tolist() == [0, 1]
    assert parts["a.kernel"].tolist() == [[2, 3], [4, 5], [6, 7]]
    assert parts["frozen"].tolist() == [8, 9, 10]


def test_unflatten_gives_views() -> None:
    rows = torch.zeros(2, 11)

    SPEC.unflatten(rows)["a.kernel"][1, 2, 1] = 5.0

    assert rows[1, 7] == 5.0
    assert rows.sum() == 5.0


def test_flatten_reads_by_name_not_by_position() -> None:
    parts = SPEC.unflatten(ROW)

    assert torch.equal(SPEC.flatten(dict(reversed(parts.items()))), ROW)


def test_rows_of_another_length_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="expected rows of") as caught:
        SPEC.unflatten(torch.zeros(4, 12))
    assert str(caught.value) == (
        "expected rows of 11 weights (got shape (4, 12)); "
        "these rows were written with another field configuration"
    )


def test_slices_are_the_places_in_a_row() -> None:
    assert SPEC.slices() == {
        "a.bias": slice(0, 2),
        "a.kernel": slice(2, 8),
        "frozen": slice(8, 11),
    }
    assert SPEC.num_params == 11


def test_the_layout_lists_names_and_stored_shapes() -> None:
    assert SPEC.layout == (("a.bias", (2,)), ("a.kernel", (3, 2)), ("frozen", (3,)))


def test_groups_are_listed_in_order_of_appearance() -> None:
    assert list(SPEC.group_sizes.items()) == [("g", 2), ("f", 3)]


def test_a_view_gives_the_sizes_of_the_groups() -> None:
    spec = ParamSpec((TensorSpec("k", (6, 2), (None, "f", "g"), view=(2, 3, 2)),))

    assert spec.group_sizes == {"f": 3, "g": 2}
    assert spec.layout == (("k", (6, 2)),)


def test_the_mask_is_false_where_a_tensor_is_frozen() -> None:
    mask = SPEC.trainable_mask()

    assert mask is not None
    assert mask.tolist() == [True] * 8 + [False] * 3


def test_there_is_no_mask_when_everything_is_free() -> None:
    assert ParamSpec(SPEC.tensors[:2]).trainable_mask() is None


def test_permuting_moves_every_axis_of_a_group_together() -> None:
    permuted = SPEC.permute(ROW, {"g": torch.tensor([1, 0]), "f": torch.tensor([2, 0, 1])})

    # bias (0 1) -> (1 0); columns of (2 3 / 4 5 / 6 7) swapped; (8 9 10) -> (10 8 9)
    assert permuted.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 10, 8, 9]


def test_permuting_an_axis_of_a_view_moves_both_halves() -> None:
    spec = ParamSpec((TensorSpec("k", (4, 1), (None, "f", None), view=(2, 2, 1)),))

    assert spec.permute(torch.arange(4.0), {"f": torch.tensor([1, 0])}).tolist() == [1, 0, 3, 2]


def test_a_group_on_two_axes_moves_rows_and_columns() -> None:
    spec = ParamSpec((TensorSpec("k", (2, 2), ("s", "s")),))

    # (0 1 / 2 3) with rows and columns swapped is (3 2 / 1 0)
    assert spec.permute(torch.arange(4.0), {"s": torch.tensor([1, 0])}).tolist() == [3, 2, 1, 0]


def test_identity_permutations_and_groups_left_out_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 3, 11, generator=generator)
    identity = {group: torch.arange(size) for group, size in SPEC.group_sizes.items()}

    assert torch.equal(SPEC.permute(rows, identity), rows)
    assert torch.equal(SPEC.permute(rows, {}), rows)


def test_permuting_treats_every_row_alike_and_leaves_the_input_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 3, 11, generator=generator)
    before = rows.clone()
    order = {"f": torch.tensor([2, 0, 1])}

    permuted = SPEC.permute(rows, order)

    assert torch.equal(permuted[1, 2], SPEC.permute(rows[1, 2], order))
    assert torch.equal(rows, before)


def test_the_inverse_permutation_restores_the_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 11, generator=generator)
    order = torch.tensor([2, 0, 1])

    there = SPEC.permute(rows, {"f": order})

    assert torch.equal(SPEC.permute(there, {"f": order.argsort()}), rows)


def test_a_group_of_two_sizes_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"^b: group g has two sizes"):
        ParamSpec((TensorSpec("a", (2,), ("g",)), TensorSpec("b", (3,), ("g",))))


def test_axes_that_do_not_fit_the_shape_are_refused() -> None:
    with pytest.raises(AssertionError, match="a: one group id per axis"):
        TensorSpec("a", (2, 3), (None,))
    with pytest.raises(AssertionError, match="a: view has another size"):
        TensorSpec("a", (2, 3), (None, None), view=(2, 2))
