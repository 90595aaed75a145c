"""How a classifier is trained: the whole recipe in one frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from classifiers.augmentation import Augmentation
from classifiers.gauge_fixing import GaugeFixing
from classifiers.models import MLP, ModelConfig

CLASS = "class"
"""The target that is no property: the class of a signal."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Model and training. Defaults: the strong flat-weight setting of independent replications."""

    model: ModelConfig = MLP()
    target: str | tuple[str, ...] = CLASS
    """``class``, or the numeric property or properties of the signals to be predicted."""
    learning_rate: float = 1e-3
    """Rate of AdamW, after the warm-up and before the schedule."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly from almost 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """``cosine`` lets the rate fall to 0 at the end of ``num_epochs`` (Loshchilov and Hutter 2017,
    arXiv 1608.03983, without restarts)."""
    weight_decay: float = 1e-2
    """Decoupled weight decay of AdamW."""
    amsgrad: bool = False
    """Whether AdamW keeps the maximum of its second moment."""
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters together; None: any."""
    ema_decay: float | None = None
    """Validate, test and keep an exponential moving average of the parameters that forgets at
    most this slowly; None: the parameters themselves."""
    batch_size: int = 128
    num_epochs: int = 100
    """Most passes over the training split."""
    patience: int | None = 15
    """Stop after this many epochs without better validation accuracy; None: never."""
    gauge_fixing: GaugeFixing = "none"
    """Form that all rows are brought to once, before anything else: training, validation, test and
    what the finished classifier reads. The reference of ``aligned`` comes from training rows."""
    augmentation: Augmentation = Augmentation()
    """What is done to the weights while training, after gauge fixing."""
    noise_std: float = 0.0
    """Gaussian noise on the normalised weights while training, fresh in every epoch: its generator
    is seeded by seed and epoch."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do with fields whose weights are not finite: end with an error, or leave them out
    and count them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's products while training; parameters, normalisation, loss and everything
    that is reported stay float32."""
    compile: bool = False
    """Compile the network for training (``torch.compile``)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training per seed; results are reported as mean and standard deviation over them."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected learning_rate > 0 (got {self.learning_rate})")
        for name in ("weight_decay", "noise_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} >= 0 (got {getattr(self, name)})")
        for name, least in (("batch_size", 2), ("num_epochs", 1), ("warmup_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least} (got {getattr(self, name)})")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"expected patience >= 1 (got {self.patience})")
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            raise ValueError(f"expected gradient_clip > 0 (got {self.gradient_clip})")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"expected 0 < ema_decay < 1 (got {self.ema_decay})")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"expected seeds that differ and are >= 0 (got {self.seeds})")
        if self.gauge_fixing != "none" and self.augmentation.gauge:
            raise ValueError(
                f"gauge_fixing = {self.gauge_fixing!r} takes away what augmentation.gauge = "
                f"{list(self.augmentation.gauge)} brings in; leave out one of them"
            )
        self._check_target()

    def _check_target(self) -> None:
        names = self.properties
        if self.target == CLASS:
            return
        if not names or CLASS in names or len(set(names)) != len(names):
            raise ValueError(
                f"expected target 'class', or properties that differ (got {self.target!r})"
            )

    @property
    def properties(self) -> tuple[str, ...]:
        """Properties to be predicted; empty for classes."""
        if self.target == CLASS:
            return ()
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)
