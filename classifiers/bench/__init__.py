"""How fast classifiers are trained on this machine."""

from classifiers.bench.measure import CASES, QUICK, TrainBenchConfig, run_train_bench
from classifiers.bench.report import Growth, ModelTiming, TrainBenchReport

__all__ = [
    "CASES",
    "QUICK",
    "Growth",
    "ModelTiming",
    "TrainBenchConfig",
    "TrainBenchReport",
    "run_train_bench",
]
