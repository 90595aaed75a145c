# mypy: ignore-errors
# Kernels are written in the language of Triton, which types of Python do not describe.
"""The update rules of ``fitting.optimizers`` on one block of weights inside the kernel.

Weights and moments live in global memory, in practice in the caches. What depends on the step
comes from a table that the host computes in float64.
"""

import triton
import triton.language as tl


@triton.jit
def descend(state, start, gradient, chosen, scalars, constants, OPTIMIZER: tl.constexpr):
    """Update a dense block of weights ``[rows, columns]``.

    Args:
        state: Pointers to a field's weights, first and second moments.
        start: Place of the block in the field's row.
        gradient: ``[rows, columns]``.
        chosen: ``[rows, 1]``, false for rows that are not the block's own.
        scalars: Of the step: rate with its bias corrections, eps with its, factor of weight decay.
        constants: beta_1, 1 - beta_1, beta_2, 1 - beta_2, eps inside the second moment.
        OPTIMIZER: Kind of optimizer.
    """
    weights_ptr, first_ptr, second_ptr = state
    rate, eps, shrink = scalars
    beta1, gain1, beta2, gain2, eps_inside = constants
    columns = tl.arange(0, gradient.shape[1])[None, :]
    offsets = start + tl.arange(0, gradient.shape[0])[:, None] * gradient.shape[1] + columns
    weights = tl.load(weights_ptr + offsets, mask=chosen, other=0.0) * shrink
    first = tl.load(first_ptr + offsets, mask=chosen, other=0.0)
    first = beta1 * first + gain1 * gradient
    tl.store(first_ptr + offsets, first, mask=chosen)
    if OPTIMIZER == "sgd":
        weights -= rate * first
    else:
        second = tl.load(second_ptr + offsets, mask=chosen, other=0.0)
        surprise = gradient - first if OPTIMIZER == "adabelief" else gradient
        second = beta2 * second + gain2 * surprise * surprise + eps_inside
        tl.store(second_ptr + offsets, second, mask=chosen)
        weights -= rate * first / (tl.sqrt_rn(second) + eps)
    tl.store(weights_ptr + offsets, weights, mask=chosen)
