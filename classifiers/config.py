"""How a classifier is trained: the whole recipe in one frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from classifiers.models import MLP, ModelConfig


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Model and training. Defaults: the strong flat-weight setting of independent replications."""

    model: ModelConfig = MLP()
    learning_rate: float = 1e-3
    """Rate of AdamW, constant."""
    weight_decay: float = 1e-2
    """Decoupled weight decay of AdamW."""
    amsgrad: bool = False
    """Whether AdamW keeps the maximum of its second moment."""
    batch_size: int = 128
    num_epochs: int = 100
    """Most passes over the training split."""
    patience: int | None = 15
    """Stop after this many epochs without better validation accuracy; None: never."""
    noise_std: float = 0.0
    """Gaussian noise on the normalised weights while training, fresh in every epoch."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training per seed; results are reported as mean and standard deviation over them."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected learning_rate > 0 (got {self.learning_rate})")
        for name in ("weight_decay", "noise_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} >= 0 (got {getattr(self, name)})")
        for name in ("batch_size", "num_epochs"):
            least = 2 if name == "batch_size" else 1
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least} (got {getattr(self, name)})")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"expected patience >= 1 (got {self.patience})")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"expected seeds that differ and are >= 0 (got {self.seeds})")
