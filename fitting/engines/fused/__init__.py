"""Fused CPU kernels: LLVM code written for one field family, optimizer and size."""

from fitting.engines.fused.engine import FusedEngine

__all__ = ["FusedEngine"]
