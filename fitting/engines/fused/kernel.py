"""The whole fit of one field as one function: steps, tiles of points, optimizer.

    fit(weights, state, scratch, coords, targets, factors, samples, scalars, num_steps)

All arrays are float32 except ``samples`` (int32): weights and state in the network's layout; coords
``[Q, d]``; targets ``[Q, c]``; factors ``[Q', c]``, the derivative of the mean by each term, zero
for padding points; samples ``[S, Q']``, the points of every step; scalars ``[S, n]``. With all
points in every step, coords and targets are padded to ``Q'`` and samples are not read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from llvmlite import ir

from fitting.engines.base import KernelOptimizer
from fitting.engines.fused import tiles
from fitting.engines.fused.emitter import (
    FLOAT,
    INT32,
    INT64,
    POINTER,
    Emitter,
    Index,
    Machine,
    Value,
)
from fitting.engines.fused.functions import logistic
from fitting.engines.fused.layout import ALIGNMENT, Segment, padded
from fitting.engines.fused.networks import Buffer, Network
from fitting.engines.fused.tiles import Matrix
from fitting.engines.fused.updates import emit_update, num_states
from fitting.losses import BCE, LossConfig

NAME = "fit"
NUM_POINTERS = 8
_CACHE_BYTES = 32 * 1024
"""For the buffers of a tile: about what first caches hold."""
_SMALLEST_TILE = 32
"""Rows at least, where there are as many points: wide kernels come from the second cache, and this
many points share one reading of them."""
_LARGEST_TILE = 64


@dataclass(frozen=True)
class Program:
    """Everything that decides the instructions.

    Attributes:
        network: The field.
        optimizer: The update rule.
        loss: What is minimised.
        in_dim: Coordinates ``d``.
        out_dim: Channels ``c``.
        num_points: Points ``q`` in a step.
        is_sampled: Whether they are looked up in a table.
        num_scalars: Numbers per step in the table of the optimizer.
    """

    network: Network
    optimizer: KernelOptimizer
    loss: LossConfig
    in_dim: int
    out_dim: int
    num_points: int
    is_sampled: bool
    num_scalars: int

    @property
    def tile_rows(self) -> int:
        """Points per tile: the size that fits the cache and wastes fewest points."""
        per_point = 4 * sum(buffer.width for buffer in self.network.buffers)
        largest = max(_SMALLEST_TILE, min(_LARGEST_TILE, _CACHE_BYTES // per_point))
        sizes = range(tiles.ROWS, largest + 1, tiles.ROWS)
        return min(sizes, key=lambda size: (padded(self.num_points, size), -size))

    @property
    def padded_points(self) -> int:
        """Points ``Q'`` in whole tiles."""
        return padded(self.num_points, self.tile_rows)

    @property
    def num_states(self) -> int:
        """Vectors of optimizer state per vector of weights."""
        return num_states(self.optimizer)

    @property
    def scratch_size(self) -> int:
        """Floats of working memory per thread; zero when a fit begins."""
        return _Scratch(self).size


class _Scratch:
    """Places in the working memory."""

    def __init__(self, program: Program) -> None:
        self.size = 0
        network = program.network
        rows = program.tile_rows
        self.gradients = self._reserve(network.layout.size)
        self.scaled = self._reserve(network.layout.size)
        self.transposed = {
            segment.offset: self._reserve(segment.size) for segment in network.transposed
        }
        self.buffers = {
            buffer.name: self._reserve(rows * buffer.width) for buffer in network.buffers
        }
        self.values = self._reserve(rows * program.out_dim)
        self.totals = self._reserve(rows * program.out_dim)
        self.coords = self._reserve(rows * program.in_dim)
        self.targets = self._reserve(rows * program.out_dim)

    def _reserve(self, size: int) -> int:
        start = self.size
        self.size += padded(size, ALIGNMENT)
        return start


