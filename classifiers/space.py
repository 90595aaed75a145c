"""What a row of weights means: the field it belongs to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nefbench.fields import FieldConfig
from nefbench.spec import ParamSpec, TensorSpec


@dataclass(frozen=True)
class WeightSpace:
    """The space that the rows of one neural dataset lie in.

    Attributes:
        spec: Tensors of a row, their axis groups and symmetries.
        field: What the rows compute; None where they are plain values.
        in_dim: Coordinates ``d`` of the field.
        out_dim: Channels ``c`` of the field.
        half_side: The field was fitted to the cube ``[-half_side, half_side]^d``.
    """

    spec: ParamSpec
    field: FieldConfig | None = None
    in_dim: int = 0
    out_dim: int = 0
    half_side: float = 1.0

    @property
    def num_params(self) -> int:
        """Length ``P`` of a row."""
        return self.spec.num_params

    @property
    def name(self) -> str:
        """What the rows are, for messages."""
        if self.field is None:
            return "plain values"
        return f"{self.field.kind} fields with {self.in_dim} inputs and {self.out_dim} outputs"


def space_of(
    field: FieldConfig, in_dim: int, out_dim: int, *, half_side: float = 1.0
) -> WeightSpace:
    """Return the weight space of an architecture."""
    return WeightSpace(field.spec(in_dim, out_dim), field, in_dim, out_dim, half_side)


def space_of_values(shape: tuple[int, ...]) -> WeightSpace:
    """Return the space of plain values of a shape: no field, no symmetries."""
    tensor = TensorSpec("values", (math.prod(shape),), (None,))
    return WeightSpace(ParamSpec((tensor,)))
