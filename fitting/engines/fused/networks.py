"""Forward and backward pass of one tile of points for each field family.

Notation of one tile: ``A`` holds a layer's outputs, ``D`` the gradient of the loss by its weighted
sums; a buffer of outputs is overwritten by gradients as soon as it is no longer needed. Weighted
sums of sines are computed in half-turns, so the stored kernels enter with ``forward_scale``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fitting.engines.fused.emitter import Emitter, Index, Row, Value
from fitting.engines.fused.functions import sine_and_cosine
from fitting.engines.fused.layout import Layout, Segment, padded
from fitting.engines.fused.tiles import (
    Finish,
    Matrix,
    columns,
    dense,
    load_row,
    outer,
    store_row,
)
from nefbench.fields import MLP, FieldConfig, FourierNet, RFFNet, Siren
from nefbench.spec import ParamSpec


@dataclass(frozen=True)
class Linear:
    """A kernel with its bias.

    Attributes:
        kernel: Rows are inputs.
        bias: One row.
    """

    kernel: Segment
    bias: Segment


@dataclass(frozen=True)
class Buffer:
    """Storage of one layer for the points of a tile.

    Attributes:
        name: Unique.
        width: Floats per point.
    """

    name: str
    width: int


class Memory(Protocol):
    """What a tile can reach while it is emitted."""

    e: Emitter
    coords: Matrix
    delta: Matrix

    def buffer(self, buffer: Buffer) -> Matrix:
        """Storage of a layer, one row per point."""

    def weights(self, segment: Segment) -> Matrix:
        """Weights times ``forward_scale``."""

    def transposed(self, segment: Segment) -> Matrix:
        """Weights times ``gradient_scale``, one row per output."""

    def gradient(self, segment: Segment) -> Matrix:
        """Where the gradient is accumulated."""


class Network(Protocol):
    """One field family in the kernel's memory."""

    layout: Layout
    buffers: tuple[Buffer, ...]
    transposed: tuple[Segment, ...]
    output: Linear
    last: Buffer

    def forward(self, memory: Memory) -> None:
        """Compute all layers; the outputs of the last end in ``last``."""

    def backward(self, memory: Memory) -> None:
        """Accumulate the gradients of all weights but the output's, from ``memory.delta``."""


def describe(field: FieldConfig, spec: ParamSpec) -> Network | None:
    """Return the network of a field; None if the family has none."""
    match field:
        case Siren():
            return _Siren(field, spec)
        case RFFNet():
            return _RFFNet(field, spec)
        case FourierNet():
            return _FourierNet(field, spec)
        case MLP():
            return _MLP(field, spec)
        case _:
            return None


class _Siren:
    def __init__(self, field: Siren, spec: ParamSpec) -> None:
        self.layout = Layout(spec)
        kernel = {"forward_scale": field.omega_0 / math.pi, "gradient_scale": field.omega_0}
        bias_factor = 1.0 if field.preset == "paper" else field.omega_0
        bias = {"forward_scale": bias_factor / math.pi, "gradient_scale": bias_factor}
        self.layers = [
            Linear(
                bias=self.layout.vector(f"kernel_net_{i}.linear.bias", **bias),
                kernel=self.layout.matrix(
                    f"kernel_net_{i}.linear.kernel", in_groups=min(i, 1), **kernel
                ),
            )
            for i in range(field.num_layers - 1)
        ]
        self.output = _output(self.layout, "output_linear")
        width = padded(field.hidden_dim)
        self.sines = [Buffer(f"sine{i}", width) for i in range(len(self.layers))]
        self.cosines = [Buffer(f"cosine{i}", width) for i in range(len(self.layers))]
        self.buffers = (*self.sines, *self.cosines)
        self.transposed = tuple(layer.kernel for layer in self.layers[1:])
        self.last = self.sines[-1]

    def forward(self, memory: Memory) -> None:
        """``A_l = sin(pi z_l)`` and its cosine."""
        inputs = memory.coords
        for layer, sine, cosine in zip(self.layers, self.sines, self.cosines, strict=True):
            store = _storing_waves(memory, memory.buffer(sine), memory.buffer(cosine))
            _apply(memory, inputs, layer, store)
            inputs = memory.buffer(sine)

    def backward(self, memory: Memory) -> None:
        """``D_l = G cos z_l`` takes the place of the cosine."""
        cosines = [memory.buffer(buffer) for buffer in self.cosines]
        gradients = memory.delta, memory.weights(self.output.kernel)
        for i in reversed(range(len(self.layers))):
            dense(memory.e, *gradients, None, _multiplying(memory.e, cosines[i]))
            inputs = memory.buffer(self.sines[i - 1]) if i else memory.coords
            _accumulate(memory, inputs, cosines[i], self.layers[i])
            if i:
                gradients = cosines[i], memory.transposed(self.layers[i].kernel)