class _Memory:
    """Addresses of everything, for the networks."""

    def __init__(self, e: Emitter, program: Program, weights: Value, scratch: Value) -> None:
        self.e = e
        self._places = _Scratch(program)
        self._weights = weights
        self._scratch = scratch
        self._rows = program.tile_rows
        self._channels = program.out_dim
        self.coords = self._scratch_matrix(self._places.coords, program.in_dim)
        self.delta = self._scratch_matrix(self._places.values, program.out_dim)
        self.gathered_targets = self._scratch_matrix(self._places.targets, program.out_dim)
        self.totals = self._scratch_matrix(self._places.totals, program.out_dim)

    def _scratch_matrix(self, offset: int, width: int) -> Matrix:
        return Matrix(self.e.at(self._scratch, offset), self._rows, width, width)

    def buffer(self, buffer: Buffer) -> Matrix:
        return self._scratch_matrix(self._places.buffers[buffer.name], buffer.width)

    def stored(self, segment: Segment) -> Matrix:
        """Weights as they are."""
        base = self.e.at(self._weights, segment.offset)
        return Matrix(base, segment.num_rows, segment.row_size, segment.row_size)

    def scaled(self, segment: Segment) -> Matrix:
        """The copy of the weights times ``forward_scale``."""
        base = self.e.at(self._scratch, self._places.scaled + segment.offset)
        return Matrix(base, segment.num_rows, segment.row_size, segment.row_size)

    def weights(self, segment: Segment) -> Matrix:
        return self.stored(segment) if segment.forward_scale == 1 else self.scaled(segment)

    def transposed(self, segment: Segment) -> Matrix:
        base = self.e.at(self._scratch, self._places.transposed[segment.offset])
        return Matrix(base, segment.row_size, segment.num_rows, segment.num_rows)

    def gradient(self, segment: Segment) -> Matrix:
        base = self.e.at(self._scratch, self._places.gradients + segment.offset)
        return Matrix(base, segment.num_rows, segment.row_size, segment.row_size)


def emit(program: Program, machine: Machine, triple: str) -> ir.Module:
    """Write the function as a module."""
    module = ir.Module("nefbench")
    module.triple = triple
    kinds = [POINTER] * NUM_POINTERS + [INT64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), NAME)
    for argument in function.args[:NUM_POINTERS]:
        argument.add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    e = Emitter(builder, machine)
    weights, state, scratch, coords, targets, factors, samples, scalars, num_steps = function.args
    memory = _Memory(e, program, weights, scratch)
    rows, num_points = program.tile_rows, program.padded_points
    with _flushing_denormals(e, triple), e.loop(0, num_steps) as step:
        _refresh(program, memory)
        with e.loop(0, num_points, rows) as first:
            if program.is_sampled:
                chosen = e.add(e.multiply(step, num_points), first)
                _gather(program, memory, coords, targets, samples, chosen)
                tile_targets = memory.gathered_targets.base
            else:
                tile_targets = e.at(targets, e.multiply(first, program.out_dim))
                base = e.at(coords, e.multiply(first, program.in_dim))
                memory.coords = Matrix(base, rows, program.in_dim, program.in_dim)
            tile_factors = e.at(factors, e.multiply(first, program.out_dim))
            program.network.forward(memory)
            _differentiate_loss(program, memory, tile_targets, tile_factors)
            output = program.network.output
            last = memory.buffer(program.network.last)
            tiles.outer(e, memory.delta, last, memory.gradient(output.kernel), None)
            program.network.backward(memory)
        _sum_output_bias(program, memory)
        at = e.multiply(step, program.num_scalars)
        numbers = [e.load_scalar(scalars, e.add(at, i)) for i in range(program.num_scalars)]
        _update(program, memory, state, numbers)
    builder.ret_void()
    return module


def _refresh(program: Program, memory: _Memory) -> None:
    """Copy weights with the factors of the forward pass, and transposed for the backward pass."""
    e = memory.e
    for segment in program.network.layout.segments:
        if segment.forward_scale == 1:
            continue
        source, target = memory.stored(segment), memory.scaled(segment)
        with e.loop(0, padded(segment.size, ALIGNMENT), ALIGNMENT) as i:
            row = e.load(source.base, i, ALIGNMENT)
            e.store(e.row(e.builder.fmul, row, segment.forward_scale), target.base, i)
    for segment in program.network.transposed:
        source, target = memory.stored(segment), memory.transposed(segment)
        tiles.transpose(e, source, segment.gradient_scale, target)


def _gather(
    program: Program,
    memory: _Memory,
    coords: Value,
    targets: Value,
    samples: Value,
    first: Index,
) -> None:
    """Copy the points of a tile side by side."""
    e = memory.e
    pairs = (
        (coords, memory.coords, program.in_dim),
        (targets, memory.gathered_targets, program.out_dim),
    )
    with e.loop(0, program.tile_rows) as p:
        narrow = e.load_scalar(samples, e.add(first, p), INT32)
        point = e.builder.zext(narrow, INT64)
        for source, target, size in pairs:
            for i in range(size):
                value = e.load_scalar(source, e.add(e.multiply(point, size), i))
                e.store_scalar(value, target.base, e.add(e.multiply(p, size), i))


