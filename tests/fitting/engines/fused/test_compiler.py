from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llvmlite import binding as llvm

from fitting.engines.fused import compiler, kernel, networks
from fitting.engines.fused.emitter import Machine
from fitting.losses import BCE, MSE
from fitting.optimizers import Adam, AdamW
from nefbench.fields import MLP, FieldConfig, FourierNet, RFFNet, Siren

DOUBLING = """
define void @"double"(ptr %x, i64 %n)
{
  %value = load float, ptr %x
  %twice = fadd float %value, %value
  store float %twice, ptr %x
  ret void
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return compiler.cache_folder()


def doubled(value: float) -> tuple[float, bool]:
    kernel = compiler.compile_kernel(DOUBLING, "double", 1)
    number = torch.tensor([value])
    kernel([number.data_ptr()], 0)
    return float(number), kernel.from_cache


def test_machine_code_is_kept_for_the_next_run(own_cache: Path) -> None:
    assert doubled(3.0) == (6.0, False)
    assert doubled(4.0) == (8.0, True)
    assert [path.suffix for path in own_cache.iterdir()] == [".o"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_compiled_again(own_cache: Path, damage: str) -> None:
    doubled(1.0)
    (path,) = own_cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"cut": content[:60], "flipped": content, "empty": b""}[damage])

    assert doubled(3.0) == (6.0, False)
    assert doubled(3.0) == (6.0, True)


def test_without_a_place_to_write_it_is_compiled_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert doubled(3.0) == (6.0, False)
    assert doubled(3.0) == (6.0, False)


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)

    assert doubled(3.0) == (6.0, False)
    assert doubled(3.0) == (6.0, False)


def test_kernels_outlive_others_that_are_thrown_away() -> None:
    kept = compiler.compile_kernel(DOUBLING, "double", 1)
    for factor in range(3):
        compiler.compile_kernel(DOUBLING.replace("value", f"value{factor}"), "double", 1)
    number = torch.ones(1)

    kept([number.data_ptr()], 0)

    assert float(number) == 2


@pytest.mark.parametrize(
    ("triple", "cpu", "machine"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64-v3", Machine(lanes=8, registers=16)),
        ("x86_64-unknown-linux-gnu", "x86-64-v4", Machine(lanes=16, registers=32)),
        ("arm64-apple-darwin", "apple-m1", Machine(lanes=4, registers=32)),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", Machine(lanes=4, registers=32)),
    ],
)
@pytest.mark.parametrize(
    "field",
    [Siren(hidden_dim=20), RFFNet(hidden_dim=12), FourierNet(), MLP()],
    ids=lambda f: f.kind,
)
def test_kernels_can_be_written_for_other_processors(
    field: FieldConfig, triple: str, cpu: str, machine: Machine
) -> None:
    network = networks.describe(field, field.spec(2, 3))
    assert network is not None
    program = kernel.Program(network, AdamW(), BCE(), 2, 3, 40, True, 3)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()

    module = llvm.parse_assembly(str(kernel.emit(program, machine, triple)))
    target = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=1)
    assembly = target.emit_assembly(module)

    # Nothing is left that would have to be called, like an fma without hardware.
    calls = [line for line in assembly.splitlines() if line.strip().startswith(("call", "bl\t"))]
    assert calls == []


def test_a_tile_fits_the_cache_and_wastes_few_points() -> None:
    def tile_of(field: FieldConfig, num_points: int) -> tuple[int, int]:
        network = networks.describe(field, field.spec(2, 1))
        assert network is not None
        program = kernel.Program(network, Adam(), MSE(), 2, 1, num_points, False, 2)
        return program.tile_rows, program.padded_points

    # Two layers of 32 sines and cosines: 512 bytes per point, so at most 64 points in 32 kB.
    assert tile_of(Siren(), 784) == (56, 784)
    assert tile_of(Siren(), 64) == (64, 64)
    assert tile_of(Siren(), 20) == (24, 24)
    assert tile_of(Siren(hidden_dim=512, num_layers=6), 1024) == (32, 1024)
