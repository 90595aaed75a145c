"""The layout of fit-a-nef folders: names of architectures, scaling of the known data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nefbench.errors import MissingDependencyError
from nefbench.fields import MLP, FieldConfig, FourierNet, RFFNet, Siren

FORMAT = "fit-a-nef"
OWN_ARRAYS = ("params", "param_config", "labels")
"""Arrays that the format itself defines."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture of fit-a-nef.

    Attributes:
        field: Ours, with the same function in its preset ``fit-a-nef``.
        required: Keys of ``params`` that determine the function.
        defaults: Keys that only shape the start, with the library's values for a missing one.
        ignored: Keys that only shape the start and that our field does not have.
    """

    field: type[FieldConfig]
    required: tuple[str, ...]
    defaults: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()


ARCHITECTURES = {
    "SIREN": Architecture(field=Siren, required=("hidden_dim", "num_layers", "omega_0")),
    "RFFNet": Architecture(
        field=RFFNet,
        required=("hidden_dim", "num_layers", "std", "learnable_coefficients"),
        ignored=("numerator",),
    ),
    "FourierNet": Architecture(
        field=FourierNet,
        required=("hidden_dim", "num_filters"),
        defaults={"input_scale": 256.0, "weight_scale": 6.0},
    ),
    "MLP": Architecture(field=MLP, required=("hidden_dim", "num_layers")),
}


@dataclass(frozen=True)
class Scaling:
    """How fit-a-nef scales a data set: its constants; all of these have ten classes."""

    grid_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int = 10


SCALINGS = {
    "MNIST": Scaling((28, 28), (0.13066047,), (0.30810782,)),
    "CIFAR10": Scaling(
        (32, 32), (0.49186882, 0.48265392, 0.44717726), (0.24697122, 0.24338895, 0.2615926)
    ),
    "MicroImageNet": Scaling(
        (64, 64), (0.46433758, 0.43394157, 0.38213177), (0.18949764, 0.18707175, 0.21445987)
    ),
}


class FieldRange(Protocol):
    """A half-open range of field indices."""

    @property
    def start(self) -> int:
        """First field."""

    @property
    def stop(self) -> int:
        """One past the last field."""


def overlap(piece: FieldRange, start: int, stop: int) -> tuple[slice, slice] | None:
    """Return where the fields common to both lie, counted from ``start`` and in the piece."""
    low, high = max(start, piece.start), min(stop, piece.stop)
    if low >= high:
        return None
    return slice(low - start, high - start), slice(low - piece.start, high - piece.start)


def load_h5py(purpose: str) -> Any:
    """Import h5py, or say how to get it."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(purpose, "h5py", "hdf5") from error
    return h5py
