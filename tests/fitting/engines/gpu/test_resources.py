"""The kernel compiled to machine code of an H100 or H200, by the assembler beside Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitting import FitConfig
from fitting.engines import FitProblem
from fitting.engines.gpu.launch import Precision
from fitting.engines.gpu.resources import Resources, resources_of
from nefbench.fields import MLP, FieldConfig, FourierNet, RFFNet, Siren
from nefbench.signals import grid_coords

triton = pytest.importorskip("triton")
TOOLS = [triton.knobs.nvidia.cuobjdump, triton.knobs.nvidia.ptxas]


def has_assembler() -> bool:
    try:
        return all(Path(tool.path).exists() for tool in TOOLS)
    except RuntimeError:  # what Triton raises if it finds none
        return False


pytestmark = pytest.mark.skipif(not has_assembler(), reason="no ptxas beside Triton")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile every time."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compile_for(
    field: FieldConfig, precision: Precision = "tf32x3", grid_shape: tuple[int, ...] = (8, 8)
) -> Resources:
    in_dim = len(grid_shape)
    problem = FitProblem(
        FitConfig(field=field, pixel_fraction=0.5), field.spec(in_dim, 3), grid_coords(grid_shape),
        3,
    )  # fmt: skip
    return resources_of(problem, precision)


@pytest.mark.parametrize("hidden_dim", [8, 32])
def test_the_usual_sirens_spill_no_registers(hidden_dim: int) -> None:
    needs = compile_for(Siren(hidden_dim=hidden_dim))

    assert needs.registers <= 255
    assert needs.stack_bytes == 0
    # So that at least four programs share a multiprocessor: 227 KiB, 65,536 registers.
    assert 4 * needs.shared_bytes < 227 * 1024
    assert 4 * 32 * needs.num_warps * needs.registers <= 65_536


def test_one_rounding_per_factor_and_three_products_are_different_machine_code() -> None:
    field = Siren(hidden_dim=16)

    rounded, exact = compile_for(field, "tf32"), compile_for(field, "tf32x3")

    # The interpreter knows no TF32: there both give the same numbers.
    assert exact.num_products == 3 * rounded.num_products > 0


@pytest.mark.parametrize(
    ("field", "grid_shape"),
    [
        (RFFNet(hidden_dim=4), (16,)),
        (FourierNet(hidden_dim=8, num_filters=2), (4, 4, 4)),
        (MLP(hidden_dim=64, num_layers=2), (8, 8)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_every_kind_of_field_compiles(field: FieldConfig, grid_shape: tuple[int, ...]) -> None:
    assert compile_for(field, grid_shape=grid_shape).num_products > 0
