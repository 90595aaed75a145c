"""Sine with cosine, and the logistic function, as polynomials on float32 vectors.

Arguments of the sine are in half-turns, ``t = z / pi``: with ``k = rint(t)`` and ``r = t - k`` in
[-1/2, 1/2], both exact, ``sin z = (-1)^k sin(pi r)`` and the same for the cosine. The polynomials
are least-squares fits at Chebyshev points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from fitting.engines.fused.emitter import INT32, Emitter, Value

_ROUND = 1.5 * 2.0**23
"""Adding this to a float below 2**22 in size rounds it; the last bit of the sum is its parity."""
_LARGEST_EXPONENT = 87.0
"""``exp`` of this and of its negative are normal float32 numbers."""


def _fitted(
    function: Callable[[np.ndarray], np.ndarray], low: float, high: float, num_terms: int
) -> list[float]:
    """Coefficients of a polynomial in ``x`` close to a function on [low, high]."""
    nodes = np.cos((np.arange(400) + 0.5) * np.pi / 400)
    x = low + (high - low) * (nodes + 1) / 2
    series = np.polynomial.Chebyshev.fit(x, function(x), num_terms - 1, domain=[low, high])
    return [float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef]


def _sine_ratio(square: np.ndarray) -> np.ndarray:
    root = np.sqrt(square)
    return np.asarray(np.pi * np.sinc(root))


SINE = _fitted(_sine_ratio, 0.0, 0.25, 5)
"""``sin(pi r) / r`` in powers of ``r^2``: error below 7e-9 for ``|r| <= 1/2``."""
COSINE = _fitted(lambda square: np.cos(np.pi * np.sqrt(square)), 0.0, 0.25, 5)
"""``cos(pi r)`` in powers of ``r^2``: error below 1e-7; it only enters gradients."""
EXP2 = _fitted(np.exp2, -0.5, 0.5, 7)
"""``2^r`` in powers of ``r``: relative error below 1e-8 for ``|r| <= 1/2``."""


def sine_and_cosine(e: Emitter, half_turns: Value) -> tuple[Value, Value]:
    """Return ``sin(pi t)`` and ``cos(pi t)``.

    Valid to ``|t| = 2**22``, where float32 half-turns are whole numbers anyway; beyond, the values
    are finite but no sines. Not finite in, not finite out.
    """
    builder = e.builder
    magic = e.splat(_ROUND, half_turns)
    shifted = builder.fadd(half_turns, magic)
    remainder = builder.fsub(half_turns, builder.fsub(shifted, magic))
    square = builder.fmul(remainder, remainder)
    sine = builder.fmul(_polynomial(e, SINE, square), remainder)
    cosine = _polynomial(e, COSINE, square)
    count = half_turns.type.count
    integers = ir.VectorType(INT32, count)
    bits = builder.bitcast(shifted, integers)
    sign = builder.shl(bits, ir.Constant(integers, [31] * count))

    def signed(value: Value) -> Value:
        flipped = builder.xor(builder.bitcast(value, integers), sign)
        return builder.bitcast(flipped, half_turns.type)

    return signed(sine), signed(cosine)


def logistic(e: Emitter, value: Value) -> Value:
    """Return ``1 / (1 + exp(-x))``; not a number stays not a number."""
    builder = e.builder
    bound = e.splat(_LARGEST_EXPONENT, value)
    below = builder.fcmp_ordered(">", value, bound)
    clamped = builder.select(below, bound, value)
    above = builder.fcmp_ordered("<", clamped, e.splat(-_LARGEST_EXPONENT, value))
    clamped = builder.select(above, e.splat(-_LARGEST_EXPONENT, value), clamped)
    magic = e.splat(_ROUND, value)
    shifted = e.fma(clamped, e.splat(-1 / math.log(2), value), magic)
    whole = builder.fsub(shifted, magic)
    fraction = e.fma(clamped, e.splat(-1 / math.log(2), value), builder.fneg(whole))
    count = value.type.count
    integers = ir.VectorType(INT32, count)
    exponent = builder.shl(builder.bitcast(shifted, integers), ir.Constant(integers, [23] * count))
    power = builder.bitcast(_polynomial(e, EXP2, fraction), integers)
    exponential = builder.bitcast(builder.add(power, exponent), value.type)
    one = e.splat(1.0, value)
    return builder.fdiv(one, builder.fadd(one, exponential))


def _polynomial(e: Emitter, coefficients: list[float], x: Value) -> Value:
    value = e.splat(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        value = e.fma(value, x, e.splat(coefficient, x))
    return value
