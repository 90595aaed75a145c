"""Energy that this machine uses, where its counters may be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class _Counter:
    joules: float
    wraps_at: float = 0.0


class EnergyMeter:
    """Adds up the counters of all processor packages (RAPL) and NVIDIA GPUs (NVML).

    They count for the whole machine, whoever uses it. Those of processors exist on Linux and often
    need root; those of GPUs need ``pip install nvidia-ml-py``. What cannot be read is left out.

    Attributes:
        joules: By counter, since this meter was made and until it was read last.
    """

    def __init__(self, rapl: Path = _RAPL) -> None:
        self._rapl = rapl
        self._last = self._counters()
        self.joules = dict.fromkeys(self._last, 0.0)

    def read(self) -> None:
        """Read on; a package's counter goes round within minutes to hours: read at least as often.

        A counter that cannot be read any more stays where it is.
        """
        current = self._counters()
        for name in self.joules.keys() & current.keys():
            used = current[name].joules - self._last[name].joules
            if used < 0:
                used += current[name].wraps_at
            self.joules[name] += max(0.0, used)
            self._last[name] = current[name]

    def _counters(self) -> dict[str, _Counter]:
        return {**dict(_package_counters(self._rapl)), **dict(_gpu_counters())}


def _package_counters(rapl: Path) -> Iterator[tuple[str, _Counter]]:
    # Packages are zones of one number, intel-rapl:0; parts of them, intel-rapl:0:1, are within.
    for zone in sorted(rapl.glob("*-rapl:*")):
        if zone.name.count(":") == 1:
            with contextlib.suppress(OSError, ValueError):
                used, most = (
                    int((zone / name).read_text(encoding="ascii")) / 1e6
                    for name in ("energy_uj", "max_energy_range_uj")
                )
                yield f"processor {zone.name.partition(':')[2]}", _Counter(used, most)


def _gpu_counters() -> Iterator[tuple[str, _Counter]]:
    try:
        import pynvml
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                yield f"gpu {index}", _Counter(millijoules / 1e3)
    finally:
        pynvml.nvmlShutdown()
