"""Optimizer updates of one vector of weights, with the scalars of ``Optimizer.scalars``."""

from __future__ import annotations

from fitting.engines.base import KernelOptimizer
from fitting.engines.fused.emitter import Emitter, Value
from fitting.optimizers import SGD, AdaBelief, Adam, AdamW


def num_states(optimizer: KernelOptimizer) -> int:
    """Vectors of state per vector of weights."""
    return 1 if isinstance(optimizer, SGD) else 2


def emit_update(
    e: Emitter,
    optimizer: KernelOptimizer,
    weights: Value,
    gradient: Value,
    state: list[Value],
    scalars: list[Value],
) -> tuple[Value, list[Value]]:
    """Return new weights and state; see ``fitting.optimizers`` for the rules and the scalars."""
    match optimizer:
        case SGD():
            (velocity,) = state
            velocity = e.fma(velocity, e.splat(optimizer.momentum, velocity), gradient)
            return _minus(e, weights, e.splat(scalars[0], velocity), velocity), [velocity]
        case Adam() | AdamW():
            mean = _average(e, state[0], gradient, optimizer.betas[0])
            square = _average(e, state[1], e.builder.fmul(gradient, gradient), optimizer.betas[1])
            if isinstance(optimizer, AdamW):
                weights = e.builder.fmul(weights, e.splat(scalars[2], weights))
            return _descend(e, weights, mean, square, scalars), [mean, square]
        case AdaBelief():
            mean = _average(e, state[0], gradient, optimizer.betas[0])
            surprise = e.builder.fsub(gradient, mean)
            square = _average(e, state[1], e.builder.fmul(surprise, surprise), optimizer.betas[1])
            square = e.builder.fadd(square, e.splat(optimizer.eps, square))
            return _descend(e, weights, mean, square, scalars), [mean, square]


def _average(e: Emitter, old: Value, new: Value, decay: float) -> Value:
    return e.fma(old, e.splat(decay, old), e.builder.fmul(new, e.splat(1 - decay, new)))


def _descend(e: Emitter, weights: Value, mean: Value, square: Value, scalars: list[Value]) -> Value:
    """``w - rate m / (sqrt(v) + eps)``, bias corrections folded into the two scalars."""
    rate, eps = scalars[:2]
    denominator = e.builder.fadd(e.sqrt(square), e.splat(eps, square))
    direction = e.builder.fdiv(mean, denominator)
    return _minus(e, weights, e.splat(rate, weights), direction)


def _minus(e: Emitter, weights: Value, rate: Value, direction: Value) -> Value:
    return e.fma(e.builder.fneg(rate), direction, weights)
