# mypy: ignore-errors
# Kernels are written in the language of Triton, which types of Python do not describe.
"""Sine and cosine of one angle together, to float32 accuracy, in some 20 instructions.

A library sine takes twice the code for its slow path at large arguments, and the hardware's fast
sine is off by 1e-6 and more. Counted in half-turns the reduction to [-1/2, 1/2] is exact.
"""

import triton
import triton.language as tl

# Least squares on Chebyshev nodes of u = r^2 in [0, 1/4]:
# sin(pi r) = r (S0 + S1 u + ... + S4 u^4), error 3.4e-9; cos(pi r) = C0 + ... + C5 u^5, 2.2e-10.
# Evaluated in float32 both are off by at most 2e-7.
_S0 = tl.constexpr(3.1415925798055815)
_S1 = tl.constexpr(-5.167706866167968)
_S2 = tl.constexpr(2.55003119351961)
_S3 = tl.constexpr(-0.5980441939127914)
_S4 = tl.constexpr(0.07721838615663852)
_C0 = tl.constexpr(0.9999999997799042)
_C1 = tl.constexpr(-4.934802137078824)
_C2 = tl.constexpr(4.058709159556323)
_C3 = tl.constexpr(-1.3352120030510968)
_C4 = tl.constexpr(0.23493731382180122)
_C5 = tl.constexpr(-0.024396324363760588)

_ROUND = tl.constexpr(12582912.0)
"""1.5 * 2**23: a float32 of this size has no fraction bits, so adding it rounds to an integer."""
_LARGEST = tl.constexpr(4194304.0)
"""2**22 half-turns: up to here the sum above is exact; beyond, a float32 holds no phase."""


@triton.jit
def sincos_half_turns(t):
    """Return ``sin(pi t)`` and ``cos(pi t)``: with k = rint(t), ``(-1)^k`` times those of t - k.

    An angle without a phase counts as 0; one that is not finite gives NaN.
    """
    t = tl.where(tl.abs(t) < _LARGEST, t, t - t)
    shifted = t + _ROUND
    r = t - (shifted - _ROUND)
    u = r * r
    sine = r * (_S0 + u * (_S1 + u * (_S2 + u * (_S3 + u * _S4))))
    cosine = _C0 + u * (_C1 + u * (_C2 + u * (_C3 + u * (_C4 + u * _C5))))
    sign = shifted.to(tl.int32, bitcast=True) << 31  # the lowest bit of k
    sine = (sine.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    cosine = (cosine.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    return sine, cosine
