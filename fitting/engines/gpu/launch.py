"""How the kernel is compiled for a problem and launched on a block of fields."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from fitting.engines.base import Block, FitProblem, Run
from fitting.engines.gpu.layout import Layout, layout_of
from fitting.engines.gpu.tables import delta_scale, moment_constants, step_scalars

Precision = Literal["tf32x3", "tf32"]

_TILE = 16
"""Points in a tile: the height of a tensor core's product. Larger tiles spill registers."""
_POINTS_PER_LAUNCH = 2**20
"""Points times steps of one field: a block then takes about a second at most."""


def constants_of(problem: FitProblem, layout: Layout, precision: Precision) -> dict[str, Any]:
    """Return the kernel's compile-time constants."""
    return {
        "FAMILY": problem.config.field.kind,
        "LOSS": problem.loss.kind,
        "OPTIMIZER": problem.config.optimizer.kind,
        "PRECISION": precision,
        "IS_SAMPLED": problem.is_sampled,
        "NUM_MAPS": len(layout.network.maps),
        "NUM_HIDDEN": len(layout.network.hidden),
        "FITTED_ROWS": layout.fitted_rows,
        "FREQUENCIES": layout.hidden_dim // 2 if layout.network.is_paired else 0,
        "IN_DIM": layout.in_dim,
        "OUT_DIM": layout.out_dim,
        "T": _TILE,
        "D": 1 << layout.in_dim.bit_length(),
        "M": layout.map_width,
        "H": layout.padded_hidden,
        "C": layout.padded_out,
        "ROW_SIZE": layout.row_size,
    }


def options_of(layout: Layout) -> dict[str, Any]:
    """Return the compiler's options.

    A warp has 16 hidden units and all points of a tile: one whole product. With more warps each
    would repeat more of the others' work, with fewer it would have too few registers.
    """
    warps = max(1, layout.padded_hidden // 16)
    # One stage: what a tile needs is in the caches, prefetching it would only take space.
    return {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}


class GpuRun(Run):
    """The fields of one block on the device, between launches.

    Args:
        problem: One that the kernel can solve.
        block: The fields.
        precision: Of products.
        steps_per_launch: At most.
    """

    def __init__(
        self, problem: FitProblem, block: Block, precision: Precision, steps_per_launch: int
    ) -> None:
        super().__init__(problem, block)
        layout = layout_of(problem)
        assert layout is not None, "why_not comes first"
        self._problem, self._layout, self._precision = problem, layout, precision
        self._at_once = min(steps_per_launch, max(1, _POINTS_PER_LAUNCH // problem.num_sampled))
        self._weights = layout.pack(block.start)
        self._moments = torch.zeros_like(self._weights), torch.zeros_like(self._weights)
        self._coords = (problem.coords if block.coords is None else block.coords).contiguous()
        self._coords_stride = 0 if block.coords is None else self._coords.stride(0)
        self._targets = block.targets.contiguous()
        self._scalars = step_scalars(problem)

    def _take(self, steps: range, threads: int, check_stop: Callable[[], None]) -> None:
        del threads
        for first in range(steps.start, steps.stop, self._at_once):
            check_stop()
            self.launch(range(first, min(first + self._at_once, steps.stop)))

    def launch(self, steps: range) -> None:
        """Run steps, counted from 0; returns before the device is done with them."""
        from fitting.engines.gpu.kernel import fit_kernel

        problem, device = self._problem, self._weights.device
        # Drawing points takes time: let the device do the steps before these meanwhile.
        chosen, scalars = self._chosen(steps), self._scalars[steps.start : steps.stop]
        with _on(device):
            fields = self._active.nonzero().flatten().int()
            fit_kernel[(len(fields),)](
                fields,
                self._weights,
                *self._moments,
                self._coords,
                self._targets,
                chosen.to(device),
                scalars.to(device),
                len(steps),
                problem.num_points,
                problem.num_sampled,
                self._coords_stride,
                delta_scale(problem),
                self._layout.network.scales,
                moment_constants(problem.config.optimizer),
                **constants_of(problem, self._layout, self._precision),
                **options_of(self._layout),
            )

    def _current_rows(self) -> Tensor:
        return self._layout.unpack(self._weights)

    def _chosen(self, steps: range) -> Tensor:
        """Positions ``[S, q]`` of the points of some steps; empty if every step has all."""
        samples = [self._problem.sample(step + 1) for step in steps if self._problem.is_sampled]
        return torch.stack(samples).int() if samples else torch.empty(0, dtype=torch.int32)


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Launch on that device, after what runs there: stopping must not wait for many launches."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    torch.cuda.synchronize(device)
    return torch.cuda.device(device)
