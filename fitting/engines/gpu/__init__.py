"""The fused engine for GPUs: whole fits in one Triton kernel. Importing this needs no Triton."""

from fitting.engines.base import Engine
from fitting.engines.gpu.engine import TritonEngine

GPU_ENGINES: tuple[Engine, ...] = (
    TritonEngine("fused", "tf32x3"),
    TritonEngine("fused-tf32", "tf32"),
)
"""As exact as float32, and with factors rounded to TF32, which has to be asked for."""

__all__ = ["GPU_ENGINES", "TritonEngine"]
