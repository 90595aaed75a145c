"""Neural functional networks of Zhou et al. 2023 ("Permutation Equivariant Neural Functionals")."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.chain import ChainLayout, chain_layout, to_chain
from classifiers.models.base import Access
from classifiers.models.layers import FourierFeatures, perceptron
from classifiers.models.settings import check_at_least, check_positive, check_shares
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.weights.symmetries import PERMUTATION

LayerKind = Literal["hnp", "np"]
Variant = Literal["complete", "released"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NFN:
    """Equivariant linear layers with ReLU on all weights, means per tensor, and an MLP.

    ``hnp`` permutes hidden neurons only; ``np`` permutes inputs and outputs too, which is why it is
    given an encoding of their positions. Published: ``channels=(512, 512, 512)``, on SIREN 3x32
    with one output 68.84 M parameters (``hnp``, ``released``) and 44.97 M (``np``), on weights as
    they are stored with ``omega_0 = 30``, ``sigma`` 3 (digits, clothes) or 10 (CIFAR).
    """

    access: ClassVar[Access] = "weights"
    kind: Literal["nfn"] = "nfn"
    layer: LayerKind = "hnp"
    """Which neurons may be permuted: hidden ones, or those of every layer."""
    variant: Variant = "complete"
    """``complete``: every equivariant map, each once. ``released``: as published in code, where
    some maps occur twice, every term has a bias, and the last biases but one do not reach the last
    weights (``hnp``)."""
    channels: tuple[int, ...] = (64, 64, 64)
    """Channels after every equivariant layer."""
    num_frequencies: int = 128
    """Frequencies of the Gaussian Fourier features of a weight."""
    sigma: float = 1.0
    """Their standard deviation, per unit of a normalised weight; of 0.1, 0.3, 1 and 3, 1 learns
    fastest on digits."""
    position_bands: int = 0
    """Frequencies of the encoding of layer, input and output; 0: no encoding."""
    position_max_frequency: float = 10.0
    """Twice the highest of them; the lowest is 1."""
    head_dims: tuple[int, ...] = (1000, 1000)
    """Width of every hidden map of the final MLP."""
    dropout: float = 0.1
    """Share of hidden units of the final MLP dropped while training."""
    channel_dropout: float = 0.1
    """Share of channels of every weight tensor (of entries of every bias) dropped in training."""
    normalisation: Normalisation = "standardise"
    """How rows are normalised; ``none`` as published."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"expected one or more channels >= 1 (got {self.channels})")
        check_at_least(1, self, "head_dims", "num_frequencies")
        check_at_least(0, self, "position_bands")
        check_positive(self, "sigma", "position_max_frequency")
        check_shares(self, "dropout", "channel_dropout")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """Permutations of hidden neurons."""
        del space
        return frozenset({PERMUTATION})

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the field is not a chain of layers.
        """
        return NeuralFunctional(self, space, chain_layout(space, self.kind), num_outputs)


class Part(NamedTuple):
    """One tensor of a chain; axes that cannot be permuted are folded into its channels.

    Attributes:
        tensor: The sets of neurons ``0 … M`` that the axes of the tensor run over.
        axes: Those of them that may be permuted.
        folded: Entries that share a position of these.
    """

    tensor: tuple[int, ...]
    axes: tuple[int, ...]
    folded: int

    @property
    def is_folded(self) -> bool:
        """Whether the channels hold more than features."""
        return self.axes != self.tensor

    def fold(self, values: Tensor) -> Tensor:
        """View the tensor ``[B, *tensor, F]`` as ``[B, *axes, folded F]``."""
        order = sorted(range(len(self.tensor)), key=lambda axis: self.tensor[axis] not in self.axes)
        moved = values.permute(0, *(axis + 1 for axis in order), len(order) + 1)
        return moved.flatten(1 + len(self.axes))


def chain_parts(sizes: Sequence[int], layer: LayerKind) -> tuple[Part, ...]:
    """Return ``W_1 … W_M`` and ``b_1 … b_M`` of a chain with layers of ``sizes``."""
    last = len(sizes) - 1
    exchangeable = range(1, last) if layer == "hnp" else range(last + 1)
    tensors = [*itertools.pairwise(range(last + 1)), *((axis,) for axis in range(1, last + 1))]
    return tuple(
        Part(
            tensor,
            tuple(axis for axis in tensor if axis in exchangeable),
            math.prod(sizes[axis] for axis in tensor if axis not in exchangeable),
        )
        for tensor in tensors
    )


class Source(NamedTuple):
    """What a map reads: a part, or the mean over what is folded into its channels."""

    part: int
    is_mean: bool = False


class Flow(NamedTuple):
    """A linear map from statistics of some parts to some parts.

    Attributes:
        axis: Statistics are means over all axes but this one; None: over all.
        sources: Parts that are read.
        targets: Parts that the result is added to, the same at every place of their other axes.
    """

    axis: int | None
    sources: tuple[Source, ...]
    targets: tuple[int, ...]


def flows_between(parts: Sequence[Part], variant: Variant) -> Iterator[Flow]:
    """List the maps of a layer but those from every weight to itself.

    An axis that two parts share is either kept or averaged on one side and repeated on the other:
    these, for all pairs, are all linear maps that commute with the permutations.
    """
    everything = tuple(range(len(parts)))
    sources = tuple(map(Source, everything))
    folded = [place for place in everything if parts[place].is_folded]
    for axis in sorted({axis for part in parts for axis in part.axes}):
        present = tuple(place for place in everything if axis in parts[place].axes)
        if variant == "released" and folded:
            yield from _released_flows(parts, axis, *present)
        else:
            yield Flow(axis, tuple(map(Source, present)), present)
    if variant == "released":
        sources += tuple(Source(place, is_mean=True) for place in folded)
    yield Flow(None, sources, everything)


def _released_flows(
    parts: Sequence[Part], axis: int, incoming: int, outgoing: int, bias: int
) -> Iterator[Flow]:
    """Yield the maps along hidden neurons as the released HNP layer has them.

    A neighbour with folded channels is read twice, in full and as a mean, and biases do not reach
    the weights of the last layer.
    """
    mean = (Source(outgoing, is_mean=True),) if parts[outgoing].is_folded else ()
    sources = (Source(incoming), Source(bias), Source(outgoing), *mean)
    yield Flow(axis, sources, (incoming, bias))
    mean = (Source(incoming, is_mean=True),) if parts[incoming].is_folded else ()
    biases = () if parts[outgoing].is_folded else (Source(bias),)
    yield Flow(axis, (Source(outgoing), Source(incoming), *mean, *biases), (outgoing,))


class EquivariantLinear(nn.Module):
    """Linear maps between the tensors of a chain that commute with permutations of neurons.

    Statistics are computed once per part and axis; everything that reads the same ones is one
    matrix product. With one feature in and out, ``complete`` has one parameter per equivariant map
    and per invariant bias: 82 on 2-n-n-1 and 174 on 2-n-n-3 for ``hnp``, 68 for ``np``.

    All maps that are summed into one tensor start at U(±1 / sqrt(sum of their inputs)).
    """

    def __init__(
        self, parts: Sequence[Part], in_features: int, out_features: int, variant: Variant
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.in_features = in_features
        self.flows = tuple(flows_between(parts, variant))
        self.widths = [part.folded * out_features for part in parts]
        repeats_bias = variant == "released"
        pointwise = {
            place: nn.Linear(in_features, out_features, bias=repeats_bias)
            for place, part in enumerate(parts)
            if len(part.axes) == 2
        }
        maps = [
            nn.Linear(
                sum(self._source_width(source) for source in flow.sources),
                sum(self.widths[target] for target in flow.targets),
                bias=repeats_bias or flow.axis is None,
            )
            for flow in self.flows
        ]
        terms = [(linear, (place,)) for place, linear in pointwise.items()]
        _start(
            [*terms, *zip(maps, (flow.targets for flow in self.flows), strict=True)], self.widths
        )
        self.pointwise = nn.ModuleDict({str(place): map_ for place, map_ in pointwise.items()})
        self.maps = nn.ModuleList(maps)

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Map folded parts ``[B, *axes, folded F]`` to ``[B, *axes, folded F']``."""
        means = [_means(part, value) for part, value in zip(self.parts, values, strict=True)]
        added: dict[tuple[int, int | None], Tensor] = {}
        for flow, linear in zip(self.flows, self.maps, strict=True):
            read = [self._read(source, means[source.part][flow.axis]) for source in flow.sources]
            pieces = linear(torch.cat(read, dim=-1)).split(
                [self.widths[target] for target in flow.targets], dim=-1
            )
            for target, piece in zip(flow.targets, pieces, strict=True):
                added[target, flow.axis] = piece
        return [self._sum(place, value, added) for place, value in enumerate(values)]

    def _sum(
        self, place: int, value: Tensor, added: Mapping[tuple[int, int | None], Tensor]
    ) -> Tensor:
        """Add up what a part receives."""
        total = added[place, None]
        axes = self.parts[place].axes
        if axes:
            total = added[place, axes[0]] + total[:, None]
        if len(axes) == 2:
            pointwise: Tensor = self.pointwise[str(place)](value)
            return pointwise + total[:, :, None] + added[place, axes[1]][:, None]
        return total

    def _read(self, source: Source, value: Tensor) -> Tensor:
        if not source.is_mean:
            return value
        mean: Tensor = value.unflatten(-1, (-1, self.in_features)).mean(-2)
        return mean

    def _source_width(self, source: Source) -> int:
        return self.in_features * (1 if source.is_mean else self.parts[source.part].folded)


