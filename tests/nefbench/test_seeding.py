from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import (
    SHARED_INDEX,
    Draws,
    derive_seed,
    permutation,
    philox,
    random_words,
)

ONES = 0xFFFFFFFF
INDEX = st.integers(0, SHARED_INDEX)
SEED = st.integers(0, 2**63 - 1)


# kat_vectors of Random123, philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox([np.array([word], dtype=np.uint64) for word in counter], key)

    assert tuple(int(word[0]) for word in words) == expected


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox-4x32-10 in Python integers, written from the paper."""
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * counter[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@settings(deadline=None, max_examples=50)
@given(seed=SEED, stream=st.text(max_size=8), index=INDEX, step=st.integers(0, 2**32 - 1))
def test_the_address_of_a_word_is_block_index_step_stream_and_seed(
    seed: int, stream: str, index: int, step: int
) -> None:
    crc = zlib.crc32(stream.encode())
    key = [seed % 2**32, seed // 2**32]
    expected = [word for block in range(3) for word in plain_philox([block, index, step, crc], key)]

    words = random_words(seed, stream, [index], 11, step)

    assert words.tolist() == [expected[:11]]


@settings(deadline=None, max_examples=50)
@given(indices=st.lists(INDEX, min_size=1, max_size=6), seed=SEED, size=st.integers(1, 9))
def test_words_of_an_index_do_not_depend_on_the_others_asked_for(
    indices: list[int], seed: int, size: int
) -> None:
    together = random_words(seed, "x", indices, size)

    assert together.shape == (len(indices), size)
    for row, index in zip(together, indices, strict=True):
        assert np.array_equal(row, random_words(seed, "x", [index], size)[0])


@settings(deadline=None, max_examples=30)
@given(indices=st.lists(st.integers(0, 10**6), min_size=1, max_size=5), seed=SEED)
def test_draws_of_an_index_do_not_depend_on_the_others_asked_for(
    indices: list[int], seed: int
) -> None:
    def draw(some: list[int]) -> list[torch.Tensor]:
        draws = Draws(seed, tuple(some))
        return [
            draws.uniform("a", (2, 3), 0.5),
            draws.normal("b", (5,), 2.0),
            draws.gamma("c", (3,), 1.5),
        ]

    for all_rows, *single in zip(draw(indices), *(draw([i]) for i in indices), strict=True):
        assert torch.equal(all_rows, torch.cat(single))


def test_a_longer_draw_starts_with_the_shorter_one() -> None:
    assert np.array_equal(random_words(3, "x", [5], 12)[:, :7], random_words(3, "x", [5], 7))


def test_indices_may_be_a_tensor() -> None:
    assert np.array_equal(
        random_words(3, "x", torch.tensor([5, 2]), 4), random_words(3, "x", [5, 2], 4)
    )


@pytest.mark.parametrize(
    "other",
    [
        random_words(1, "x", [5], 64, 2),
        random_words(2**32, "x", [5], 64, 2),
        random_words(0, "y", [5], 64, 2),
        random_words(0, "x", [6], 64, 2),
        random_words(0, "x", [5], 64, 3),
    ],
    ids=["low seed word", "high seed word", "stream", "index", "step"],
)
def test_every_part_of_the_address_changes_the_words(other: np.ndarray) -> None:
    words = random_words(0, "x", [5], 64, 2)

    # Two independent words are equal with probability 2**-32.
    assert not (words == other).any()


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"expected a seed from 0 to .* \(got {seed}\)"):
        random_words(seed, "x", [0], 1)


@pytest.mark.parametrize("step", [-1, 2**32])
def test_a_step_out_of_range_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=rf"expected a step from 0 to .* \(got {step}\)"):
        permutation(0, "x", 3, step)


@pytest.mark.parametrize("index", [-1, 2**32])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"expected indices from 0 to .* \(got {index}\)"):
        random_words(0, "x", [3, index], 1)


def test_the_ends_of_the_ranges_are_valid() -> None:
    assert random_words(2**63 - 1, "x", [0, SHARED_INDEX], 4, 2**32 - 1).max() < 2**32


UNIFORM, NORMAL, GAMMA, SMALL_GAMMA = (
    lambda draws: draws.uniform("t", (50, 100), 0.25),
    lambda draws: draws.normal("t", (50, 100), 3.0),
    lambda draws: draws.gamma("t", (50, 100), 1.5),
    lambda draws: draws.gamma("t", (50, 100), 0.4),
)


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (UNIFORM, stats.uniform(-0.25, 0.5)),
        (NORMAL, stats.norm(0, 3.0)),
        (GAMMA, stats.gamma(1.5)),
        (SMALL_GAMMA, stats.gamma(0.4)),
    ],
    ids=["uniform", "normal", "gamma", "gamma below 1"],
)
def test_draws_follow_their_law(
    draw: Callable[[Draws], torch.Tensor], law: stats.rv_frozen
) -> None:
    values = draw(Draws(7, tuple(range(20))))
    assert values.dtype == torch.float32
    assert values.shape == (20, 50, 100)
    sample = values.double().flatten().numpy()

    # 100 000 draws: the standard error of the mean is std / 316; four of them.
    assert abs(sample.mean() - law.mean()) < 4 * law.std() / np.sqrt(sample.size)
    assert sample.std() == pytest.approx(law.std(), rel=0.015)
    assert stats.kstest(sample, law.cdf).pvalue > 0.01


def test_neighbouring_draws_are_uncorrelated() -> None:
    values = Draws(1, tuple(range(200))).normal("t", (200,), 1.0).double().numpy()
    limit = 4 / np.sqrt(200 * 199)

    assert abs((values[:, 1:] * values[:, :-1]).mean()) < limit
    assert abs((values[1:] * values[:-1]).mean()) < limit


def test_uniform_draws_stay_inside_the_bound_and_come_near_it() -> None:
    values = Draws(0, tuple(range(10))).uniform("t", (10_000,), 0.1)

    assert values.abs().max() <= np.float32(0.1)
    assert values.min() < -0.0999
    assert values.max() > 0.0999


def test_equal_indices_give_equal_draws() -> None:
    values = Draws(0, (4, 9, 4)).normal("t", (3,), 1.0)

    assert torch.equal(values[0], values[2])
    assert not torch.equal(values[0], values[1])


def test_tensors_of_other_names_are_drawn_independently() -> None:
    draws = Draws(0, (0,))

    assert not torch.equal(draws.normal("a", (3,), 1.0), draws.normal("b", (3,), 1.0))


def test_zeros_have_one_row_per_field() -> None:
    assert torch.equal(Draws(0, (1, 2)).zeros((3, 4)), torch.zeros(2, 3, 4))


@settings(deadline=None, max_examples=30)
@given(seed=SEED, size=st.integers(0, 200), step=st.integers(0, 1000))
def test_a_permutation_holds_every_number_once(seed: int, size: int, step: int) -> None:
    order = permutation(seed, "x", size, step)

    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(size))


def test_a_permutation_is_repeatable_and_changes_with_step_seed_and_stream() -> None:
    first = permutation(0, "a", 50)

    assert torch.equal(first, permutation(0, "a", 50))
    assert not torch.equal(first, permutation(0, "a", 50, step=1))
    assert not torch.equal(first, permutation(1, "a", 50))
    assert not torch.equal(first, permutation(0, "b", 50))


def test_all_orders_of_three_items_are_equally_likely() -> None:
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    for step in range(1200):
        counts[tuple(permutation(5, "x", 3, step).tolist())] += 1

    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_a_derived_seed_is_the_first_word_of_the_shared_index() -> None:
    assert derive_seed(3, "x", 7) == int(random_words(3, "x", [SHARED_INDEX], 1, 7)[0, 0])
    assert len({derive_seed(3, "x", step) for step in range(100)}) == 100


LARGE_FIELDS: tuple[FieldConfig, ...] = (
    Siren(num_layers=40),
    FourierNet(num_filters=40),
    GaborNet(num_filters=40),
    RFFNet(num_layers=40),
    MLP(num_layers=40),
    ShapeNet(num_blocks=40),
)


@pytest.mark.parametrize("field", LARGE_FIELDS, ids=lambda field: field.kind)
def test_no_two_tensors_of_a_field_share_a_stream(field: FieldConfig) -> None:
    names = [tensor.name for tensor in field.spec(2, 3).tensors]

    assert len(names) >= 80
    assert len({zlib.crc32(f"init/{name}".encode()) for name in names}) == len(names)