def _differentiate_loss(program: Program, memory: _Memory, targets: Value, factors: Value) -> None:
    """Fill ``delta`` with the gradient of the loss by the outputs and add it up per point."""
    e, channels, delta = memory.e, program.out_dim, memory.delta
    last = memory.buffer(program.network.last)
    output = program.network.output
    weights, bias = memory.weights(output.kernel), memory.weights(output.bias)

    def store(p: Index, channel: int, values: Value) -> None:
        if channels == 1:
            e.store([values], delta.base, p)
            return
        for lane in range(values.type.count):
            at = e.add(e.multiply(e.add(p, lane), channels), channel)
            value = e.builder.extract_element(values, ir.Constant(INT32, lane))
            e.store_scalar(value, delta.base, at)

    tiles.project(e, last, weights, bias, store)
    with e.loop(0, program.tile_rows * channels, tiles.ROWS) as i:
        values = e.load(delta.base, i, tiles.ROWS)
        if isinstance(program.loss, BCE):
            values = [logistic(e, vector) for vector in values]
        errors = e.row(e.builder.fsub, values, e.load(targets, i, tiles.ROWS))
        slopes = e.row(e.builder.fmul, errors, e.load(factors, i, tiles.ROWS))
        e.store(slopes, delta.base, i)
        sums = e.row(e.builder.fadd, e.load(memory.totals.base, i, tiles.ROWS), slopes)
        e.store(sums, memory.totals.base, i)


def _sum_output_bias(program: Program, memory: _Memory) -> None:
    """Gradient of the output bias; clears the sums for the next step."""
    e, channels, rows = memory.e, program.out_dim, program.tile_rows
    bias = memory.gradient(program.network.output.bias)
    totals = memory.totals.base
    sums = [[e.variable(FLOAT) for _ in range(4)] for _ in range(channels)]
    zero = ir.Constant(FLOAT, 0.0)
    for place in (place for chains in sums for place in chains):
        e.builder.store(zero, place)
    with e.loop(0, rows, 4) as p:
        for channel, chains in enumerate(sums):
            for i, place in enumerate(chains):
                at = e.add(e.multiply(e.add(p, i), channels), channel)
                total = e.builder.load(place, typ=FLOAT)
                e.builder.store(e.builder.fadd(total, e.load_scalar(totals, at)), place)
                e.store_scalar(zero, totals, at)
    for channel, chains in enumerate(sums):
        one, two, three, four = (e.builder.load(place, typ=FLOAT) for place in chains)
        pairs = e.builder.fadd(one, two), e.builder.fadd(three, four)
        e.store_scalar(e.builder.fadd(*pairs), bias.base, channel)


def _update(program: Program, memory: _Memory, state: Value, numbers: list[Value]) -> None:
    """Apply the optimizer to every segment and clear the gradients."""
    e, size = memory.e, program.network.layout.size
    for segment in program.network.layout.segments:
        if not segment.trainable:
            continue
        weights, gradients = memory.stored(segment).base, memory.gradient(segment).base
        states = [e.at(state, segment.offset + i * size) for i in range(program.num_states)]
        with e.loop(0, padded(segment.size, ALIGNMENT), ALIGNMENT) as i:
            rows = [e.load(base, i, ALIGNMENT) for base in (weights, gradients, *states)]
            updated: list[list[Value]] = [[] for _ in range(1 + len(states))]
            for weight, gradient, *old in zip(*rows, strict=True):
                if segment.gradient_scale != 1:
                    scale = e.splat(segment.gradient_scale, gradient)
                    gradient = e.builder.fmul(gradient, scale)
                new, kept = emit_update(e, program.optimizer, weight, gradient, old, numbers)
                for place, vector in zip(updated, (new, *kept), strict=True):
                    place.append(vector)
            for base, row in zip((weights, *states), updated, strict=True):
                e.store(row, base, i)
            e.store(e.zeros(ALIGNMENT), gradients, i)


_X86_FLUSH = 0x8040
_ARM_FLUSH = 1 << 24


@contextlib.contextmanager
def _flushing_denormals(e: Emitter, triple: str) -> Iterator[None]:
    """Treat denormal numbers as zero inside, restore the thread's mode after.

    Once a field interpolates its signal, Adam's second moments fall below 1e-38, where processors
    are tens of times slower.
    """
    builder, kind = e.builder, ir.FunctionType
    module = builder.module
    if triple.startswith("x86_64"):
        signature = kind(ir.VoidType(), [POINTER])
        read = ir.Function(module, signature, "llvm.x86.sse.stmxcsr")
        write = ir.Function(module, signature, "llvm.x86.sse.ldmxcsr")
        before, inside = e.variable(INT32), e.variable(INT32)
        builder.call(read, [before])
        mode = builder.load(before, typ=INT32)
        builder.store(builder.or_(mode, ir.Constant(INT32, _X86_FLUSH)), inside)
        builder.call(write, [inside])
        yield
        builder.call(write, [before])
    else:
        read = ir.Function(module, kind(INT64, []), "llvm.aarch64.get.fpcr")
        write = ir.Function(module, kind(ir.VoidType(), [INT64]), "llvm.aarch64.set.fpcr")
        mode = builder.call(read, [])
        builder.call(write, [builder.or_(mode, ir.Constant(INT64, _ARM_FLUSH))])
        yield
        builder.call(write, [mode])
