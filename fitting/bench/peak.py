"""The fp32 peak of this machine, measured: what every rate is compared with."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import torch

from fitting.bench.report import Peak

_ACCUMULATORS = 20
"""Independent chains: two units times a latency of up to six cycles need twelve, registers allow
some more."""
_ITERATIONS = 8_000_000
"""Some 30 ms on a core with 16 lanes."""
_REPETITIONS = 10
_MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}


def measure_peak(device: str, threads: int) -> Peak:
    """Return the best of ten runs of about 30 ms on so many cores, or on the GPU."""
    if device != "cpu":
        return _matmul_peak(device)
    if find_spec("llvmlite") is None or _why_no_kernel() is not None:
        return _matmul_peak("cpu")
    return _fma_peak(threads)


def _why_no_kernel() -> str | None:
    from fitting.engines.fused import compiler

    return compiler.why_not_here()


def _fma_peak(threads: int) -> Peak:
    """Time multiply-adds that touch nothing but registers, on every core at once."""
    from fitting.engines.fused import compiler

    lanes = compiler.host_machine().lanes
    kernel = compiler.compile_kernel(_fma_loop(), "peak", 1)
    buffers = [torch.empty(_ACCUMULATORS * lanes) for _ in range(threads)]
    flop = 2.0 * _ACCUMULATORS * lanes * _ITERATIONS * threads
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_REPETITIONS):
            for buffer in buffers:
                buffer.fill_(0.5)  # x <- 0.5 x + 0.5 goes to 1: neither overflow nor denormals
            begin = time.perf_counter()
            list(pool.map(lambda buffer: kernel([buffer.data_ptr()], _ITERATIONS), buffers))
            best = max(best, flop / (time.perf_counter() - begin))
    return Peak(gflop_per_s=best / 1e9, method=f"FMA loop, {lanes} lanes")


def _fma_loop() -> str:
    """Write a loop of independent multiply-adds in LLVM's language."""
    from llvmlite import ir

    from fitting.engines.fused import compiler, emitter

    module = ir.Module("peak")
    module.triple = compiler.host_triple()
    signature = ir.FunctionType(ir.VoidType(), [emitter.POINTER, emitter.INT64])
    function = ir.Function(module, signature, "peak")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    machine = compiler.host_machine()
    emit = emitter.Emitter(builder, machine)
    kind = ir.VectorType(emitter.FLOAT, machine.lanes)
    (factor,) = emit.load(function.args[0], 0, machine.lanes)
    chains: list[Any] = [emit.variable(kind) for _ in range(_ACCUMULATORS)]
    for i, chain in enumerate(chains):  # equal values that the compiler cannot know to be equal
        builder.store(emit.load(function.args[0], i * machine.lanes, machine.lanes)[0], chain)
    with emit.loop(0, function.args[1]):
        for chain in chains:
            builder.store(emit.fma(builder.load(chain, typ=kind), factor, factor), chain)
    for i, chain in enumerate(chains):  # without a result there would be nothing to compute
        emit.store([builder.load(chain, typ=kind)], function.args[0], i * machine.lanes)
    builder.ret_void()
    return str(module)


def _matmul_peak(device: str) -> Peak:
    """Time torch's own fp32 product (the caller has turned TF32 off)."""
    kind = torch.device(device).type
    size = _MATRIX_SIZE[kind]
    matrix = torch.ones(size, size, device=device)
    result = matrix @ matrix
    best = 0.0
    for _ in range(_REPETITIONS):
        _wait(device)
        begin = time.perf_counter()
        torch.mm(matrix, matrix, out=result)
        _wait(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - begin))
    return Peak(gflop_per_s=best / 1e9, method=f"torch fp32 product of {size} x {size} matrices")


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
