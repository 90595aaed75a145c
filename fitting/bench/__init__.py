"""How fast fields are fitted: engines against baselines and against the machine."""

from fitting.bench.cases import QUICK, BenchConfig, Case, JobConfig, ScalingConfig
from fitting.bench.measure import run_bench
from fitting.bench.report import BenchReport

__all__ = [
    "QUICK",
    "BenchConfig",
    "BenchReport",
    "Case",
    "JobConfig",
    "ScalingConfig",
    "run_bench",
]
