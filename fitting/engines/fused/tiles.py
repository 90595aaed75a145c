"""Products on one tile of points that stays in the first cache: dense, outer, project.

A tile is ``R`` points, ``R`` a multiple of eight. Products hold a block of accumulators in
registers, repeat one number of the left matrix in all lanes and multiply it with a row of the right
one; each row is a field's units of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llvmlite import ir

from fitting.engines.fused.emitter import FLOAT, Emitter, Index, Row, Value

ROWS = 8
"""Points are processed in groups of this many; a tile is a multiple of it."""
_UNROLL = 4
_CHAINS = 8
"""Independent accumulations that hide the latency of a multiply-add."""


@dataclass(frozen=True)
class Matrix:
    """Rows of floats in memory.

    Attributes:
        base: Address.
        num_rows: Rows.
        width: Floats per row.
        stride: Floats from row to row.
    """

    base: Value
    num_rows: int
    width: int
    stride: int


def columns(e: Emitter, matrix: Matrix, first: int, width: int) -> Matrix:
    """Return some columns of a matrix."""
    return Matrix(e.at(matrix.base, first), matrix.num_rows, width, matrix.stride)


def load_row(e: Emitter, matrix: Matrix, index: Index) -> Row:
    """Read a row."""
    return e.load(matrix.base, e.multiply(index, matrix.stride), matrix.width)


def store_row(e: Emitter, row: Row, matrix: Matrix, index: Index) -> None:
    """Write a row."""
    e.store(row, matrix.base, e.multiply(index, matrix.stride))


Finish = Callable[[Index, int, Row], None]
"""Told ``(p, j, row)``: columns from ``j`` on of row ``p`` of a product."""


def dense(e: Emitter, left: Matrix, right: Matrix, start: Matrix | None, finish: Finish) -> None:
    """Call ``finish`` for all of ``start + left @ right``, a panel of columns at a time."""
    for first, width in _panels(e, right.width):
        origin = e.zeros(width) if start is None else e.load(start.base, first, width)
        _dense_panel(e, left, columns(e, right, first, width), origin, first, finish)


def _dense_panel(
    e: Emitter, left: Matrix, right: Matrix, origin: Row, column: int, finish: Finish
) -> None:
    size = _block_rows(e, len(origin), 16 if len(origin) == 1 else ROWS)
    for first, count in e.blocks(left.num_rows, size):
        sums = [[e.variable(vector.type) for vector in origin] for _ in range(count)]
        for row in sums:
            for place, vector in zip(row, origin, strict=True):
                e.builder.store(vector, place)
        for k_first, k_count in e.blocks(right.num_rows, _UNROLL):
            for k in range(k_count):
                position = e.add(k_first, k)
                weights = load_row(e, right, position)
                for p, row in enumerate(sums):
                    at = e.add(e.multiply(e.add(first, p), left.stride), position)
                    _accumulate(e, row, e.load_scalar(left.base, at), weights)
        for p, row in enumerate(sums):
            finish(e.add(first, p), column, [_read(e, place) for place in row])


def outer(e: Emitter, left: Matrix, right: Matrix, total: Matrix, bias: Matrix | None) -> None:
    """Add ``left^T @ right`` to ``total``, and the sum of the rows of ``right`` to ``bias``."""
    for column, width in _panels(e, right.width):
        panel = columns(e, right, column, width)
        if bias is not None:
            _add_outer(e, None, panel, columns(e, bias, column, width), 0, 1)
        size = _block_rows(e, len(e.sizes(width)), ROWS)
        for first, count in e.blocks(left.width, size):
            _add_outer(e, left, panel, columns(e, total, column, width), first, count)


def _add_outer(
    e: Emitter, left: Matrix | None, right: Matrix, total: Matrix, first: Index, count: int
) -> None:
    """Add to ``count`` rows of ``total`` from ``first`` on; without ``left``, as if it were 1."""
    kinds = [vector.type for vector in e.zeros(right.width)]
    chains = 1
    while chains * count * len(kinds) < _CHAINS and right.num_rows % (2 * chains) == 0:
        chains *= 2
    sums = [[[e.variable(kind) for kind in kinds] for _ in range(count)] for _ in range(chains)]
    for chain, block in enumerate(sums):
        for k, row in enumerate(block):
            begin = e.zeros(right.width) if chain else load_row(e, total, e.add(first, k))
            for place, vector in zip(row, begin, strict=True):
                e.builder.store(vector, place)
    with e.loop(0, right.num_rows, chains) as p_first:
        for chain, block in enumerate(sums):
            p = e.add(p_first, chain)
            gradient = load_row(e, right, p)
            for k, row in enumerate(block):
                if left is None:
                    for place, vector in zip(row, gradient, strict=True):
                        e.builder.store(e.builder.fadd(_read(e, place), vector), place)
                else:
                    at = e.add(e.multiply(p, left.stride), e.add(first, k))
                    _accumulate(e, row, e.load_scalar(left.base, at), gradient)
    for k in range(count):
        rows = [[_read(e, place) for place in block[k]] for block in sums]
        while len(rows) > 1:
            rows = [
                e.row(e.builder.fadd, one, two)
                for one, two in zip(rows[::2], rows[1::2], strict=True)
            ]
        store_row(e, rows[0], total, e.add(first, k))


def project(
    e: Emitter,
    left: Matrix,
    right: Matrix,
    bias: Matrix,
    finish: Callable[[Index, int, Value], None],
) -> None:
    """Call ``finish(p, i, bias[i] + left[p : p + n] . right[i])`` for groups of ``n`` rows."""
    size = min(ROWS, *e.sizes(right.width))
    for first, count in e.blocks(left.num_rows, size):
        rows = [load_row(e, left, e.add(first, p)) for p in range(count)]
        for channel in range(right.num_rows):
            weights = load_row(e, right, channel)
            products = [e.row(e.builder.fmul, row, weights) for row in rows]
            sums = e.horizontal_sums(products)
            shift = e.splat(e.load_scalar(bias.base, channel), sums)
            finish(first, channel, e.builder.fadd(sums, shift))


def transpose(e: Emitter, source: Matrix, scale: float, target: Matrix) -> None:
    """Write ``scale * source[k, j]`` to ``target[j, k]``."""
    size = max(n for n in (4, 8, 16) if n <= e.machine.lanes and _divides(n, source, target))
    kind = ir.VectorType(FLOAT, size)
    with e.loop(0, source.num_rows, size) as k, e.loop(0, source.width, size) as j:
        square = []
        for i in range(size):
            at = e.add(e.multiply(e.add(k, i), source.stride), j)
            vector = e.builder.load(e.at(source.base, at), typ=kind, align=4)
            square.append(vector if scale == 1 else e.builder.fmul(vector, e.splat(scale, vector)))
        for i, vector in enumerate(e.transposed(square)):
            at = e.add(e.multiply(e.add(j, i), target.stride), k)
            e.builder.store(vector, e.at(target.base, at), align=4)


def _panels(e: Emitter, width: int) -> Iterator[tuple[int, int]]:
    """Cut columns into ``(first, width)`` so that a block of accumulators stays in registers."""
    most = e.machine.lanes * (4 if e.machine.registers >= 32 else 2)
    for first in range(0, width, most):
        yield first, min(most, width - first)


def _block_rows(e: Emitter, num_vectors: int, limit: int) -> int:
    """Rows of accumulators that fit into the registers, a power of two."""
    room = (e.machine.registers - 6) // num_vectors
    rows = 1
    while rows * 2 <= min(room, limit):
        rows *= 2
    return rows


def _divides(size: int, source: Matrix, target: Matrix) -> bool:
    return source.num_rows % size == 0 and source.width % size == 0 and target.stride % size == 0


def _accumulate(e: Emitter, row: list[Value], scalar: Value, vectors: Row) -> None:
    for place, vector in zip(row, vectors, strict=True):
        e.builder.store(e.fma(e.splat(scalar, vector), vector, _read(e, place)), place)


def _read(e: Emitter, place: Value) -> Value:
    return e.builder.load(place, typ=place.allocated_type)
