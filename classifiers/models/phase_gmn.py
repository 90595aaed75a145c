"""Phase-GMN: messages along the split weights of a SIREN, invariant to all its symmetries.

The weights are split by ``nefbench.weights.phase_split``, after which nothing depends on phases and
their periods, and permutations and one sign per unit are left. A unit has an odd state, which
carries its sign, and an even one, which does not. The halves ``B`` and ``A`` of a split weight
carry odd and even states to the next layer, and back. So a message costs a product with the weights
themselves: no perceptron runs on edges, and no field is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.base import Access
from classifiers.models.layers import perceptron
from classifiers.models.settings import check_at_least, check_shares, check_siren
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.fields import Siren
from nefbench.weights.phase_split import phase_split
from nefbench.weights.symmetries import symmetry_kinds


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseGMN:
    """Rounds of messages from the inputs to the outputs and back, then a mean over units.

    In every step a layer of units computes ``p = gelu(v + u)`` and ``q = gelu(v - u)`` from what is
    odd, ``u``, and what is even, ``v``: its states and the messages that it got, mapped linearly.
    The odd state grows by ``p - q``, the even one by ``p + q``, both divided by their joint root
    mean square: the odd and the even part of an ordinary layer.
    """

    access: ClassVar[Access] = "weights"
    normalisation: ClassVar[Normalisation] = "none"
    kind: Literal["phase-gmn"] = "phase-gmn"
    hidden_dim: int = 96
    """Width of every state and message."""
    num_rounds: int = 1
    """Passes to the outputs and back."""
    head_dims: tuple[int, ...] = (256,)
    """Width of every hidden map of the perceptron at the end."""
    dropout: float = 0.4
    """Share of its hidden units dropped while training."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "hidden_dim", "num_rounds", "head_dims")
        check_shares(self, "dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """All that a SIREN has."""
        return frozenset(symmetry_kinds(space.spec))

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the fields are no SIRENs.
        """
        return PhaseNetwork(self, space, check_siren(self.kind, space), num_outputs)


class States(NamedTuple):
    """Numbers per unit of one layer, ``[B, n, F]``: odd ones carry its sign, even ones do not."""

    odd: Tensor
    even: Tensor


class Kernels(NamedTuple):
    """Split weights of a batch, every pair divided by its root mean square per field.

    Attributes:
        first: ``[B, d, n]``.
        pairs: Per map after it ``[B, 2n, m]``: rows of ``B``, then rows of ``A``.
        summary: What is left beside them, ``[B, S]``: logarithms of the root mean squares, and the
            last bias.
    """

    first: Tensor
    pairs: tuple[Tensor, ...]
    summary: Tensor


_SMALL_SQUARE = 1e-3
"""Added to mean squares of states, which are about one, before a division."""


class PhaseNetwork(nn.Module):
    """First pass to the outputs, rounds, readout.

    Shapes: states ``[B, n, F]``; those of inputs and outputs are neither odd nor even.
    """

    def __init__(
        self, config: PhaseGMN, space: WeightSpace, field: Siren, num_outputs: int
    ) -> None:
        super().__init__()
        self._split = phase_split(field, space.in_dim, space.out_dim)
        dim, num_layers = config.hidden_dim, field.num_layers - 1
        # Wide, for products with frequencies to reach where the activation bends.
        self.inputs = nn.Parameter(1.5 * torch.randn(space.in_dim, dim))
        self.outputs = nn.Parameter(torch.randn(space.out_dim, dim))
        self.output_bias = nn.Parameter(torch.randn(space.out_dim, dim))
        self.biases = nn.Parameter(torch.randn(num_layers, dim))
        self.maps = nn.ModuleList([_linear(dim, dim) for _ in range(num_layers - 1)])
        last = config.num_rounds - 1
        self.rounds = nn.ModuleList(
            [_Round(dim, num_layers, is_last=i == last) for i in range(config.num_rounds)]
        )
        num_summary = 1 + num_layers + space.out_dim
        width = (num_layers + space.out_dim) * dim + num_summary
        self.norm = nn.BatchNorm1d(width)
        self.head = perceptron((width, *config.head_dims, num_outputs), "gelu", config.dropout)

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        kernels = self.kernels(batch.weights)
        hidden, outputs = self.encode(kernels)
        inputs = self.inputs.expand(len(outputs), -1, -1)
        for each in self.rounds:
            inputs, hidden, outputs = each(kernels, inputs, hidden, outputs)
        means = [states.even.mean(1) for states in hidden]
        joined = torch.cat([*means, outputs.flatten(1), kernels.summary], dim=-1)
        logits: Tensor = self.head(self.norm(joined))
        return logits

    def kernels(self, rows: Tensor) -> Kernels:
        """Split rows ``[B, P]``."""
        parts = self._split.spec.unflatten(self._split.split(rows))
        first, *halves, bias = parts.values()
        joined = [
            torch.cat([sine, cosine], dim=1)
            for cosine, sine in zip(halves[::2], halves[1::2], strict=True)
        ]
        # the floor is for fields whose weights are all zero
        squares = [kernel.square().mean((1, 2), keepdim=True) for kernel in (first, *joined)]
        sizes = [(square + 1e-12).sqrt() for square in squares]
        logarithms = [size.flatten(1).log() for size in sizes]
        return Kernels(
            first / sizes[0],
            tuple(kernel / size for kernel, size in zip(joined, sizes[1:], strict=True)),
            torch.cat([*logarithms, bias], dim=-1),
        )

    def encode(self, kernels: Kernels) -> tuple[list[States], Tensor]:
        """Return first states of every hidden layer, and of the outputs ``[B, c, F]``."""
        odd = entering(kernels.first, self.inputs)
        hidden = [parts_of(odd, self.biases[0])]
        for layer, (kernel, mapped) in enumerate(zip(kernels.pairs[:-1], self.maps, strict=True)):
            odd = mapped(entering(kernel, hidden[layer]))
            hidden.append(parts_of(odd, self.biases[layer + 1]))
        bias = kernels.summary[:, -len(self.outputs) :, None]
        return hidden, self.outputs + bias * self.output_bias


class _Round(nn.Module):
    """To the outputs and back to the first units; unless it is the last, on to the outputs."""

    def __init__(self, dim: int, num_layers: int, *, is_last: bool) -> None:
        super().__init__()
        self.outputs = _Residual(dim)
        self.back = nn.ModuleList([_linear(dim, 2 * dim) for _ in range(num_layers)])
        self.back_updates = nn.ModuleList([_Update(dim) for _ in range(num_layers)])
        self.inputs: nn.Module | None = None
        self.forth, self.forth_updates = nn.ModuleList(), nn.ModuleList()
        if not is_last:
            self.inputs = _Residual(dim)
            self.forth.extend(_linear(dim, dim) for _ in range(num_layers))
            self.forth_updates.extend(_Update(dim) for _ in range(num_layers))

    def forward(
        self, kernels: Kernels, inputs: Tensor, hidden: list[States], outputs: Tensor
    ) -> tuple[Tensor, list[States], Tensor]:
        """Return new states of inputs, hidden layers and outputs."""
        hidden = list(hidden)
        outputs = self.outputs(outputs + entering(kernels.pairs[-1], hidden[-1]))
        source = outputs
        for layer in reversed(range(len(hidden))):
            odd, even = leaving(kernels.pairs[layer], self.back[layer](source))
            hidden[layer] = self.back_updates[layer](hidden[layer], odd, even)
            source = hidden[layer].odd
        if self.inputs is not None:
            inputs = self.inputs(inputs + kernels.first @ source / source.shape[1] ** 0.5)
            message = entering(kernels.first, self.forth[0](inputs))
            hidden[0] = self.forth_updates[0](hidden[0], message)
            for layer in range(1, len(hidden)):
                message = self.forth[layer](entering(kernels.pairs[layer - 1], hidden[layer - 1]))
                hidden[layer] = self.forth_updates[layer](hidden[layer], message)
        return inputs, hidden, outputs


class _Residual(nn.Module):
    """``x + perceptron(x)`` on states that are neither odd nor even."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.perceptron = perceptron((dim, dim, dim), "gelu")

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[..., F]``."""
        return states + self.perceptron(states)  # type: ignore[no-any-return]


class _Update(nn.Module):
    """Add to the states of a layer what follows from them and from messages."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.odd, self.even = _linear(dim, dim), _linear(dim, dim)
        self.bias = nn.Parameter(torch.randn(dim))

    def forward(self, states: States, odd: Tensor, even: Tensor | float = 0.0) -> States:
        """Return new states; ``odd`` and ``even`` are messages ``[B, n, F]``."""
        parts = parts_of(self.odd(states.odd) + odd, self.even(states.even) + even + self.bias)
        return States(states.odd + parts.odd, states.even + parts.even)


def parts_of(odd: Tensor, even: Tensor) -> States:
    """Return the odd and the even part of ``gelu(even + odd)`` under ``odd -> -odd``.

    Both are divided by their joint root mean square over the features of a unit.
    """
    plus, minus = F.gelu(even + odd), F.gelu(even - odd)
    norms = [torch.linalg.vector_norm(half, dim=-1, keepdim=True) for half in (plus, minus)]
    squares = (norms[0].square() + norms[1].square()) * (2 / odd.shape[-1])
    factor = (squares + _SMALL_SQUARE).rsqrt()
    return States((plus - minus) * factor, (plus + minus) * factor)


def entering(kernel: Tensor, states: States | Tensor) -> Tensor:
    """Return messages to the units of the next layer, which carry their sign, ``[B, m, F]``.

    Args:
        kernel: ``[B, 2n, m]``, or the first one ``[B, d, m]``.
        states: Of the ``n`` units, or of the inputs.
    """
    joined = torch.cat(states, dim=1) if isinstance(states, States) else states
    messages: Tensor = kernel.transpose(1, 2) @ joined / kernel.shape[1] ** 0.5
    return messages


def leaving(kernel: Tensor, states: Tensor) -> States:
    """Return messages back from the next layer, odd and even ones ``[B, n, F]``.

    Args:
        kernel: ``[B, 2n, m]``.
        states: ``[B, m, 2F]``, carrying the sign of their unit: what is sent through ``B``, then
            what is sent through ``A``.
    """
    to_odd, to_even = states.chunk(2, dim=-1)
    sine, cosine = (kernel / kernel.shape[2] ** 0.5).chunk(2, dim=1)
    return States(sine @ to_odd, cosine @ to_even)


def _linear(in_dim: int, out_dim: int) -> nn.Linear:
    """Return a map without bias that keeps mean squares."""
    linear = nn.Linear(in_dim, out_dim, bias=False)
    nn.init.normal_(linear.weight, std=in_dim**-0.5)
    return linear
