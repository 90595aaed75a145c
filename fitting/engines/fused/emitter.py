"""Loops, memory and arithmetic on rows of float32 vectors, as LLVM instructions.

A row holds ``n`` floats, ``n`` a multiple of four, as a list of vectors no wider than a register of
the target. All sizes are known when code is emitted; only pointers and step counts are not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

FLOAT = ir.FloatType()
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
POINTER = ir.PointerType()

Value = Any
"""A value of the program being emitted (llvmlite is not typed)."""
Row = list[Value]
Index = int | Value


@dataclass(frozen=True)
class Machine:
    """What the emitted program may use.

    Attributes:
        lanes: Floats in a vector register.
        registers: Vector registers.
    """

    lanes: int
    registers: int


def chunk_sizes(size: int, lanes: int) -> list[int]:
    """Cut ``size`` floats into vectors of ``lanes``, then halves of that down to four."""
    assert size % 4 == 0, size
    sizes = []
    while size:
        while lanes > size:
            lanes //= 2
        sizes.append(lanes)
        size -= lanes
    return sizes


class Emitter:
    """Appends instructions to one function."""

    def __init__(self, builder: ir.IRBuilder, machine: Machine) -> None:
        self.builder = builder
        self.machine = machine
        self._entry = builder.block
        self._intrinsics: dict[str, Value] = {}

    # Control

    @contextlib.contextmanager
    def loop(self, start: Index, stop: Index, step: int = 1) -> Iterator[Value]:
        """Repeat the body for ``start, start + step, ...`` below ``stop``; may run zero times."""
        builder = self.builder
        counter = self.variable(INT64)
        builder.store(self._index(start), counter)
        head = builder.append_basic_block("loop")
        body = builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        position = builder.load(counter, typ=INT64)
        more = builder.icmp_signed("<", position, self._index(stop))
        builder.cbranch(more, body, after)
        builder.position_at_end(body)
        yield position
        builder.store(builder.add(position, ir.Constant(INT64, step)), counter)
        builder.branch(head)
        builder.position_at_end(after)

    def blocks(self, total: int, size: int) -> Iterator[tuple[Index, int]]:
        """Cover ``range(total)`` by full blocks in one loop and a remainder: ``(start, count)``."""
        full = total // size
        if full > 1:
            with self.loop(0, full * size, size) as start:
                yield start, size
        elif full:
            yield 0, size
        if total % size:
            yield full * size, total % size

    def variable(self, kind: ir.Type) -> Value:
        """Return a place that the optimizer turns into a register."""
        with self.builder.goto_block(self._entry):
            if self._entry.is_terminated:
                self.builder.position_before(self._entry.terminator)
            return self.builder.alloca(kind)

    # Addresses and scalars

    def add(self, first: Index, second: Index) -> Index:
        """Sum of two positions."""
        if isinstance(first, int) and isinstance(second, int):
            return first + second
        return self.builder.add(self._index(first), self._index(second))

    def multiply(self, first: Index, factor: int) -> Index:
        """Product of a position and a number."""
        if isinstance(first, int):
            return first * factor
        return self.builder.mul(first, ir.Constant(INT64, factor))

    def at(self, base: Value, offset: Index) -> Value:
        """Address of the float at ``offset``."""
        if isinstance(offset, int) and offset == 0:
            return base
        return self.builder.gep(base, [self._index(offset)], source_etype=FLOAT)

    def load_scalar(self, base: Value, offset: Index, kind: ir.Type = FLOAT) -> Value:
        """Read one number."""
        address = self.builder.gep(base, [self._index(offset)], source_etype=kind)
        return self.builder.load(address, typ=kind, align=4)

    def store_scalar(self, value: Value, base: Value, offset: Index) -> None:
        """Write one float."""
        self.builder.store(value, self.at(base, offset), align=4)

    # Rows

    def sizes(self, size: int) -> list[int]:
        """Vectors of a row of ``size`` floats."""
        return chunk_sizes(size, self.machine.lanes)

    @staticmethod
    def width_of(row: Row) -> int:
        """Floats of a row."""
        return sum(vector.type.count for vector in row)

    def load(self, base: Value, offset: Index, size: int) -> Row:
        """Read a row."""
        row, start = [], 0
        for lanes in self.sizes(size):
            address = self.at(base, self.add(offset, start))
            row.append(self.builder.load(address, typ=ir.VectorType(FLOAT, lanes), align=4))
            start += lanes
        return row

    def store(self, row: Row, base: Value, offset: Index) -> None:
        """Write a row."""
        start = 0
        for vector in row:
            self.builder.store(vector, self.at(base, self.add(offset, start)), align=4)
            start += vector.type.count

    def splat(self, scalar: Value | float, like: Value) -> Value:
        """Repeat a scalar in all lanes of a vector like another."""
        count = like.type.count
        if isinstance(scalar, float | int):
            return ir.Constant(ir.VectorType(FLOAT, count), [float(scalar)] * count)
        single = self.builder.insert_element(
            ir.Constant(ir.VectorType(FLOAT, count), ir.Undefined), scalar, ir.Constant(INT32, 0)
        )
        zeros = ir.Constant(ir.VectorType(INT32, count), [0] * count)
        return self.builder.shuffle_vector(single, single, zeros)

    def zeros(self, size: int) -> Row:
        """A row of zeros."""
        return [
            ir.Constant(ir.VectorType(FLOAT, lanes), [0.0] * lanes) for lanes in self.sizes(size)
        ]

    def row(self, function: Callable[..., Value], *rows: Row | Value | float) -> Row:
        """Apply a function of vectors to rows; scalars are repeated in all lanes."""
        count = next(len(row) for row in rows if isinstance(row, list))
        shape = next(row for row in rows if isinstance(row, list))
        return [
            function(*(r[i] if isinstance(r, list) else self.splat(r, shape[i]) for r in rows))
            for i in range(count)
        ]

    def fma(self, first: Value, second: Value, third: Value) -> Value:
        """``first * second + third``, rounded once."""
        return self._call("llvm.fma", first, second, third)

    def sqrt(self, value: Value) -> Value:
        """Square root, correctly rounded like all arithmetic here: the same on every processor."""
        return self._call("llvm.sqrt", value)

    def positive_part(self, value: Value) -> Value:
        """``max(0, x)``; not a number stays not a number."""
        zero = self.splat(0.0, value)
        return self.builder.select(self.builder.fcmp_ordered(">", zero, value), zero, value)

    def where_positive(self, value: Value, condition: Value) -> Value:
        """``value`` where ``condition`` is above zero or not a number, else 0."""
        zero = self.splat(0.0, value)
        closed = self.builder.fcmp_ordered("<=", condition, zero)
        return self.builder.select(closed, zero, value)

    def without_last(self, row: Row, count: int) -> Row:
        """Set the last ``count`` floats of a row to zero."""
        if not count:
            return row
        last = row[-1]
        lanes = last.type.count
        assert count < lanes, "padding is shorter than a vector"
        mask = [lane if lane < lanes - count else lanes for lane in range(lanes)]
        return [*row[:-1], self.shuffle(last, self.splat(0.0, last), mask)]

    def horizontal_sums(self, rows: Sequence[Row]) -> Value:
        """Return one vector whose lane ``i`` is the sum of row ``i``; as many rows as lanes."""
        count = len(rows)
        vectors = [self._folded(row, count) for row in rows]
        width = count
        while width > 1:
            width //= 2
            vectors = [
                self.builder.fadd(*self._interleaved(vectors[i], vectors[i + width], width))
                for i in range(width)
            ]
        return vectors[0]

    def transposed(self, vectors: Sequence[Value]) -> list[Value]:
        """Transpose a square of ``n`` vectors of ``n`` lanes."""
        result, width = list(vectors), len(vectors)
        while width > 1:
            width //= 2
            for i in range(len(result)):
                if not i & width:
                    result[i], result[i + width] = self._interleaved(
                        result[i], result[i + width], width
                    )
        return result

    def shuffle(self, first: Value, second: Value, lanes: Sequence[int]) -> Value:
        """Choose lanes of two vectors laid end to end."""
        mask = ir.Constant(ir.VectorType(INT32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(first, second, mask)

    def _interleaved(self, first: Value, second: Value, width: int) -> tuple[Value, Value]:
        """Swap blocks of ``width`` lanes: the upper of ``first`` with the lower of ``second``."""
        count = first.type.count
        lower = [lane if not lane & width else lane - width + count for lane in range(count)]
        upper = [lane + width if not lane & width else lane + count for lane in range(count)]
        return self.shuffle(first, second, lower), self.shuffle(first, second, upper)

    def _folded(self, row: Row, count: int) -> Value:
        """Add up the vectors of a row and halve them until ``count`` lanes are left."""
        while True:
            widest = row[0].type.count
            same = [vector for vector in row if vector.type.count == widest]
            rest = row[len(same) :]
            total = same[0]
            for vector in same[1:]:
                total = self.builder.fadd(total, vector)
            if widest == count:
                assert not rest, "no narrower vector than the rows"
                return total
            half = widest // 2
            low = self.shuffle(total, total, range(half))
            high = self.shuffle(total, total, range(half, widest))
            row = [self.builder.fadd(low, high), *rest]

    def _call(self, name: str, *values: Value) -> Value:
        return self.builder.call(self._intrinsic(name, values[0].type, len(values)), values)

    def _intrinsic(self, name: str, kind: ir.VectorType, num_arguments: int) -> Value:
        full_name = f"{name}.v{kind.count}f32"
        if full_name not in self._intrinsics:
            signature = ir.FunctionType(kind, [kind] * num_arguments)
            self._intrinsics[full_name] = ir.Function(self.builder.module, signature, full_name)
        return self._intrinsics[full_name]

    def _index(self, value: Index) -> Value:
        return ir.Constant(INT64, value) if isinstance(value, int) else value
