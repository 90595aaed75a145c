"""What is measured: cases, their work in floating-point operations, and their data."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.bench.contenders import REFERENCE, names
from fitting.config import FitConfig
from fitting.engines import Block, FitProblem
from fitting.optimizers import Adam
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import DigitsConfig, GridSignals, grid_coords
from nefbench.spec import ParamSpec

SEED = 0
"""Seed of start rows and targets."""
_DIGIT_SIDE = 8
_WAVES = 6
"""Cosines per axis of a smooth image. Of rougher ones, correct engines reach losses that differ by
percents after 200 steps: rounding decides on which side of a kink a ReLU lies."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One field on square images of one channel, full batch, Adam with rate 1e-3."""

    field: FieldConfig
    side: int
    """Pixels along each side; at 8 the images are digits, else smooth random ones."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"expected side >= 1 (got {self.side})")

    @property
    def name(self) -> str:
        """Family, layers x width, grid: ``siren 3x32 28x28``."""
        field = self.field
        if isinstance(field, ShapeNet):
            depth = field.num_blocks
        elif isinstance(field, FourierNet | GaborNet):
            depth = field.num_filters
        else:
            depth = field.num_layers
        return f"{field.kind} {depth}x{field.hidden_dim} {self.side}x{self.side}"

    @property
    def flop(self) -> float:
        """Floating-point operations of one step of one field."""
        return flop_per_field_step(self.field.spec(2, 1), self.side**2)

    def problem(self, num_steps: int, device: str = "cpu") -> FitProblem:
        """Return what an engine has to know, for fits of that many steps."""
        config = FitConfig(field=self.field, optimizer=Adam(), num_steps=num_steps, seed=SEED)
        coords = grid_coords((self.side, self.side)).to(device)
        return FitProblem(config, self.field.spec(2, 1), coords, 1)

    def block(self, num_fields: int, device: str = "cpu") -> Block:
        """Return the first ``num_fields`` fields: the shared start of seed 0 and their images."""
        config = FitConfig(field=self.field)
        start = config.init.rows(self.field, 2, 1, Draws(SEED, tuple(range(num_fields))))
        return Block(start.to(device), targets(num_fields, self.side).to(device))


def flop_per_field_step(spec: ParamSpec, num_points: int) -> float:
    """Count the operations of matrix products in one step of one field.

    Every matrix enters three products: forward, gradient of the matrix, gradient of its input. One
    that is not trained has no second; one that reads the coordinates, or what only untrained
    matrices have made of them, has no third. A product ``[q, a] [a, b]`` is ``2 q a b``, a multiply
    and an add each. Sines, sums and the optimizer are not counted. A SIREN 2 -> h -> h -> 1 takes
    ``q (6 h^2 + 14 h)``.
    """
    matrices = [tensor for tensor in spec.tensors if len(tensor.shape) == 2]
    # The group of an axis tells which matrix writes what another reads; coordinates have none.
    trained = {m.axes[-1] for m in matrices if m.trainable} - {None}
    products = (
        (1 + int(m.trainable) + int(m.axes[-2] in trained)) * math.prod(m.shape) for m in matrices
    )
    return float(2 * num_points * sum(products))


def sines_per_field_step(case: Case) -> float:
    """Count sines and cosines in one step of one SIREN, one each per hidden unit; 0 for others."""
    field = case.field
    if not isinstance(field, Siren):
        return 0.0
    return float(case.side**2 * (field.num_layers - 1) * field.hidden_dim * 2)


def targets(num_fields: int, side: int) -> Tensor:
    """Return images ``[n, side^2, 1]`` with mean near 0 and standard deviation near 1."""
    if side == _DIGIT_SIDE:
        digits = _digits()
        return digits.targets([index % len(digits) for index in range(num_fields)])
    return _smooth_images(num_fields, side)


@functools.cache
def _digits() -> GridSignals:
    return DigitsConfig().open()


def _smooth_images(num_fields: int, side: int) -> Tensor:
    """Sums of cosines, amplitudes falling as 1 / (1 + frequency^2); mean 0 and deviation 1."""
    draws = Draws(SEED, tuple(range(num_fields)))
    frequencies = torch.arange(_WAVES)[:, None]
    positions = (torch.arange(side) + 0.5) / side
    waves = torch.cos(math.pi * frequencies * positions)
    amplitudes = draws.uniform("bench/images", (_WAVES, _WAVES), 1.0)
    amplitudes = amplitudes / (1 + frequencies.square() + frequencies.T.square())
    images = (waves.T @ amplitudes @ waves).reshape(num_fields, -1)
    centred = images - images.mean(1, keepdim=True)
    return (centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6))[..., None]


def _square(side: int, *fields: FieldConfig) -> tuple[Case, ...]:
    return tuple(Case(field=field, side=side) for field in fields)


HEADLINE = (
    *_square(8, Siren(omega_0=9.0)),
    *_square(28, Siren(omega_0=9.0), RFFNet(num_layers=5, std=0.1), FourierNet()),
)
"""Cases that are measured on all cores as well."""


def _other_cases() -> tuple[Case, ...]:
    """All fields at widths 8, 32 and 64 on both grids, less the headline cases."""
    widths = (8, 32, 64)
    fields: tuple[FieldConfig, ...] = (
        *(Siren(hidden_dim=width, omega_0=9.0) for width in widths),
        *(RFFNet(hidden_dim=width, num_layers=5, std=0.1) for width in widths),
        *(FourierNet(hidden_dim=width) for width in widths),
        GaborNet(),
        MLP(),
    )
    every = (Case(field=field, side=side) for field in fields for side in (8, 28))
    return tuple(case for case in every if case not in HEADLINE)


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """What is varied, one at a time, around SIREN 3x32 on 8x8 points."""

    fields: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """Numbers of fields, fitted for ``num_steps`` steps."""
    sides: tuple[int, ...] = (4, 8, 12, 16, 28, 40)
    """Sides of the grid: 16 to 1,600 pixels."""
    widths: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Widths of the hidden layers."""
    steps: tuple[int, ...] = (10, 100, 1000)
    """Numbers of steps of 16 fields."""
    num_steps: int = 20
    """Steps of a fit wherever steps are not what is varied."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """A whole fit of MNIST's size, on a GPU; its time is extrapolated from whole blocks."""

    case: Case = HEADLINE[1]
    num_fields: int = 70_000
    """Fields of the whole fit."""
    num_steps: int = 1000
    seconds: float = 20.0
    """Time that every engine gets; at least one block is fitted."""
    quality_fields: int = 256
    """First fields whose PSNR is compared with that of the vmapped engine."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What ``nefbench bench fit`` measures."""

    headline: tuple[Case, ...] = HEADLINE
    """Measured on one core, then on all; their compile time is reported."""
    others: tuple[Case, ...] = _other_cases()
    """Measured on one core."""
    without: tuple[str, ...] = ()
    """Contenders left out, by the name in the table."""
    repetitions: int = 5
    """Rounds over the contenders of a case."""
    seconds: float = 0.4
    """Least time of one repetition."""
    check_fields: int = 4
    """Fields whose mean loss has to agree between contenders before they are timed."""
    check_steps: int = 20
    """Steps before that comparison. Later, correct engines drift apart by rounding alone: of wide
    RFFNets by percents after 200 steps, when rounding has decided on which side of a kink some
    ReLUs lie."""
    scaling: ScalingConfig = ScalingConfig()
    memory_fields: tuple[int, ...] = (100, 1000, 10_000)
    """Numbers of fields whose fit's peak memory is measured, each in a fresh process."""
    job: JobConfig = JobConfig()
    """On a GPU only."""

    def __post_init__(self) -> None:
        for name in ("repetitions", "check_fields", "check_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1 (got {getattr(self, name)})")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"expected seconds > 0 (got {self.seconds})")
        unknown = set(self.without) - set(names())
        if unknown:
            known = ", ".join(names())
            raise ValueError(f"without: nobody is called {min(unknown)!r}; there are: {known}")
        if REFERENCE in self.without:
            raise ValueError(f"without: {REFERENCE} is what the others are compared with")
        if not self.headline:
            raise ValueError("expected at least one headline case")


QUICK = BenchConfig(
    others=(),
    repetitions=3,
    seconds=0.25,
    scaling=ScalingConfig(fields=(), sides=(), widths=(), steps=()),
    memory_fields=(),
)
"""About two minutes: headline cases, fewer repetitions."""
