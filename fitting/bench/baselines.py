"""What engines are compared with: a plain loop over fields in torch, and JAX where installed.

Both look like an engine from outside. They are what somebody would write who knows the library and
has never seen nefbench; JAX's fields are written from their definitions, not from ours.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitting.engines import Block, FitProblem
from fitting.losses import MSE
from fitting.optimizers import Adam
from nefbench.fields import FieldConfig, FourierNet, RFFNet, Siren
from nefbench.spec import ParamSpec

_LIVE_BYTES = 32 * 10**6
_LIVE_ACTIVATIONS = 6
_LARGEST_BLOCK = 4096

Array = Any
"""An array of JAX, which may not be installed."""


class OneByOne:
    """One field after another, ``torch.autograd`` and ``torch.optim.Adam``."""

    name = "one by one"
    uses_threads = False

    def why_not(self, problem: FitProblem) -> str | None:
        """Say why it does not solve a problem; None if it does."""
        return _not_plain(problem)

    def block_size(self, problem: FitProblem) -> int:
        """One field."""
        del problem
        return 1

    def prepare(self, problem: FitProblem) -> None:
        """Nothing to compile."""

    def fit(self, problem: FitProblem, block: Block, *, threads: int = 1) -> Tensor:
        """Return the fitted rows ``[B, P]``."""
        del threads
        pairs = zip(block.start, block.targets, strict=True)
        return torch.stack([_fit_alone(problem, start, target) for start, target in pairs])


def _fit_alone(problem: FitProblem, start: Tensor, target: Tensor) -> Tensor:
    field, config = problem.config.field, problem.config
    row = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([row], lr=config.optimizer.learning_rate)
    for _ in range(config.num_steps):
        optimizer.zero_grad()
        values = field.apply(problem.spec.unflatten(row), problem.coords)
        (values - target).square().mean().backward()
        optimizer.step()
    return row.detach()


class Jax:
    """``jit(vmap(grad(loss)))`` and Adam as one compiled step, called in a Python loop."""

    name = "jax"
    uses_threads = True

    def why_not(self, problem: FitProblem) -> str | None:
        """Say why it does not solve a problem; None if it does."""
        if find_spec("jax") is None:
            return "not installed (pip install jax)"
        if type(problem.config.field) not in _JAX_FIELDS:
            return f"no baseline was written for {problem.config.field.kind}"
        return _not_plain(problem)

    def block_size(self, problem: FitProblem) -> int:
        """Return a power of two such that six activations take at most 32 MB.

        Measured on one core, half and double the size are equally fast.
        """
        activation = 4 * problem.num_points * problem.config.field.hidden_dim
        fitting = _LIVE_BYTES // (_LIVE_ACTIVATIONS * activation)
        on_gpu = problem.coords.device.type == "cuda"
        return _LARGEST_BLOCK if on_gpu else min(_LARGEST_BLOCK, 1 << fitting.bit_length() - 1)

    def prepare(self, problem: FitProblem) -> None:
        """Compile by running one step on zeros."""
        size, points = self.block_size(problem), problem.num_points
        rows = torch.zeros(size, problem.spec.num_params)
        _run_jax(problem, Block(rows, torch.zeros(size, points, problem.out_dim)), num_steps=1)

    def fit(self, problem: FitProblem, block: Block, *, threads: int = 1) -> Tensor:
        """Return the fitted rows ``[B, P]``; the cores are those of the process."""
        del threads
        return _run_jax(problem, block, problem.config.num_steps)


def _not_plain(problem: FitProblem) -> str | None:
    """Say what a baseline lacks."""
    if problem.is_sampled or not isinstance(problem.loss, MSE):
        return "a baseline knows full batches and squared errors only"
    if problem.config.optimizer != Adam() or problem.spec.trainable_mask() is not None:
        return "a baseline knows plain Adam on all weights only"
    return None


def _run_jax(problem: FitProblem, block: Block, num_steps: int) -> Tensor:
    device = problem.coords.device
    jax, numpy = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    if device.type == "cuda" and jax.default_backend() != "gpu":
        raise RuntimeError("this JAX has no GPU")
    step = _compiled_step(problem.config.field, problem.spec)
    rows, targets, coords = (
        numpy.asarray(values.cpu().numpy())
        for values in (block.start, block.targets, problem.coords)
    )
    state = (rows, numpy.zeros_like(rows), numpy.zeros_like(rows))
    optimizer, rates = problem.config.optimizer, problem.rates()
    for number, rate in zip(range(1, num_steps + 1), rates, strict=False):
        state = step(*state, coords, targets, *optimizer.scalars(number, rate))
    return torch.from_numpy(np.array(state[0])).to(device)


@functools.cache
def _compiled_step(field: FieldConfig, spec: ParamSpec) -> Callable[..., Any]:
    """Return ``(rows, mean, square, coords, targets, rate, eps) -> (rows, mean, square)``.

    Rate and eps hold Adam's bias corrections, as in ``fitting.optimizers``.
    """
    jax, numpy = importlib.import_module("jax"), importlib.import_module("jax.numpy")
    beta1, beta2 = Adam().betas
    apply = functools.partial(_JAX_FIELDS[type(field)], numpy, field)
    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}

    def loss(row: Array, coords: Array, target: Array) -> Array:
        params = {name: row[place].reshape(shapes[name]) for name, place in spec.slices().items()}
        return numpy.mean(numpy.square(apply(params, coords) - target))

    gradient_of = jax.vmap(jax.grad(loss), in_axes=(0, None, 0))

    def step(
        rows: Array, mean: Array, square: Array, coords: Array, targets: Array, rate: Any, eps: Any
    ) -> tuple[Array, Array, Array]:
        gradient = gradient_of(rows, coords, targets)
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient * gradient
        return rows - rate * mean / (numpy.sqrt(square) + eps), mean, square

    compiled: Callable[..., Any] = jax.jit(step)
    return compiled


def _siren(numpy: Any, field: Siren, params: dict[str, Array], coords: Array) -> Array:
    """Sitzmann et al. 2020: ``sin(omega_0 (x W + b))``; the paper's preset leaves the bias out."""
    bias_factor = 1.0 if field.preset == "paper" else field.omega_0
    hidden = coords
    for i in range(field.num_layers - 1):
        kernel, bias = _linear(params, f"kernel_net_{i}.linear")
        hidden = numpy.sin(field.omega_0 * (hidden @ kernel) + bias_factor * bias)
    kernel, bias = _linear(params, "output_linear")
    return hidden @ kernel + bias


