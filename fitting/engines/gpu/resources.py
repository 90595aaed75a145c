"""What a compiled kernel takes of a GPU that need not be there: registers, stack, shared memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fitting.engines.base import FitProblem
from fitting.engines.gpu.launch import Precision, constants_of, options_of
from fitting.engines.gpu.layout import layout_of


@dataclass(frozen=True)
class Resources:
    """Needs of one program.

    Attributes:
        num_warps: Warps of 32 threads.
        registers: Of a thread; 255 at most.
        stack_bytes: Of a thread, for what the registers do not hold.
        shared_bytes: Of the program; some 220,000 at most.
        num_products: Tensor core instructions in the whole kernel.
    """

    num_warps: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    num_products: int


def resources_of(problem: FitProblem, precision: Precision, *, capability: int = 90) -> Resources:
    """Compile the kernel as a launch would, with the assembler that comes with Triton."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fitting.engines.gpu.kernel import fit_kernel

    layout = layout_of(problem)
    assert layout is not None, "why_not comes first"
    constants, options = constants_of(problem, layout, precision), options_of(layout)
    types = {
        "fields_ptr": "*i32",
        "chosen_ptr": "*i32",
        "delta_scale": "fp32",
        "scales": ("fp32",) * 4,
        "constants": ("fp32",) * 5,
        **dict.fromkeys(constants, "constexpr"),
    }
    names = fit_kernel.arg_names
    signature = {n: types.get(n, "*fp32" if n.endswith("_ptr") else "i32") for n in names}
    # Torch's tensors start at multiples of 16 bytes.
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith("_ptr")}
    source = ASTSource(fit_kernel, signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, listing = (_dump(compiled.asm["cubin"], flag) for flag in ("-res-usage", "-sass"))
    ((registers, stack),) = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    return Resources(
        num_warps=options["num_warps"],
        registers=int(registers),
        stack_bytes=int(stack),
        shared_bytes=compiled.metadata.shared,
        num_products=len(re.findall(r"\bH?G?MMA\.", listing)),
    )


def _dump(cubin: bytes, flag: str) -> str:
    """Show one aspect of machine code."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, flag, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
