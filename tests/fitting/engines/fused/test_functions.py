from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from llvmlite import ir

from fitting.engines.fused import compiler, functions
from fitting.engines.fused.emitter import INT64, POINTER, Emitter, Machine, Value


def run(function: Callable[[Emitter, Value], tuple[Value, ...]], x: np.ndarray) -> list[np.ndarray]:
    """Compute a function of vectors at every number of ``x``, 16 at a time."""
    module = ir.Module("test")
    module.triple = compiler.host_triple()
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, INT64])
    body = ir.Function(module, kind, "test")
    builder = ir.IRBuilder(body.append_basic_block("entry"))
    e = Emitter(builder, Machine(lanes=16, registers=32))
    source, target, count = body.args
    with e.loop(0, count, 16) as i:
        for k, result in enumerate(function(e, e.load(source, i, 16)[0])):
            e.store([result], target, e.add(e.multiply(count, k), i))
    builder.ret_void()
    size = -(-len(x) // 16) * 16
    numbers = torch.zeros(size)
    numbers[: len(x)] = torch.from_numpy(x.astype(np.float32))
    results = torch.zeros(2, size)
    kernel = compiler.compile_kernel(str(module), "test", 2)
    kernel([numbers.data_ptr(), results.data_ptr()], size)
    return [row[: len(x)].double().numpy() for row in results]


@pytest.mark.parametrize("largest", [0.5, 3.0, 100.0, 1e4])
def test_sine_and_cosine_of_half_turns_are_those_of_float64(largest: float) -> None:
    t = np.random.default_rng(0).uniform(-largest, largest, 100_000).astype(np.float32)
    exact = t.astype(np.float64)

    sine, cosine = run(functions.sine_and_cosine, t)

    # The remainder is exact. A factor near pi rounded to 1.2e-7 times at most 1/2, the rounding of
    # the result, 6e-8, and the polynomial's own error of 7e-9; for the cosine two more roundings.
    assert np.abs(sine - np.sin(np.pi * exact)).max() < 1.6e-7
    assert np.abs(cosine - np.cos(np.pi * exact)).max() < 2.5e-7


def test_the_sine_of_small_angles_keeps_its_relative_accuracy() -> None:
    t = np.geomspace(1e-20, 0.01, 1000).astype(np.float32)
    exact = np.sin(np.pi * t.astype(np.float64))

    sine, _ = run(functions.sine_and_cosine, t)

    assert np.abs(sine / exact - 1).max() < 3e-7


def test_half_turns_and_quarter_turns_are_exact() -> None:
    t = np.array([0.0, 0.5, 1.0, 1.5, -0.5, -1.0, 2.0, 1000.0])

    sine, cosine = run(functions.sine_and_cosine, t)

    np.testing.assert_allclose(sine, [0, 1, 0, -1, -1, 0, 0, 0], atol=1.2e-7)
    np.testing.assert_allclose(cosine, [1, 0, -1, 0, 0, -1, 1, 1], atol=1.2e-7)


def test_what_is_not_finite_has_no_sine() -> None:
    sine, cosine = run(functions.sine_and_cosine, np.array([np.inf, -np.inf, np.nan]))

    assert np.isnan(sine).all()
    assert np.isnan(cosine).all()


def test_the_logistic_function_is_that_of_float64() -> None:
    x = np.random.default_rng(0).uniform(-80, 80, 100_000).astype(np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))

    (logistic, _) = run(lambda e, v: (functions.logistic(e, v),), x)

    # Relative: x / log 2 is rounded to 3e-8 of itself, at most 7e-6 at x = 80.
    assert np.abs(logistic / exact - 1).max() < 1e-5
    assert np.abs(logistic - exact).max() < 2e-7


def test_the_logistic_function_saturates_and_keeps_what_is_not_a_number() -> None:
    logistic, _ = run(
        lambda e, v: (functions.logistic(e, v),), np.array([-1e30, -np.inf, 1e30, np.inf, np.nan])
    )

    np.testing.assert_allclose(logistic[:4], [0, 0, 1, 1], atol=1e-37)
    assert np.isnan(logistic[4])
