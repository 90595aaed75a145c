"""The input of every model: rows of weights as they are stored, and normalised."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FieldBatch(NamedTuple):
    """``B`` fields of one weight space as dense tensors.

    What the columns mean is known when a model is built (``WeightSpace``), so a batch carries no
    objects per field; ``classifiers.graph`` and ``classifiers.chain`` view it as neurons or layers.

    Attributes:
        weights: ``[B, P]`` as stored: what the fields compute with.
        normalised: ``[B, P]`` after the normalisation that the model asks for.
    """

    weights: Tensor
    normalised: Tensor
