from __future__ import annotations

import pytest
import torch

from fitting import InitConfig, Random, Shared
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren
from nefbench.seeding import SHARED_INDEX, Draws

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=4),
    FourierNet(hidden_dim=4),
    GaborNet(hidden_dim=4),
    RFFNet(hidden_dim=4),
    MLP(hidden_dim=4),
]


def rows_of(
    init: InitConfig, field: FieldConfig, indices: list[int], seed: int = 0
) -> torch.Tensor:
    return init.rows(field, 2, 3, seed, indices)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_a_shared_start_is_one_draw_whatever_the_indices(field: FieldConfig) -> None:
    rows = rows_of(Shared(), field, [0, 5, 2**32 - 2])

    assert rows.shape == (3, field.spec(2, 3).num_params)
    assert torch.equal(rows, rows[:1].expand(3, -1))
    assert torch.equal(rows_of(Shared(), field, [99]), rows[:1])


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_a_random_start_is_another_draw_for_every_index(field: FieldConfig) -> None:
    rows = rows_of(Random(), field, [0, 1, 2, 1000])

    for tensor, place in field.spec(2, 3).slices().items():
        drawn = rows[:, place]
        if drawn.any():  # zero biases are the same for all
            assert len(drawn.unique(dim=0)) == 4, tensor


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.kind)
def test_a_random_start_does_not_depend_on_which_others_are_asked_for(field: FieldConfig) -> None:
    together = rows_of(Random(), field, [3, 1, 4, 1, 5])

    alone = torch.cat([rows_of(Random(), field, [index]) for index in (3, 1, 4, 1, 5)])
    assert torch.equal(together.view(torch.int32), alone.view(torch.int32))
    assert torch.equal(together[1], together[3])


@pytest.mark.parametrize("init", [Shared(), Random()], ids=lambda init: init.kind)
def test_another_seed_is_another_start(init: InitConfig) -> None:
    field = Siren(hidden_dim=4)
    drawn = torch.cat([rows_of(init, field, [7], seed) for seed in (0, 1, 2**32, 2**63 - 1)])

    assert len(drawn.unique(dim=0)) == 4
    assert torch.equal(rows_of(init, field, [7], 1), drawn[1:2])


def test_a_shared_start_is_none_of_the_random_ones() -> None:
    field = Siren(hidden_dim=4)
    shared = rows_of(Shared(), field, [0])

    assert all(not torch.equal(shared, rows_of(Random(), field, [i])) for i in range(20))


def test_a_start_is_what_the_field_itself_draws_laid_out_as_a_row() -> None:
    field = Siren(hidden_dim=4)
    params = field.init(2, 3, Draws(6, (8, 9)))
    shared = field.init(2, 3, Draws(6, (SHARED_INDEX,)))

    random_rows = field.spec(2, 3).unflatten(rows_of(Random(), field, [8, 9], 6))
    shared_rows = field.spec(2, 3).unflatten(rows_of(Shared(), field, [8, 9], 6))
    for name, value in params.items():
        assert torch.equal(random_rows[name], value)
        assert torch.equal(shared_rows[name], shared[name].expand(2, *shared[name].shape[1:]))


def test_shared_rows_do_not_share_memory() -> None:
    rows = rows_of(Shared(), Siren(hidden_dim=4), [0, 1])

    rows[0] += 1

    assert not torch.equal(rows[0], rows[1])
