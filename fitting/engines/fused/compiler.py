"""Machine code for this processor, kept on disk between runs."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from fitting.engines.fused.emitter import Machine
from nefbench import files

_MAGIC = b"nefbench kernel\n"
# In a process full of other libraries code and constants may lie more than 2 GB apart.
_SETTINGS: dict[str, Any] = {"opt": 3, "reloc": "pic", "codemodel": "large"}


class Kernel:
    """A compiled function of pointers and one count, callable without Python's lock.

    Attributes:
        from_cache: Whether the machine code was found on disk.
    """

    def __init__(self, code: bytes, name: str, num_pointers: int, *, from_cache: bool) -> None:
        empty = llvm.parse_assembly("")
        self._engine = llvm.create_mcjit_compiler(empty, _target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = self._engine.get_function_address(name)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * num_pointers, ctypes.c_int64)
        self._function: Callable[..., None] = kind(address)
        self.from_cache = from_cache

    def __call__(self, pointers: Sequence[int], count: int) -> None:
        """Run to the end."""
        self._function(*pointers, count)


@cache
def host_machine() -> Machine:
    """Registers of this processor."""
    features = _host_features()
    if features.get("avx512f"):
        return Machine(lanes=16, registers=32)
    if features.get("avx2"):
        return Machine(lanes=8, registers=16)
    return Machine(lanes=4, registers=32)


def why_not_here() -> str | None:
    """Say why kernels cannot run on this processor; None if they can."""
    triple = host_triple()
    if triple.startswith("x86_64"):
        features = _host_features()
        if features.get("avx2") and features.get("fma"):
            return None
        return "this processor has no AVX2 with FMA"
    if triple.startswith(("aarch64", "arm64")):
        return None
    return f"there is no kernel for {triple}"


def host_triple() -> str:
    """Name of the processor and system."""
    return str(llvm.get_process_triple())


def compile_kernel(source: str, name: str, num_pointers: int) -> Kernel:
    """Compile LLVM source, or load what an earlier run compiled from the same source.

    The cache is a folder of the user (``$XDG_CACHE_HOME/nefbench``, ``~/.cache/nefbench``). A file
    that is damaged is compiled again; a folder that cannot be written is not used.
    """
    made_by = (llvmlite.__version__, _host_cpu(), _feature_text(), str(_SETTINGS))
    key = hashlib.sha256("\n".join((*made_by, source)).encode()).hexdigest()
    code = _read_cached(key)
    if code is not None:
        return Kernel(code, name, num_pointers, from_cache=True)
    code = _compiled(source)
    _write_cached(key, code)
    return Kernel(code, name, num_pointers, from_cache=False)


def cache_folder() -> Path:
    """Where machine code is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nefbench" / "kernels"


def _compiled(source: str) -> bytes:
    module = llvm.parse_assembly(source)
    module.verify()
    machine = _target_machine()
    builder = llvm.create_pass_builder(machine, _tuning())
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def _tuning() -> Any:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = False  # vectors are written out
    options.slp_vectorization = False
    options.loop_unrolling = False  # so are blocks of iterations
    return options


def _target_machine() -> Any:
    # A new one for every use: an execution engine owns its own and frees it.
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(host_triple())
    return target.create_target_machine(cpu=_host_cpu(), features=_feature_text(), **_SETTINGS)


def _host_cpu() -> str:
    return str(llvm.get_host_cpu_name())


@cache
def _host_features() -> dict[str, bool]:
    return dict(llvm.get_host_cpu_features())


def _feature_text() -> str:
    return str(llvm.get_host_cpu_features().flatten())


def _read_cached(key: str) -> bytes | None:
    try:
        content = (cache_folder() / f"{key}.o").read_bytes()
    except (OSError, RuntimeError):  # the latter from a user without a home
        return None
    head, code = content[: len(_MAGIC) + 32], content[len(_MAGIC) + 32 :]
    if head != _MAGIC + hashlib.sha256(code).digest():
        return None
    return code


def _write_cached(key: str, code: bytes) -> None:
    try:
        path = cache_folder() / f"{key}.o"
        files.write_bytes(path, _MAGIC + hashlib.sha256(code).digest() + code)
    except (OSError, RuntimeError):
        return  # a read-only home costs compile time, nothing else
