"""Probing: read a field through its values at learned points (ProbeGen, Kahana et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.models.base import Access
from classifiers.models.layers import perceptron
from classifiers.models.settings import check_at_least
from classifiers.normalisation import Normalisation
from classifiers.space import WeightSpace
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig
from nefbench.fields.evaluate import evaluate
from nefbench.weights.symmetries import symmetry_kinds


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeGen:
    """Values of every field at learned coordinates, shared by all fields, through an MLP.

    It reads the function, not its weights: nothing that leaves the function as it is can be seen.
    With ``generator="linear"`` the coordinates come from learned latents through two linear maps
    (ProbeGen, Kahana et al. 2025, ICLR); with ``"none"`` they are learned as they are (vanilla
    probing). Published: 64 or 128 probes.
    """

    access: ClassVar[Access] = "function"
    normalisation: ClassVar[Normalisation] = "none"
    kind: Literal["probegen"] = "probegen"
    generator: Literal["linear", "none"] = "linear"
    """What the coordinates are made by."""
    num_probes: int = 64
    """Coordinates ``k`` at which every field is evaluated."""
    latent_dim: int = 32
    """Length of the latent of a probe, and width of the generator."""
    hidden_dims: tuple[int, ...] = (256, 256, 256, 256, 256)
    """Width of every hidden map of the MLP that reads the values."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_probes", "latent_dim", "hidden_dims")

    def symmetries(self, space: WeightSpace) -> frozenset[str]:
        """Everything that leaves the function as it is."""
        return frozenset(symmetry_kinds(space.spec))

    def build(self, space: WeightSpace, num_outputs: int) -> nn.Module:
        """Return a fresh network ``FieldBatch -> [B, num_outputs]``.

        Raises:
            TrainingError: If the rows are no fields.
        """
        if space.field is None:
            raise TrainingError(
                f"model {self.kind!r} evaluates fields; it reads every family of fields, but no "
                f"{space.name}; the model 'mlp' reads them"
            )
        return Probes(self, space, space.field, num_outputs)


class Probes(nn.Module):
    """Learned coordinates, one forward pass of all fields, an MLP."""

    def __init__(
        self, config: ProbeGen, space: WeightSpace, field: FieldConfig, num_outputs: int
    ) -> None:
        super().__init__()
        self.spec, self.field, self.half_side = space.spec, field, space.half_side
        if config.generator == "linear":
            latents = torch.randn(config.num_probes, config.latent_dim)
            self.generator: nn.Module = nn.Sequential(
                nn.Linear(config.latent_dim, config.latent_dim),
                nn.Linear(config.latent_dim, space.in_dim),
            )
        else:
            # all over the cube; the release draws N(0, 1): more than half of a plane lies outside
            latents = 2 * torch.rand(config.num_probes, space.in_dim) - 1
            self.generator = nn.Identity()
        self.latents = nn.Parameter(latents)
        self.head = perceptron(
            (config.num_probes * space.out_dim, *config.hidden_dims, num_outputs)
        )

    def coords(self) -> Tensor:
        """Return the probes in the coordinates of the fields, ``[k, d]``."""
        points: Tensor = self.half_side * self.generator(self.latents)
        return points

    def forward(self, batch: FieldBatch) -> Tensor:
        """Map ``B`` rows to ``[B, K]``."""
        # never in bfloat16: a field with high frequencies would be another function
        with torch.autocast(batch.weights.device.type, enabled=False):
            values = evaluate(self.field, self.spec, batch.weights, self.coords())
        outputs: Tensor = self.head(values.flatten(1))
        return outputs
