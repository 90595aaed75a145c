"""The fused GPU engine: a whole fit in one Triton kernel, one program per field."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import ClassVar

import torch

from fitting.config import EngineName
from fitting.engines.base import Block, FitProblem, Missing, WholeFits, why_not_in_kernel
from fitting.engines.gpu.launch import GpuRun, Precision
from fitting.engines.gpu.layout import layout_of

_WIDEST = 64
"""Hidden units; at 128 the gradient of one kernel takes a quarter of all registers."""
_LARGEST_BLOCK = 4096
_BLOCK_BYTES = 2**30


@dataclass(frozen=True)
class TritonEngine(WholeFits):
    """Fits all fields of a block at once, many steps per launch.

    Attributes:
        name: How a configuration asks for it.
        precision: Of matrix products. ``tf32x3`` splits every factor in two and is as exact as
            float32; ``tf32`` rounds factors to 11 bits, a third of the products, and costs fields
            above 35 dB several dB.
        steps_per_launch: Most steps before it asks whether to stop; the rows do not depend on it.
    """

    name: EngineName
    precision: Precision
    steps_per_launch: int = 200
    uses_threads: ClassVar[bool] = False
    needs_full_blocks: ClassVar[bool] = False

    @property
    def signature(self) -> str:
        """What decides how it rounds; see ``Engine.signature``."""
        import triton

        return f"triton-{triton.__version__}-{_target()}-{self.precision}"

    def why_not(self, problem: FitProblem) -> str | None:
        """Say what is missing, or what it cannot fit; see ``Engine.why_not``."""
        field = problem.config.field
        layout = layout_of(problem)
        if layout is None:
            return f"it has no kernel for {field.kind}"
        if layout.padded_hidden > _WIDEST or layout.padded_out > _WIDEST:
            return f"more than {_WIDEST} hidden units or channels do not fit on chip"
        return why_not_in_kernel(problem.config.optimizer) or _why_not_here(problem.coords.device)

    def block_size(self, problem: FitProblem) -> int:
        """Return a power of two: 4096 fields, fewer where their data would exceed 1 GiB."""
        per_field = 4 * problem.num_points * (problem.out_dim + problem.coords.shape[-1])
        fitting = max(1, _BLOCK_BYTES // per_field)
        return min(_LARGEST_BLOCK, 1 << fitting.bit_length() - 1)

    def prepare(self, problem: FitProblem) -> None:
        """Compile the kernel by running no step of one field."""
        start = problem.coords.new_zeros(1, problem.spec.num_params)
        targets = problem.coords.new_zeros(1, problem.num_points, problem.out_dim)
        self.start(problem, Block(start, targets)).launch(range(0))

    def start(self, problem: FitProblem, block: Block) -> GpuRun:
        """Begin to fit one block; see ``Engine.start``."""
        return GpuRun(problem, block, self.precision, self.steps_per_launch)


def _why_not_here(device: torch.device) -> str | None:
    """Say what this machine lacks to run the kernel; None if nothing."""
    if device.type != "cuda" and not _is_interpreted():
        return f"it computes on a GPU, not on {device.type}"
    if importlib.util.find_spec("triton") is None:
        return Missing("Triton is not installed")
    if _is_interpreted():
        return None
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs an NVIDIA GPU with TF32 (compute capability 8.0)"
    return None


def _target() -> str:
    """Name the instruction set that the kernel is compiled for."""
    if _is_interpreted():
        return "interpreter"
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def _is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which decides this when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"
