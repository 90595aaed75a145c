"""Gradients of the loss after some steps of gradient descent, for where the steps began."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""One field's loss: row ``[P]``, points ``[q, d]`` and targets ``[q, c]``."""

Batches = Sequence[tuple[Tensor, Tensor]]
"""Per inner step, and once more for the outer loss: points ``[q, d]`` or ``[T, q, d]`` and targets
``[T, q, c]``."""


def adapt(loss: Loss, params: Tensor, step_sizes: Tensor, batches: Batches) -> Tensor:
    """Return the row ``[P]`` of one field after a step of gradient descent per batch."""
    for coords, targets in batches:
        params = params - step_sizes * grad(loss)(params, coords, targets)
    return params


def outer_gradients(
    loss: Loss, params: Tensor, step_sizes: Tensor, batches: Batches, *, first_order: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate the loss after the inner steps with respect to where they began.

    Args:
        loss: One field's loss.
        params: Start ``[P]``.
        step_sizes: Inner rates ``[P]``.
        batches: Points and targets of ``T`` tasks per inner step, then those of the outer loss.
        first_order: Take the inner gradients for constants.

    Returns:
        Per task the loss ``[T]`` and its gradient for the start and for the step sizes ``[T, P]``.
    """
    flat = [tensor for batch in batches for tensor in batch]
    # Coordinates have a task axis if they are as many-dimensional as targets.
    axes = [0 if t.dim() == 3 else None for t in flat]

    def pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(tensors[::2], tensors[1::2], strict=True))

    def of_task(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *inner, last = pairs(tensors)

        def after(start: Tensor, sizes: Tensor) -> Tensor:
            if first_order:
                return loss(start - sizes * total, *last)
            return loss(adapt(loss, start, sizes, inner), *last)

        total = _sum_of_gradients(loss, params, step_sizes, inner) if first_order else params
        (for_params, for_sizes), value = grad_and_value(after, argnums=(0, 1))(params, step_sizes)
        return value, for_params, for_sizes

    values: tuple[Tensor, Tensor, Tensor] = vmap(of_task, in_dims=tuple(axes))(*flat)
    return values


def _sum_of_gradients(loss: Loss, params: Tensor, step_sizes: Tensor, batches: Batches) -> Tensor:
    """Sum of the gradients along the inner steps; times the step sizes, it is the way they go."""
    total = torch.zeros_like(params)
    for coords, targets in batches:
        total = total + grad(loss)(params - step_sizes * total, coords, targets)
    return total
