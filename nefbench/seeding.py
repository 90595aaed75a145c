"""Random numbers as a function of (seed, what they are for, index, step).

A draw has an address, not a place in a stream: the same address gives the same number in any
batch, shard, process or order. The generator is Philox-4x32-10, a counter-based generator
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), vectorised with NumPy so
that the draws are the same whatever device the fields are fitted on.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GENERATOR = "philox4x32-10"
"""Name and version of the draw scheme, recorded with everything that was drawn."""

SHARED_INDEX = 2**32 - 1
"""Index of draws that belong to no single signal; no signal has this index."""

_MASK = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = npt.NDArray[np.uint64]


def philox(counter: Sequence[Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Apply Philox-4x32-10 to four arrays of 32-bit counter words (held in uint64)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & _MASK,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_words(
    seed: int, stream: str, indices: Sequence[int] | Tensor, size: int, step: int = 0
) -> Words:
    """Draw 32-bit words, shape ``[len(indices), size]``.

    Args:
        seed: From 0 to 2**63 - 1.
        stream: What the draw is for, for example ``"init/output_linear.kernel"``.
        indices: Signal indices, each from 0 to 2**32 - 1.
        size: Words per index.
        step: Optimizer step or epoch, from 0 to 2**32 - 1.

    Raises:
        ValueError: If a number is outside its range: its draws would repeat those of another.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"expected a seed from 0 to 2**63 - 1 (got {seed})")
    if not 0 <= step < 2**32:
        raise ValueError(f"expected a step from 0 to 2**32 - 1 (got {step})")
    signed = np.asarray(indices, dtype=np.int64)
    outside = signed[(signed < 0) | (signed > SHARED_INDEX)]
    if len(outside):
        raise ValueError(f"expected indices from 0 to 2**32 - 1 (got {outside[0]})")
    index = signed.astype(np.uint64)[:, None]
    block = np.arange((size + 3) // 4, dtype=np.uint64)[None, :]
    shape = (index.shape[0], block.shape[1])
    counter = (
        np.broadcast_to(block, shape),
        np.broadcast_to(index, shape),
        np.broadcast_to(np.uint64(step), shape),
        np.broadcast_to(np.uint64(zlib.crc32(stream.encode())), shape),
    )
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack(words, axis=-1).reshape(shape[0], -1)[:, :size]


def permutation(seed: int, stream: str, size: int, step: int = 0) -> Tensor:
    """Draw a permutation of ``size`` items, int64."""
    words = random_words(seed, stream, [SHARED_INDEX], size, step)[0]
    return torch.from_numpy(np.argsort(words, kind="stable"))


def derive_seed(seed: int, stream: str, step: int = 0) -> int:
    """Draw a 32-bit seed for a library that keeps its own generator."""
    return int(random_words(seed, stream, [SHARED_INDEX], 1, step)[0, 0])


@dataclass(frozen=True)
class Draws:
    """Initial values for ``N`` fields, one tensor at a time; every method returns ``[N, *shape]``.

    Attributes:
        seed: Seed of the fit.
        indices: One index per field; equal indices give equal draws.
        view: Number of the view of the signals; other views have other draws.
    """

    seed: int
    indices: tuple[int, ...]
    view: int = 0

    @property
    def num_fields(self) -> int:
        """Number of fields ``N``."""
        return len(self.indices)

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """Return zeros, float32."""
        return torch.zeros(self.num_fields, *shape)

    def uniform(self, tensor: str, shape: Sequence[int], bound: float) -> Tensor:
        """Draw from U(-bound, bound), float32 with 24 random bits."""
        unit = torch.from_numpy(self._unit(tensor, math.prod(shape)).astype(np.float32))
        return ((2 * unit - 1) * bound).reshape(self.num_fields, *shape)

    def normal(self, tensor: str, shape: Sequence[int], std: float) -> Tensor:
        """Draw from Normal(0, std**2): Box-Muller transform in float64, rounded to float32."""
        size = math.prod(shape)
        unit = self._unit(tensor, 2 * size)
        radius = np.sqrt(-2.0 * np.log1p(-unit[:, :size]))
        values = std * radius * np.cos(2.0 * math.pi * unit[:, size:])
        return torch.from_numpy(values.astype(np.float32)).reshape(self.num_fields, *shape)

    def gamma(self, tensor: str, shape: Sequence[int], shape_parameter: float) -> Tensor:
        """Draw from Gamma(shape_parameter, rate 1) by inverting its distribution function."""
        from scipy.special import gammaincinv

        values = gammaincinv(shape_parameter, self._unit(tensor, math.prod(shape)))
        return torch.from_numpy(values.astype(np.float32)).reshape(self.num_fields, *shape)

    def _unit(self, tensor: str, size: int) -> npt.NDArray[np.float64]:
        words = random_words(self.seed, f"init/{tensor}", self.indices, size, self.view)
        return (words >> np.uint64(8)).astype(np.float64) * 2.0**-24
