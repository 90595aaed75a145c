"""What was measured, as plain records that become JSON."""

from __future__ import annotations

from dataclasses import dataclass

from fitting.bench.cases import Case


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Most fp32 operations per second that could be measured."""

    gflop_per_s: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the numbers are from; versions are None where a library is not installed."""

    processor: str
    cores: int
    lanes: int | None
    """Floats in a vector register; None where llvmlite is not installed."""
    device: str
    """Name of the GPU, or ``cpu``."""
    python: str
    nefbench: str
    torch: str
    llvmlite: str | None
    jax: str | None
    date: str
    """When the run began, ISO 8601, UTC."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One contender on one case; the rate is the median over repetitions."""

    fields: int
    """Fields of one fit."""
    steps: int
    """Steps of one fit."""
    fs_per_s: float
    """Field-steps per second."""
    fs_per_s_best: float
    fs_per_s_worst: float
    cpu_over_wall: float
    """Processor time over wall time: below the number of cores another process had some."""
    gflop_per_s: float
    share_of_peak: float


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """All contenders on one case."""

    name: str
    case: Case
    cores: int
    flop_per_field_step: float
    timings: dict[str, Timing]
    """By contender."""
    refused: dict[str, str]
    """Contenders that do not solve the case, and why."""
    losses: dict[str, float]
    """Mean loss over the check's fields after the check's steps."""
    loss_deviation: dict[str, float]
    """Of the loss from that of the vmapped engine, relative."""
    fastest: str | None
    """The fastest engine of nefbench; None if all were refused or left out."""
    ratios: dict[str, float]
    """Its rate over that of every contender."""


@dataclass(frozen=True, kw_only=True)
class CompileTime:
    """Seconds of ``prepare`` in a process on one core.

    Cold has empty cache folders; the first case of a contender includes loading its compiler.
    """

    case: str
    contender: str
    cold_s: float
    warm_s: float


@dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """One engine at one value of what is varied."""

    varied: str
    """``fields``, ``pixels``, ``width`` or ``steps``."""
    value: int
    engine: str
    fields: int
    steps: int
    fs_per_s: float


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Most resident memory of a fresh process that fits SIREN 3x32 for one step."""

    engine: str
    side: int
    fields: int
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """A fit of MNIST's size on a GPU."""

    engine: str
    fields: int
    """Fields that were fitted; the rest is extrapolated."""
    steps: int
    seconds: float
    """Time of these fields."""
    seconds_whole: float
    """Time of all fields at this rate."""
    fs_per_s: float
    gflop_per_s: float
    share_of_peak: float
    psnr_db_median: float
    """Of the first fields."""
    psnr_db_difference: float
    """Median over fields of the difference from the vmapped engine."""
    psnr_db_worst: float
    """The same for the field that lost most."""
    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Least seconds of the whole job, whatever the engine; None where the clock is not known."""

    multiply_adds_s: float
    """Matrix products at the measured peak."""
    sines_s: float | None
    """Sines and cosines at 16 per clock and multiprocessor (CUDA C++ Programming Guide, table of
    arithmetic throughput)."""


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything one run measured."""

    machine: Machine
    peak: Peak
    """Of one core, or of the GPU."""
    peak_all_cores: Peak | None
    check_steps: int
    repetitions: int
    rows: tuple[CaseResult, ...]
    all_cores: tuple[CaseResult, ...]
    compile: tuple[CompileTime, ...]
    scaling: tuple[ScalingPoint, ...]
    memory: tuple[PeakMemory, ...]
    floors: Floors | None
    job: tuple[JobResult, ...]
    seconds: float
    """Wall time of the run."""
