from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from llvmlite import ir

from fitting.engines.fused import compiler
from fitting.engines.fused.emitter import INT64, POINTER, Emitter, Machine, Value, chunk_sizes


def run(emit: Callable[[Emitter, Value, Value], None], source: np.ndarray, size: int) -> np.ndarray:
    """Emit a function of a source and a target array, run it, and return the target."""
    module = ir.Module("test")
    module.triple = compiler.host_triple()
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, INT64])
    body = ir.Function(module, kind, "test")
    builder = ir.IRBuilder(body.append_basic_block("entry"))
    emit(Emitter(builder, Machine(lanes=16, registers=32)), *body.args[:2])
    builder.ret_void()
    numbers, result = torch.from_numpy(source.astype(np.float32)), torch.zeros(size)
    kernel = compiler.compile_kernel(str(module), "test", 2)
    kernel([numbers.data_ptr(), result.data_ptr()], 0)
    return result.numpy()


@pytest.mark.parametrize(
    ("size", "lanes", "expected"),
    [
        (4, 16, [4]),
        (8, 16, [8]),
        (12, 16, [8, 4]),
        (32, 16, [16, 16]),
        (44, 16, [16, 16, 8, 4]),
        (20, 8, [8, 8, 4]),
        (12, 4, [4, 4, 4]),
    ],
)
def test_a_row_is_cut_into_the_widest_vectors(size: int, lanes: int, expected: list[int]) -> None:
    assert chunk_sizes(size, lanes) == expected


@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_square_is_transposed(size: int) -> None:
    square = np.arange(size * size).reshape(size, size)

    def emit(e: Emitter, source: Value, target: Value) -> None:
        rows = [e.load(source, i * size, size)[0] for i in range(size)]
        for i, row in enumerate(e.transposed(rows)):
            e.store([row], target, i * size)

    assert np.array_equal(run(emit, square.ravel(), size * size).reshape(size, size), square.T)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (8, 8), (8, 16), (4, 12), (8, 24), (8, 40)])
def test_every_row_is_summed_into_its_lane(rows: int, columns: int) -> None:
    values = np.random.default_rng(0).integers(-9, 9, (rows, columns))

    def emit(e: Emitter, source: Value, target: Value) -> None:
        loaded = [e.load(source, i * columns, columns) for i in range(rows)]
        e.store([e.horizontal_sums(loaded)], target, 0)

    assert run(emit, values.ravel(), rows).tolist() == values.sum(1).tolist()


@pytest.mark.parametrize("total", [1, 3, 4, 8, 11])
def test_blocks_cover_a_range_once(total: int) -> None:
    def emit(e: Emitter, source: Value, target: Value) -> None:
        for first, count in e.blocks(total, 4):
            for i in range(count):
                at = e.add(first, i)
                before = e.load_scalar(target, at)
                value = e.builder.fadd(before, e.load_scalar(source, at))
                e.store_scalar(value, target, at)

    source = np.arange(1, total + 1)
    assert run(emit, source, total).tolist() == source.tolist()


def test_a_positive_part_keeps_what_is_not_a_number() -> None:
    values = np.array([-1.0, 0.0, 2.0, np.nan])

    def emit(e: Emitter, source: Value, target: Value) -> None:
        e.store([e.positive_part(v) for v in e.load(source, 0, 4)], target, 0)

    np.testing.assert_array_equal(run(emit, values, 4), [0, 0, 2, np.nan])


def test_roots_are_correctly_rounded() -> None:
    values = np.concatenate([[0.0], np.geomspace(1e-30, 1e30, 15)]).astype(np.float32)

    def emit(e: Emitter, source: Value, target: Value) -> None:
        e.store([e.sqrt(vector) for vector in e.load(source, 0, 16)], target, 0)

    assert run(emit, values, 16).tolist() == np.sqrt(values).tolist()


def test_the_last_floats_of_a_row_are_cleared() -> None:
    def emit(e: Emitter, source: Value, target: Value) -> None:
        e.store(e.without_last(e.load(source, 0, 12), 3), target, 0)

    assert run(emit, np.arange(1, 13), 12).tolist() == [*range(1, 10), 0, 0, 0]
