"""The embedded signals: 1,797 handwritten digits of 8 x 8 pixels that ship with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nefbench.config import config_to_mapping
from nefbench.errors import SignalError
from nefbench.seeding import permutation
from nefbench.signals.array import signals_from_array
from nefbench.signals.base import GridSignals

_PEAK = 16.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsConfig:
    """UCI optical recognition of handwritten digits, test part (Alpaydin and Kaynak 1998).

    The file orders digits by writer; a drawn permutation spreads the writers over the splits.
    """

    kind: Literal["digits"] = "digits"
    validation_size: int = 180
    """Signals in the validation split."""
    test_size: int = 360
    """Signals in the test split."""
    split_seed: int = 0
    """Seed of the permutation that assigns signals to splits."""
    max_signals: int | None = None
    """Keep only the first signals of the permutation; for trials."""

    def __post_init__(self) -> None:
        if not 0 <= self.split_seed < 2**63:
            raise ValueError(f"expected split_seed from 0 to 2**63 - 1 (got {self.split_seed})")
        for name in ("validation_size", "test_size", "max_signals"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"expected {name} >= 1 (got {size})")

    def open(self) -> GridSignals:
        """Load the digits from scikit-learn's own files."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = permutation(self.split_seed, "digits/splits", len(images))[: self.max_signals]
        train_size = len(order) - self.validation_size - self.test_size
        if train_size < 1:
            raise SignalError(
                f"digits: {len(order)} signals leave none to train on beside validation_size "
                f"{self.validation_size} and test_size {self.test_size}"
            )
        signals = signals_from_array(
            (images[order.numpy()] / _PEAK).reshape(-1, 8, 8, 1),
            labels[order.numpy()],
            splits=[
                ("train", train_size),
                ("validation", self.validation_size),
                ("test", self.test_size),
            ],
            name="digits",
            indices=order,
            source="scikit-learn load_digits (UCI optical recognition of handwritten digits)",
            licence="CC BY 4.0",
        )
        return replace(signals, config=config_to_mapping(self))
