"""Where the numbers of a field lie in the padded rows that the kernel works on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fitting.engines.base import FitProblem
from nefbench.fields import MLP, FieldConfig, FourierNet, RFFNet, Siren
from nefbench.spec import ParamSpec


@dataclass(frozen=True)
class Network:
    """A field as the kernel sees it: maps from the coordinates, hidden maps, head.

    Attributes:
        maps: Names of the linear maps from the coordinates, without ``.kernel`` and ``.bias``.
        hidden: Names of those between hidden layers.
        head: Name of the output map.
        scales: Factors of kernel and bias in a map, then in a hidden map. Before a sine they hold
            1 / pi, as the kernel counts angles in half-turns.
        is_paired: Whether a column of the map makes two hidden units, its sine and its cosine.
    """

    maps: tuple[str, ...]
    hidden: tuple[str, ...]
    head: str
    scales: tuple[float, float, float, float]
    is_paired: bool = False


def network_of(field: FieldConfig) -> Network | None:
    """Describe a field; None if the kernel does not know its kind."""
    turns = 1 / math.pi
    match field:
        case Siren():
            names = [f"kernel_net_{i}.linear" for i in range(field.num_layers - 1)]
            kernel = field.omega_0 * turns
            bias = turns if field.preset == "paper" else kernel
            scales = (kernel, bias, kernel, bias)
            return Network((names[0],), tuple(names[1:]), "output_linear", scales)
        case RFFNet():
            hidden = tuple(f"layers_{i}.linear" for i in range(field.num_layers - 1))
            factor = field.std * turns if field.preset == "paper" else 2 * field.std
            scales = (factor, 0.0, 1.0, 1.0)
            return Network(
                ("encoding.coefficients",), hidden, "linear_final", scales, is_paired=True
            )
        case FourierNet():
            maps = tuple(f"filters_{i}.linear" for i in range(field.num_filters))
            hidden = tuple(f"linears_{i}" for i in range(field.num_filters - 1))
            return Network(maps, hidden, "output_linear", (turns, turns, 1.0, 1.0))
        case MLP():
            names = [f"Dense_{i}" for i in range(field.num_layers + 1)]
            return Network((names[0],), tuple(names[1:-1]), names[-1], (1.0, 1.0, 1.0, 1.0))
        case _:
            return None


@dataclass(frozen=True)
class Layout:
    """Padded row ``[R]`` of one field: maps ``[d + 1, M]``, hidden maps ``[H + 1, H]``, head.

    The last row of a map is its bias. The head is ``[C, H]``, transposed so that its long axis lies
    in one piece, and its bias ``[C]``. H and C are powers of two, M is H or, where a sine and a
    cosine share a frequency, H / 2: they are then columns 2j and 2j + 1 of the hidden layer.
    """

    network: Network
    spec: ParamSpec
    in_dim: int
    out_dim: int
    hidden_dim: int

    @property
    def padded_hidden(self) -> int:
        """Hidden units ``H``."""
        return _pad(self.hidden_dim)

    @property
    def padded_out(self) -> int:
        """Channels ``C``."""
        return _pad(self.out_dim)

    @property
    def map_width(self) -> int:
        """Columns ``M`` of a map from the coordinates."""
        return self.padded_hidden // 2 if self.network.is_paired else self.padded_hidden

    @property
    def fitted_rows(self) -> int:
        """Rows of a map that the optimizer may change: coordinates, and the bias if there is one.

        None of a frozen map: its bits stay.
        """
        tensors = {tensor.name: tensor for tensor in self.spec.tensors}
        name = self.network.maps[0]
        if not tensors[f"{name}.kernel"].trainable:
            return 0
        return self.in_dim + (f"{name}.bias" in tensors)

    @property
    def row_size(self) -> int:
        """Length ``R`` of a padded row; a multiple of 16, as wide loads must be aligned."""
        width = self.padded_hidden
        maps = len(self.network.maps) * (self.in_dim + 1) * self.map_width
        hidden = len(self.network.hidden) * (width + 1) * width
        head = self.padded_out * (width + 1)
        return -(-(maps + hidden + head) // 16) * 16

    def pack(self, rows: Tensor) -> Tensor:
        """Lay rows ``[B, P]`` out as ``[B, R]``, with zeros around them."""
        packed = rows.new_zeros(len(rows), self.row_size)
        packed[:, self._positions.to(rows.device)] = rows
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """Take rows ``[B, P]`` back out of ``[B, R]``."""
        return packed[:, self._positions.to(packed.device)]

    @cached_property
    def _positions(self) -> Tensor:
        """Place ``[P]`` of every weight in the padded row."""
        width, columns, places, start = self.padded_hidden, self.map_width, {}, 0
        for name in self.network.maps:
            places[f"{name}.kernel"] = _block(start, self.in_dim + 1, columns)
            places[f"{name}.bias"] = places[f"{name}.kernel"][self.in_dim]
            start += (self.in_dim + 1) * columns
        for name in self.network.hidden:
            places[f"{name}.kernel"] = _block(start, width, width)
            places[f"{name}.bias"] = _block(start + width * width, 1, width)[0]
            start += (width + 1) * width
        if self.network.is_paired:
            after = f"{self.network.hidden[0]}.kernel"
            order = torch.arange(self.hidden_dim).reshape(-1, 2).T.flatten()
            places[after] = places[after][order]
        head = self.network.head
        places[f"{head}.kernel"] = _block(start, self.padded_out, width).T
        places[f"{head}.bias"] = _block(start + self.padded_out * width, 1, self.padded_out)[0]
        return torch.cat(
            [
                places[tensor.name][tuple(slice(size) for size in tensor.shape)].flatten()
                for tensor in self.spec.tensors
            ]
        )


def layout_of(problem: FitProblem) -> Layout | None:
    """Lay out the rows of a problem; None if the kernel does not know its kind of field."""
    field = problem.config.field
    network = network_of(field)
    if network is None:
        return None
    in_dim = problem.coords.shape[-1]
    return Layout(network, problem.spec, in_dim, problem.out_dim, field.hidden_dim)


def _pad(size: int) -> int:
    """Round up to a power of two, 8 at least: the depth of one tensor core instruction."""
    return max(8, 1 << (size - 1).bit_length())


def _block(start: int, rows: int, columns: int) -> Tensor:
    return torch.arange(start, start + rows * columns).reshape(rows, columns)
