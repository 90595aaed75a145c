from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fitting import FitConfig, FromFile, InitConfig, Meta, Random, Shared
from nefbench.config import apply_overrides, config_from_mapping, config_to_mapping
from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import SHARED_INDEX, Draws
from nefbench.weights.start_file import StartFile, checksum_of, write_start_file

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=4),
    FourierNet(hidden_dim=4),
    GaborNet(hidden_dim=4),
    RFFNet(hidden_dim=4),
    MLP(hidden_dim=4),
    ShapeNet(hidden_dim=4),
]


def rows_of(
    init: InitConfig, field: FieldConfig, indices: list[int], seed: int = 0
) -> torch.Tensor:
    return init.rows(field, 2, 3, Draws(seed, tuple(indices)))


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


@pytest.fixture
def start_file(tmp_path: Path) -> Path:
    field = Siren(hidden_dim=4)
    params = torch.randn(1, field.spec(2, 3).num_params, generator=torch.Generator().manual_seed(0))
    write_start_file(tmp_path / "start.npz", StartFile(field, 2, 3, params))
    return tmp_path / "start.npz"


def test_a_start_from_a_file_is_its_weights_for_every_signal_seed_and_view(
    start_file: Path,
) -> None:
    for sha256 in (None, checksum_of(start_file)):
        init = FromFile(path=start_file, sha256=sha256)

        rows = init.rows(Siren(hidden_dim=4), 2, 3, Draws(5, (0, 7, 2**32 - 2), 1))

        assert rows.shape == (3, Siren(hidden_dim=4).spec(2, 3).num_params)
        assert torch.equal(rows, rows_of(init, Siren(hidden_dim=4), [1]).expand(3, -1))
        rows[0] += 1
        assert not torch.equal(rows[0], rows[1])


def test_a_start_from_a_file_of_another_field_is_refused(start_file: Path) -> None:
    with pytest.raises(DatasetFormatError, match=r"field.hidden_dim = 4 there, 8 here"):
        rows_of(FromFile(path=start_file), Siren(hidden_dim=8), [0])
    with pytest.raises(DatasetFormatError, match="not the start file that was asked for"):
        rows_of(FromFile(path=start_file, sha256="1" * 64), Siren(hidden_dim=4), [0])


def test_a_meta_start_has_no_rows_before_it_was_learned() -> None:
    with pytest.raises(ConfigError, match="has to be learned first"):
        rows_of(Meta(), Siren(hidden_dim=4), [0])


def test_what_is_usual_depends_on_the_algorithm_and_can_be_written_out() -> None:
    assert Meta().filled_in() == Meta(inner_steps=2, outer_learning_rate=3e-3)
    reptile = Meta(algorithm="reptile").filled_in()
    assert (reptile.inner_steps, reptile.outer_learning_rate) == (10, 0.5)
    assert Meta(algorithm="reptile", inner_steps=3).filled_in().inner_steps == 3
    assert reptile.filled_in() == reptile


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_steps": 0}, "expected inner_steps >= 1"),
        ({"outer_steps": 0}, "expected outer_steps >= 1"),
        ({"tasks_per_step": -1}, "expected tasks_per_step >= 1"),
        ({"inner_learning_rate": 0.0}, "expected inner_learning_rate > 0"),
        ({"outer_learning_rate": float("nan")}, "expected outer_learning_rate > 0"),
        ({"algorithm": "reptile", "learn_step_sizes": True}, "reptile has no inner gradient"),
        ({"algorithm": "reptile", "outer_learning_rate": 1.5}, "expected outer_learning_rate <= 1"),
    ],
)
def test_a_meta_start_that_cannot_be_learned_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Meta(**settings)


def test_a_checksum_is_64_hexadecimal_digits() -> None:
    for wrong in ("", "abc", "A" * 64, "0" * 63):
        with pytest.raises(ValueError, match="expected sha256 as 64 hexadecimal digits"):
            FromFile(path=Path("x"), sha256=wrong)


@pytest.mark.parametrize(
    ("overrides", "init"),
    [
        (["init.kind=file", "init.path=a/start.npz"], FromFile(path=Path("a/start.npz"))),
        (["init=meta", "init.algorithm=reptile"], Meta(algorithm="reptile")),
        (["init.kind=meta", "init.learn_step_sizes=true"], Meta(learn_step_sizes=True)),
    ],
)
def test_starts_are_named_on_the_command_line_and_come_back_from_a_record(
    overrides: list[str], init: InitConfig
) -> None:
    config = config_from_mapping(FitConfig, apply_overrides({"init": "shared"}, overrides))

    assert config.init == init
    assert config_from_mapping(FitConfig, config_to_mapping(config)) == config
