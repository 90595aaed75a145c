"""What the kernel needs to know of optimizer and loss, computed on the host in float64.

In float32, ``1 - beta_2 ** t`` would lose five digits at t = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.engines.base import FitProblem, KernelOptimizer
from fitting.losses import MSE
from fitting.optimizers import SGD, AdaBelief, OptimizerConfig


def step_scalars(problem: FitProblem) -> Tensor:
    """Return rate and eps with their bias corrections and the factor of decay ``[S, 3]``.

    An update is ``w <- factor w - rate m / (sqrt(v) + eps)``, or ``w - rate m`` of SGD.
    """
    optimizer = problem.config.optimizer
    rows = []
    for step, rate in enumerate(problem.rates(), start=1):
        scalars = optimizer.scalars(step, rate)
        # SGD has neither eps nor decay, Adam and AdaBelief have no decay.
        rows.append((*scalars, *(0.0, 1.0)[len(scalars) - 1 :]))
    return torch.tensor(rows, dtype=torch.float32)


def moment_constants(optimizer: OptimizerConfig) -> tuple[float, float, float, float, float]:
    """Return decay and gain of the first and of the second moment, and the eps inside the latter.

    ``m <- decay_1 m + gain_1 g`` and ``v <- decay_2 v + gain_2 s^2 + eps``, where s is the gradient
    or AdaBelief's surprise.
    """
    assert isinstance(optimizer, KernelOptimizer), "why_not comes first"
    if isinstance(optimizer, SGD):
        return optimizer.momentum, 1.0, 0.0, 0.0, 0.0
    beta1, beta2 = optimizer.betas
    eps = optimizer.eps if isinstance(optimizer, AdaBelief) else 0.0
    return beta1, 1 - beta1, beta2, 1 - beta2, eps


def delta_scale(problem: FitProblem) -> float:
    """Return the factor of ``values - targets`` (MSE) or ``sigmoid(values) - targets`` (BCE)."""
    terms = problem.num_sampled * problem.out_dim
    return (2 if isinstance(problem.loss, MSE) else 1) / terms
