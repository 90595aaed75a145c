"""Signals to weights: fit one neural field per signal, thousands at a time."""

from fitting.config import FitConfig
from fitting.executors import Automatic, Executor, Processes, Serial, parse_executor
from fitting.fit import FitReport, fit_dataset, run_fit, run_fit_series
from fitting.inits import FromFile, InitConfig, Meta, Random, Shared
from fitting.meta_learning import learn_start
from fitting.optimizers import SGD, AdaBelief, Adam, AdamW, LearnedSGD, OptimizerConfig
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
    "FromFile",
    "InitConfig",
    "LearnedSGD",
    "Meta",
    "OptimizerConfig",
    "Processes",
    "Random",
    "ScheduleConfig",
    "Serial",
    "Shared",
    "WarmupCosine",
    "fit_dataset",
    "learn_start",
    "parse_executor",
    "run_fit",
    "run_fit_series",
]
