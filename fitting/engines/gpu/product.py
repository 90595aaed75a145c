# mypy: ignore-errors
# Kernels are written in the language of Triton, which types of Python do not describe.
"""Matrix products on tensor cores, which take factors of 11 bits (TF32) and add in float32."""

import triton
import triton.language as tl

_HALF = tl.constexpr(0x1000)
"""Half of the last of TF32's bits in a float32."""
_MASK = tl.constexpr(-0x2000)
"""Its bits in a float32: all but the last 13."""


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """Return ``a b + total``, or ``a b`` if that is None.

    With ``tf32x3`` factors are split into two parts that TF32 holds. Three products of parts leave
    out the low times the low one, 2**-22 of the whole. Triton's own ``tf32x3`` does the same in a
    tenth more instructions and many more registers, as it keeps an infinity from turning into NaN.
    """
    if PRECISION == "tf32":
        return tl.dot(a, b, total, input_precision="tf32")
    a_high, a_low = split(a)
    b_high, b_low = split(b)
    total = tl.dot(a_low, b_high, total, input_precision="tf32")
    total = tl.dot(a_high, b_low, total, input_precision="tf32")
    return tl.dot(a_high, b_high, total, input_precision="tf32")


@triton.jit
def split(x):
    """Return x rounded to TF32, and the exact rest: 12 bits, of which TF32 drops one at most."""
    high = ((x.to(tl.int32, bitcast=True) + _HALF) & _MASK).to(tl.float32, bitcast=True)
    return high, x - high
