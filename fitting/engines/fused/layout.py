"""Where the tensors of a field lie in the kernel's padded memory.

Rows of a matrix are padded to a multiple of four units. A padded unit has zero weights, puts out
zero, gets no gradient and stays zero, so padding changes nothing. The output map is stored
transposed, one row of hidden units per channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nefbench.spec import ParamSpec, TensorSpec

ALIGNMENT = 16
"""Segments start and end at multiples of this many floats: whole vectors on every machine."""


def padded(units: int, multiple: int = 4) -> int:
    """Round a width up."""
    return math.ceil(units / multiple) * multiple


@dataclass(frozen=True)
class Segment:
    """One tensor in the kernel's memory.

    Attributes:
        offset: First float.
        num_rows: Rows; 1 for a bias.
        row_size: Floats per row, padding included.
        forward_scale: The forward pass multiplies by this many times the stored weights.
        gradient_scale: The stored gradient is this many times the accumulated one.
        trainable: Whether the optimizer changes it.
    """

    offset: int
    num_rows: int
    row_size: int
    forward_scale: float = 1.0
    gradient_scale: float = 1.0
    trainable: bool = True

    @property
    def size(self) -> int:
        """Floats, without the padding at the end."""
        return self.num_rows * self.row_size

    @property
    def stop(self) -> int:
        """Where the next segment starts."""
        return self.offset + padded(self.size, ALIGNMENT)


class Layout:
    """Collects segments while a network is described."""

    def __init__(self, spec: ParamSpec) -> None:
        self._specs = {tensor.name: tensor for tensor in spec.tensors}
        self._slices = spec.slices()
        self._places = torch.full((spec.num_params,), -1)
        self.segments: list[Segment] = []

    @property
    def size(self) -> int:
        """Floats of one field."""
        return self.segments[-1].stop if self.segments else 0

    def vector(self, name: str, **scales: float) -> Segment:
        """Place a bias."""
        tensor = self._specs[name]
        return self._place(tensor, torch.arange(tensor.size), 1, padded(tensor.size), **scales)

    def matrix(self, name: str, *, in_groups: int = 0, **scales: float) -> Segment:
        """Place a kernel ``[in, out]``.

        Args:
            name: Its name.
            in_groups: Inputs are hidden units in this many groups, each padded by itself; 0 for
                coordinates, which are not padded.
            **scales: ``forward_scale`` and ``gradient_scale``.
        """
        tensor = self._specs[name]
        num_in, num_out = tensor.shape
        row_size = padded(num_out)
        rows = torch.arange(num_in)
        num_rows = num_in
        if in_groups:
            group = num_in // in_groups
            rows = rows // group * padded(group) + rows % group
            num_rows = in_groups * padded(group)
        places = rows[:, None] * row_size + torch.arange(num_out)
        return self._place(tensor, places, num_rows, row_size, **scales)

    def output(self, name: str, **scales: float) -> Segment:
        """Place the output map ``[in, c]`` as ``c`` rows."""
        tensor = self._specs[name]
        num_in, channels = tensor.shape
        row_size = padded(num_in)
        places = torch.arange(channels) * row_size + torch.arange(num_in)[:, None]
        return self._place(tensor, places, channels, row_size, **scales)

    def _place(
        self, tensor: TensorSpec, places: Tensor, num_rows: int, row_size: int, **scales: float
    ) -> Segment:
        segment = Segment(self.size, num_rows, row_size, trainable=tensor.trainable, **scales)
        self._places[self._slices[tensor.name]] = segment.offset + places.flatten()
        self.segments.append(segment)
        return segment

    def pack(self, rows: Tensor) -> Tensor:
        """Spread flat rows ``[B, P]`` over padded ones ``[B, size]``."""
        packed = rows.new_zeros(len(rows), self.size)
        packed[:, self._places] = rows
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """Undo ``pack``."""
        return packed.index_select(1, self._places)
