"""Sine, cosine and the split of factors, each in Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

Evaluate = Callable[[str, Tensor], tuple[Tensor, Tensor]]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Both results of one of the kernels' functions: ``evaluate(name, numbers)``."""

    def run(name: str, numbers: Tensor) -> tuple[Tensor, Tensor]:
        program = Path(__file__).with_name("interpreted.py")
        given, answer = tmp_path / "given.pt", tmp_path / "answer.pt"
        torch.save(numbers, given)
        subprocess.run(
            [sys.executable, program, name, given, answer],
            env=os.environ | {"TRITON_INTERPRET": "1"}, check=True,
        )  # fmt: skip
        first, second = torch.load(answer)
        return first, second

    return run


def test_sine_and_cosine_are_those_of_float64_at_any_size_and_sign(evaluate: Evaluate) -> None:
    draw = torch.Generator().manual_seed(0)
    scales = [0.0, 1e-30, 1e-3, 0.5, 1.0, 1.5, 10.0, 1e3, 1e5, 4e6]
    half_turns = torch.cat(
        [scale * (2 * torch.rand(2000, generator=draw) - 1) for scale in scales]
        + [torch.arange(-8, 9) / 4]
    )

    sines, cosines = evaluate("sine", half_turns)

    angles = math.pi * half_turns.double().remainder(2)  # the remainder is exact
    # The reduction is exact; some six roundings of numbers up to 1 make 3e-7 (2e-7 in fact).
    assert (sines - angles.sin()).abs().max() < 3e-7
    assert (cosines - angles.cos()).abs().max() < 3e-7
    # A small sine is as exact as its size: 6e-8 each for the coefficient and two roundings.
    small = half_turns.abs() < 1e-3
    expected = (math.pi * half_turns[small].double()).sin()
    torch.testing.assert_close(sines[small].double(), expected, rtol=2e-7, atol=0)


def test_beyond_all_phase_a_sine_is_a_number_and_of_no_number_it_is_none(
    evaluate: Evaluate,
) -> None:
    large = torch.tensor([2.0**22, -(2.0**22), 1e7, 3e9, -1e30, 3e38])
    no_numbers = torch.tensor([math.inf, -math.inf, math.nan])

    sines, cosines = evaluate("sine", torch.cat([large, no_numbers]))

    assert (sines[:6] == 0).all()
    assert (cosines[:6] == 1).all()
    assert sines[6:].isnan().all()
    assert cosines[6:].isnan().all()


def test_a_factor_is_the_exact_sum_of_what_tf32_holds_and_a_small_rest(evaluate: Evaluate) -> None:
    draw = torch.Generator().manual_seed(0)
    numbers = torch.cat(
        [scale * torch.randn(1000, generator=draw) for scale in (1e-20, 1.0, 1e20)]
        + [torch.tensor([0.0, 1.0, -1.0, 1 + 2**-11, 1 + 2**-23])]
    )

    high, low = evaluate("split", numbers)

    assert ((high.view(torch.int32) & 0x1FFF) == 0).all()  # TF32 keeps 10 of 23 bits
    assert (low.abs() <= 2**-11 * numbers.abs()).all()  # half of the last of them
    assert torch.equal(high.double() + low.double(), numbers.double())


def test_three_products_of_parts_are_as_exact_as_float32(evaluate: Evaluate) -> None:
    numbers = torch.randn(2000, generator=torch.Generator().manual_seed(0))

    high, low = evaluate("split", numbers)

    held = (low.view(torch.int32) & ~0x1FFF).view(torch.float32).double()  # what TF32 drops of it
    high, exact = high.double(), numbers.double()[:1000] * numbers.double()[1000:]
    a, b, a_low, b_low = high[:1000], high[1000:], held[:1000], held[1000:]
    # Low times low is 2**-22 at most, and each low one loses 2**-23; float32 rounds to 2**-24.
    assert ((a_low * b + a * b_low + a * b - exact) / exact).abs().max() < 2**-21
    assert ((a * b - exact) / exact).abs().max() > 2**-12, "or one product would do"


def test_no_number_splits_into_one(evaluate: Evaluate) -> None:
    no_numbers = torch.tensor([math.inf, -math.inf, math.nan])
    no_numbers = torch.cat(
        [no_numbers, torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)]
    )

    high, low = evaluate("split", no_numbers)

    assert not (high + low).isfinite().any()