def _start(terms: Sequence[tuple[nn.Linear, tuple[int, ...]]], widths: Sequence[int]) -> None:
    """Draw maps so that everything that is summed into one tensor has one bound.

    Args:
        terms: Linear maps, and the tensors that their outputs are split into.
        widths: Outputs per tensor.
    """
    inputs = [0] * len(widths)
    for linear, targets in terms:
        for target in targets:
            inputs[target] += linear.in_features
    with torch.no_grad():
        for linear, targets in terms:
            for parameter in linear.parameters():
                pieces = parameter.split([widths[target] for target in targets])
                for target, piece in zip(targets, pieces, strict=True):
                    bound = 1 / math.sqrt(inputs[target])
                    piece.uniform_(-bound, bound)


def _means(part: Part, value: Tensor) -> dict[int | None, Tensor]:
    """Average a folded part over all axes but one, for each of them, and over all."""
    if not part.axes:
        return {None: value}
    if len(part.axes) == 1:
        return {part.axes[0]: value, None: value.mean(1)}
    rows = value.mean(2)
    return {part.axes[0]: rows, part.axes[1]: value.mean(1), None: rows.mean(1)}


class NeuralFunctional(nn.Module):
    """Fourier features, equivariant layers with ReLU, the mean of every tensor, an MLP.

    Every tensor has maps of its own in the first layer, so features that mean different things in
    different tensors need no mark of the tensor.
    """

    def __init__(
        self, config: NFN, space: WeightSpace, layout: ChainLayout, num_outputs: int
    ) -> None:
        super().__init__()
        self.space, self.layout = space, layout
        self.channel_dropout = config.channel_dropout
        self.parts = chain_parts(layout.sizes, config.layer)
        self.encoding = FourierFeatures(layout.num_features, config.num_frequencies, config.sigma)
        width = 2 * config.num_frequencies
        self.positions: list[str] = []
        if config.position_bands:
            codes = position_codes(
                layout.sizes, config.position_bands, config.position_max_frequency
            )
            width += codes[0].shape[-1]
            for place, code in enumerate(codes):
                self.positions.append(f"position_{place}")
                self.register_buffer(self.positions[-1], code, persistent=False)
        self.layers = nn.ModuleList(
            EquivariantLinear(self.parts, before, after, config.variant)
            for before, after in itertools.pairwise([width, *config.channels])
        )
        pooled = sum(part.folded for part in self.parts) * config.channels[-1]
        self.head = perceptron(
            (pooled, *config.head_dims, num_outputs), "relu", dropout=config.dropout
        )

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        chain = to_chain(self.space, self.layout, batch.normalised)
        values = [self.encoding(value) for value in (*chain.weights, *chain.biases)]
        for place, name in enumerate(self.positions):
            code = self.get_buffer(name).expand(*values[place].shape[:-1], -1)
            values[place] = torch.cat([values[place], code], dim=-1)
        values = [part.fold(value) for part, value in zip(self.parts, values, strict=True)]
        for layer in self.layers:
            values = [self._drop(place, F.relu(value)) for place, value in enumerate(layer(values))]
        pooled = [
            value.mean(tuple(range(1, value.ndim - 1))) if part.axes else value
            for part, value in zip(self.parts, values, strict=True)
        ]
        outputs: Tensor = self.head(torch.cat(pooled, dim=-1))
        return outputs

    def _drop(self, place: int, value: Tensor) -> Tensor:
        if not self.training or not self.channel_dropout:
            return value
        if place >= len(self.parts) // 2:
            return F.dropout(value, self.channel_dropout)
        folded = self.parts[place].folded
        shape = (len(value), *[1] * (value.ndim - 2), value.shape[-1] // folded)
        kept = F.dropout(value.new_ones(shape), self.channel_dropout)
        return value * kept.repeat(*[1] * (value.ndim - 1), folded)


def position_codes(sizes: Sequence[int], num_bands: int, max_frequency: float) -> list[Tensor]:
    """Encode layer, input and output of every tensor of a chain by sines and cosines.

    Positions run evenly from -1 to 1; the code of one is its sines, its cosines, and itself. The
    codes of the layer, the input (first weights) and the output (last weights and biases) are
    added.

    Args:
        sizes: ``n_0 … n_M``.
        num_bands: Frequencies per position, evenly from 1 to ``max_frequency / 2``.
        max_frequency: Twice the highest frequency.

    Returns:
        For ``W_1 … W_M`` then ``b_1 … b_M`` a tensor that broadcasts to ``[n, n', D]`` or
        ``[n, D]`` with ``D = 2 num_bands + 1``.
    """
    frequencies = math.pi * torch.linspace(1.0, max_frequency / 2, num_bands)

    def code(count: int) -> Tensor:
        positions = torch.linspace(-1.0, 1.0, count)[:, None]
        angles = positions * frequencies
        return torch.cat([angles.sin(), angles.cos(), positions], dim=-1)

    num_layers = len(sizes) - 1
    weights = [layer.reshape(1, 1, -1) for layer in code(num_layers)]
    biases = [layer.reshape(1, -1) for layer in code(num_layers)]
    outputs = code(sizes[-1])
    weights[0] = weights[0] + code(sizes[0])[:, None]
    weights[-1] = weights[-1] + outputs
    biases[-1] = biases[-1] + outputs
    return [*weights, *biases]