class _ReLULayers:
    """A chain of ReLU layers; gradients take the place of a layer's outputs."""

    def __init__(self, layers: list[Linear], width: int) -> None:
        self.layers = layers
        self.buffers = [Buffer(f"relu{i}", width) for i in range(len(layers))]

    def forward(self, memory: Memory, inputs: Matrix) -> None:
        for layer, buffer in zip(self.layers, self.buffers, strict=True):
            outputs = memory.buffer(buffer)
            _apply(memory, inputs, layer, _storing_relu(memory.e, outputs))
            inputs = outputs

    def backward(self, memory: Memory, output: Linear, inputs: Matrix) -> Matrix:
        """Return the gradient by the first layer's sums."""
        outputs = [memory.buffer(buffer) for buffer in self.buffers]
        gradients = memory.delta, memory.weights(output.kernel)
        for i in reversed(range(len(self.layers))):
            dense(memory.e, *gradients, None, _masking(memory.e, outputs[i]))
            _accumulate(memory, outputs[i - 1] if i else inputs, outputs[i], self.layers[i])
            if i:
                gradients = outputs[i], memory.transposed(self.layers[i].kernel)
        return outputs[0]


class _MLP:
    def __init__(self, field: MLP, spec: ParamSpec) -> None:
        self.layout = Layout(spec)
        layers = [
            _linear(self.layout, f"Dense_{i}", in_groups=min(i, 1)) for i in range(field.num_layers)
        ]
        self.output = _output(self.layout, f"Dense_{field.num_layers}")
        self.relu = _ReLULayers(layers, padded(field.hidden_dim))
        self.buffers = tuple(self.relu.buffers)
        self.transposed = tuple(layer.kernel for layer in layers[1:])
        self.last = self.buffers[-1]

    def forward(self, memory: Memory) -> None:
        self.relu.forward(memory, memory.coords)

    def backward(self, memory: Memory) -> None:
        self.relu.backward(memory, self.output, memory.coords)


