"""What the numbers were measured on."""

from __future__ import annotations

import datetime
import platform

import torch

import nefbench
from fitting.bench.report import Machine
from fitting.executors import count_cores
from nefbench.machine import installed_version, processor_name

_SINES_PER_CLOCK = 16
"""Results per clock of a multiprocessor's special function units, compute capability 5 to 9."""


def describe_machine(device: str) -> Machine:
    """Return processor, cores and versions."""
    return Machine(
        processor=processor_name(),
        cores=count_cores(),
        lanes=_lanes(),
        device=device if device == "cpu" else torch.cuda.get_device_name(device),
        python=platform.python_version(),
        nefbench=nefbench.__version__,
        torch=torch.__version__,
        llvmlite=installed_version("llvmlite"),
        jax=installed_version("jax"),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def sines_per_second(device: str) -> float | None:
    """Return what a GPU's special function units can do; None if torch does not tell the clock."""
    properties = torch.cuda.get_device_properties(device)
    kilohertz = getattr(properties, "clock_rate", None)
    if not kilohertz:
        return None
    return float(properties.multi_processor_count * _SINES_PER_CLOCK * kilohertz * 1000)


def _lanes() -> int | None:
    if installed_version("llvmlite") is None:
        return None
    from fitting.engines.fused import compiler

    return compiler.host_machine().lanes