def _rffnet(numpy: Any, field: RFFNet, params: dict[str, Array], coords: Array) -> Array:
    """Tancik et al. 2020: sines and cosines of scaled coordinates, then ReLU layers."""
    factor = field.std if field.preset == "paper" else 2 * math.pi * field.std
    angles = factor * (coords @ params["encoding.coefficients.kernel"])
    hidden = numpy.concatenate([numpy.sin(angles), numpy.cos(angles)], axis=-1)
    for i in range(field.num_layers - 1):
        kernel, bias = _linear(params, f"layers_{i}.linear")
        hidden = numpy.maximum(hidden @ kernel + bias, 0)
    kernel, bias = _linear(params, "linear_final")
    return hidden @ kernel + bias


def _fouriernet(numpy: Any, field: FourierNet, params: dict[str, Array], coords: Array) -> Array:
    """Fathony et al. 2021: ``z_i = sin(x W_i + b_i) * (z_{i-1} A_i + a_i)``."""
    hidden = None
    for i in range(field.num_filters):
        kernel, bias = _linear(params, f"filters_{i}.linear")
        response = numpy.sin(coords @ kernel + bias)
        if hidden is not None:
            kernel, bias = _linear(params, f"linears_{i - 1}")
            response = response * (hidden @ kernel + bias)
        hidden = response
    kernel, bias = _linear(params, "output_linear")
    return hidden @ kernel + bias


def _linear(params: dict[str, Array], prefix: str) -> tuple[Array, Array]:
    return params[f"{prefix}.kernel"], params[f"{prefix}.bias"]


_JAX_FIELDS: dict[type, Callable[..., Array]] = {
    Siren: _siren,
    RFFNet: _rffnet,
    FourierNet: _fouriernet,
}