class _RFFNet:
    def __init__(self, field: RFFNet, spec: ParamSpec) -> None:
        self.layout = Layout(spec)
        self.num_frequencies = field.hidden_dim // 2
        self.half = padded(self.num_frequencies)
        factor = field.std if field.preset == "paper" else 2 * math.pi * field.std
        self.encoding = self.layout.matrix(
            "encoding.coefficients.kernel", forward_scale=factor / math.pi, gradient_scale=factor
        )
        layers = [
            _linear(self.layout, f"layers_{i}.linear", in_groups=1 if i else 2)
            for i in range(field.num_layers - 1)
        ]
        self.output = _output(self.layout, "linear_final")
        self.relu = _ReLULayers(layers, padded(field.hidden_dim))
        self.waves = Buffer("waves", 2 * self.half)
        self.buffers = (self.waves, *self.relu.buffers)
        learnt = layers if field.learnable_coefficients else layers[1:]
        self.transposed = tuple(layer.kernel for layer in learnt)
        self.last = self.relu.buffers[-1]

    def forward(self, memory: Memory) -> None:
        """``[sin, cos]`` of all frequencies, then the ReLU layers."""
        e, (sines, cosines) = memory.e, self._waves(memory)

        def store(p: Index, j: int, half_turns: Row) -> None:
            pairs = [sine_and_cosine(e, t) for t in half_turns]
            # A padded frequency has cosine 1: left alone it would be a unit of its own.
            padding = max(0, j + e.width_of(half_turns) - self.num_frequencies)
            cosine = e.without_last([cosine for _, cosine in pairs], padding)
            _store(e, [sine for sine, _ in pairs], sines, p, j)
            _store(e, cosine, cosines, p, j)

        dense(e, memory.coords, memory.weights(self.encoding), None, store)
        self.relu.forward(memory, memory.buffer(self.waves))

    def backward(self, memory: Memory) -> None:
        """``dz = G_sin cos z - G_cos sin z`` takes the place of the sines."""
        e, (sines, cosines) = memory.e, self._waves(memory)
        gradient = self.relu.backward(memory, self.output, memory.buffer(self.waves))
        if not self.encoding.trainable:
            return
        first = memory.transposed(self.relu.layers[0].kernel)

        def subtract(p: Index, j: int, row: Row) -> None:
            by_cosine = e.row(e.builder.fmul, row, _load(e, row, sines, p, j))
            by_sine = _load(e, row, cosines, p, j)
            _store(e, e.row(e.builder.fsub, by_sine, by_cosine), sines, p, j)

        dense(e, gradient, columns(e, first, 0, self.half), None, _multiplying(e, cosines))
        dense(e, gradient, columns(e, first, self.half, self.half), None, subtract)
        outer(e, memory.coords, sines, memory.gradient(self.encoding), None)

    def _waves(self, memory: Memory) -> tuple[Matrix, Matrix]:
        waves = memory.buffer(self.waves)
        half = self.half
        return columns(memory.e, waves, 0, half), columns(memory.e, waves, half, half)


class _FourierNet:
    def __init__(self, field: FourierNet, spec: ParamSpec) -> None:
        self.layout = Layout(spec)
        self.filters = [
            _linear(self.layout, f"filters_{i}.linear", forward_scale=1 / math.pi)
            for i in range(field.num_filters)
        ]
        self.linears = [
            _linear(self.layout, f"linears_{i}", in_groups=1) for i in range(field.num_filters - 1)
        ]
        self.output = _output(self.layout, "output_linear")
        width = padded(field.hidden_dim)
        self.sines = [Buffer(f"sine{i}", width) for i in range(field.num_filters)]
        self.cosines = [Buffer(f"cosine{i}", width) for i in range(field.num_filters)]
        self.products = [Buffer(f"product{i}", width) for i in range(1, field.num_filters)]
        self.buffers = (*self.sines, *self.cosines, *self.products)
        self.transposed = tuple(linear.kernel for linear in self.linears)
        self.last = (self.sines[0], *self.products)[-1]

    def forward(self, memory: Memory) -> None:
        """``o_i = f_i u_i``; the cosine buffer then holds ``u_i cos z_i``."""
        e = memory.e
        for linear, sine, cosine in zip(self.filters, self.sines, self.cosines, strict=True):
            store = _storing_waves(memory, memory.buffer(sine), memory.buffer(cosine))
            _apply(memory, memory.coords, linear, store)
        outputs = memory.buffer(self.sines[0])
        for i, linear in enumerate(self.linears, start=1):
            sines, cosines = memory.buffer(self.sines[i]), memory.buffer(self.cosines[i])
            products = memory.buffer(self.products[i - 1])

            def store_product(
                p: Index,
                j: int,
                row: Row,
                sines: Matrix = sines,
                cosines: Matrix = cosines,
                products: Matrix = products,
            ) -> None:
                _store_product(e, row, sines, products, p, j)
                _store_product(e, row, cosines, cosines, p, j)

            _apply(memory, outputs, linear, store_product)
            outputs = products

    def backward(self, memory: Memory) -> None:
        """Gradients by ``u_i`` take the place of ``f_i``, those by ``z_i`` that of the cosine."""
        e = memory.e
        gradients = memory.delta, memory.weights(self.output.kernel)
        for i in reversed(range(len(self.filters))):
            sines, cosines = memory.buffer(self.sines[i]), memory.buffer(self.cosines[i])

            def split(
                p: Index,
                j: int,
                row: Row,
                sines: Matrix = sines,
                cosines: Matrix = cosines,
                i: int = i,
            ) -> None:
                _store_product(e, row, cosines, cosines, p, j)
                if i:
                    _store_product(e, row, sines, sines, p, j)

            dense(e, *gradients, None, split)
            _accumulate(memory, memory.coords, cosines, self.filters[i])
            if i:
                below = (self.sines[0], *self.products)[i - 1]
                _accumulate(memory, memory.buffer(below), sines, self.linears[i - 1])
                gradients = sines, memory.transposed(self.linears[i - 1].kernel)


