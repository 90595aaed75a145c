"""The learning rate of every step."""

from __future__ import annotations

import math

from classifiers.config import ClassifierConfig


def learning_rate_at(config: ClassifierConfig, step: int, num_steps: int) -> float:
    """Return the rate of a step.

    Args:
        config: Peak, warm-up and schedule.
        step: From 0.
        num_steps: Steps in ``num_epochs`` epochs.
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return rate
    share = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return rate * (1 + math.cos(math.pi * min(1.0, share))) / 2
