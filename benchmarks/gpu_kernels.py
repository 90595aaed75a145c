"""What the fused GPU kernels take of an H100 or H200, compiled without one.

    python benchmarks/gpu_kernels.py

Registers and stack are per thread: a stack means spilled registers. Times need the GPU itself.
"""

from __future__ import annotations

from fitting import FitConfig
from fitting.engines import FitProblem
from fitting.engines.gpu.launch import Precision
from fitting.engines.gpu.resources import resources_of
from nefbench.fields import MLP, FieldConfig, FourierNet, RFFNet, Siren
from nefbench.signals import grid_coords

FIELDS: dict[str, FieldConfig] = {
    "SIREN 3x8": Siren(hidden_dim=8),
    "SIREN 3x16": Siren(hidden_dim=16),
    "SIREN 3x32": Siren(),
    "SIREN 5x32": Siren(num_layers=5),
    "SIREN 3x64": Siren(hidden_dim=64),
    "RFFNet 5x32": RFFNet(num_layers=5),
    "FourierNet 4x32": FourierNet(),
    "MLP 3x32": MLP(),
}
PRECISIONS: tuple[Precision, ...] = ("tf32x3", "tf32")


def main() -> None:
    """Print one line per kernel."""
    columns = ("network", "products", "warps", "registers", "stack", "shared", "tensor core")
    print("{:16} {:>8} {:>6} {:>10} {:>6} {:>7} {:>13}".format(*columns))
    for name, field in FIELDS.items():
        problem = FitProblem(FitConfig(field=field), field.spec(2, 1), grid_coords((28, 28)), 1)
        for precision in PRECISIONS:
            needs = resources_of(problem, precision)
            print(
                f"{name:16} {precision:>8} {needs.num_warps:6} {needs.registers:10} "
                f"{needs.stack_bytes:6} {needs.shared_bytes:7} {needs.num_products:13}"
            )


if __name__ == "__main__":
    main()