def _linear(layout: Layout, prefix: str, *, in_groups: int = 0, **scales: float) -> Linear:
    bias = layout.vector(f"{prefix}.bias", **scales)
    return Linear(layout.matrix(f"{prefix}.kernel", in_groups=in_groups, **scales), bias)


def _output(layout: Layout, prefix: str) -> Linear:
    bias = layout.vector(f"{prefix}.bias")
    return Linear(layout.output(f"{prefix}.kernel"), bias)


def _apply(memory: Memory, inputs: Matrix, linear: Linear, finish: Finish) -> None:
    kernel, bias = memory.weights(linear.kernel), memory.weights(linear.bias)
    dense(memory.e, inputs, kernel, bias, finish)


def _accumulate(memory: Memory, inputs: Matrix, gradients: Matrix, linear: Linear) -> None:
    kernel, bias = memory.gradient(linear.kernel), memory.gradient(linear.bias)
    outer(memory.e, inputs, gradients, kernel, bias)


def _storing_waves(memory: Memory, sines: Matrix, cosines: Matrix) -> Finish:
    e = memory.e

    def store(p: Index, j: int, half_turns: Row) -> None:
        pairs: list[tuple[Value, Value]] = [sine_and_cosine(e, t) for t in half_turns]
        _store(e, [sine for sine, _ in pairs], sines, p, j)
        _store(e, [cosine for _, cosine in pairs], cosines, p, j)

    return store


def _storing_relu(e: Emitter, outputs: Matrix) -> Finish:
    return lambda p, j, row: _store(e, [e.positive_part(v) for v in row], outputs, p, j)


def _multiplying(e: Emitter, factors: Matrix) -> Finish:
    return lambda p, j, row: _store_product(e, row, factors, factors, p, j)


def _masking(e: Emitter, outputs: Matrix) -> Finish:
    def store(p: Index, j: int, row: Row) -> None:
        passed = _load(e, row, outputs, p, j)
        _store(e, e.row(e.where_positive, row, passed), outputs, p, j)

    return store


def _load(e: Emitter, like: Row, source: Matrix, p: Index, j: int) -> Row:
    """Read as many columns from ``j`` on as another row has."""
    return load_row(e, columns(e, source, j, e.width_of(like)), p)


def _store(e: Emitter, row: Row, target: Matrix, p: Index, j: int) -> None:
    """Write columns from ``j`` on."""
    store_row(e, row, columns(e, target, j, e.width_of(row)), p)


def _store_product(e: Emitter, row: Row, factors: Matrix, target: Matrix, p: Index, j: int) -> None:
    product = e.row(e.builder.fmul, row, _load(e, row, factors, p, j))
    _store(e, product, target, p, j)
