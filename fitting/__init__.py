"""Signals to weights: fit one neural field per signal, thousands at a time."""

from fitting.config import FitConfig
from fitting.executors import Automatic, Executor, Processes, Serial, parse_executor
from fitting.fit import FitReport, fit_dataset, run_fit
from fitting.inits import InitConfig, Random, Shared
from fitting.optimizers import SGD, AdaBelief, Adam, AdamW, OptimizerConfig
from fitting.schedules import Constant, ScheduleConfig, WarmupCosine

__all__ = [
    "SGD",
    "AdaBelief",
    "Adam",
    "AdamW",
    "Automatic",
    "Constant",
    "Executor",
    "FitConfig",
    "FitReport",
    "InitConfig",
    "OptimizerConfig",
    "Processes",
    "Random",
    "ScheduleConfig",
    "Serial",
    "Shared",
    "WarmupCosine",
    "fit_dataset",
    "parse_executor",
    "run_fit",
]
