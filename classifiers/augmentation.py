"""Augmentation in weight space: rows of weights of the same or of a similar function.

A draw is a function of (seed, row, epoch), so neither batch size nor order nor a training that was
stopped and continued change what is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from classifiers.space import WeightSpace
from nefbench.config import nearest
from nefbench.errors import TrainingError
from nefbench.seeding import Draws, derive_seed, random_words
from nefbench.weights.geometry import transform_coordinates
from nefbench.weights.symmetries import act, random_element, symmetry_kinds


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What is done to a training row, drawn anew in every epoch; all off by default.

    In this order: symmetries, coordinates, entries set to zero, mixing with another row that was
    treated in the same way. Normalisation and noise come after it.
    """

    gauge: tuple[str, ...] = ()
    """Kinds of symmetries of the field; the function stays the same. A phase moves by at most one
    half period, a scale lies between 1/10 and 10."""
    translation: float = 0.0
    """Largest shift along every coordinate, as a share of half the side of the domain."""
    rotation: float = 0.0
    """Largest angle in degrees; in three dimensions around an axis that is drawn too."""
    scale: float = 0.0
    """Largest relative change of size."""
    flip: bool = False
    """Mirror the first coordinate (the horizontal axis of images) in half of the draws."""
    dropout: float = 0.0
    """Share of the weights set to zero."""
    quantile_dropout: float = 0.0
    """Largest share of each tensor's entries set to zero, the smallest absolute values first; the
    share is drawn per row between 0 and this."""
    mixup: float | None = None
    """Parameter of the beta distribution by which a row and its label are mixed with another row's
    (MixUp, Zhang et al. 2018, arXiv 1710.09412); None: no mixing. Sensible where rows share a
    start or are aligned."""

    def __post_init__(self) -> None:
        if len(set(self.gauge)) != len(self.gauge):
            raise ValueError(f"expected kinds in gauge that differ (got {self.gauge})")
        if not 0 <= self.translation < math.inf:
            raise ValueError(f"expected translation >= 0 (got {self.translation})")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"expected 0 <= rotation <= 180 degrees (got {self.rotation})")
        for name, share in (
            ("scale", self.scale),
            ("dropout", self.dropout),
            ("quantile_dropout", self.quantile_dropout),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"expected 0 <= {name} < 1 (got {share})")
        if self.mixup is not None and not 0 < self.mixup < math.inf:
            raise ValueError(f"expected mixup > 0 (got {self.mixup})")

    @property
    def moves_coordinates(self) -> bool:
        """Whether the domain of the field is moved."""
        return bool(self.translation or self.rotation or self.scale or self.flip)


class Augmenter:
    """An augmentation for the rows of one weight space and one seed of training."""

    def __init__(self, augmentation: Augmentation, space: WeightSpace, seed: int) -> None:
        self._augmentation = augmentation
        self._space = space
        self._seed = derive_seed(seed, "classifier/augmentation")
        _check(augmentation, space)

    def rows(self, rows: Tensor, positions: Tensor, epoch: int) -> Tensor:
        """Return the rows at ``positions`` as they are seen in an epoch, without mixing.

        Args:
            rows: All training rows, ``[N, P]``; not changed.
            positions: int64 ``[B]``, on the device of the rows.
            epoch: From 1.

        Returns:
            ``[B, P]``.
        """
        chosen = rows[positions]
        draws = Draws(self._seed, tuple(positions.tolist()), view=epoch)
        augmentation, space = self._augmentation, self._space
        if augmentation.gauge:
            element = random_element(space.spec, draws, augmentation.gauge)
            chosen = act(space.spec, chosen, element)
        if augmentation.moves_coordinates:
            assert space.field is not None, "checked at the start"
            matrix, shift = _motion(augmentation, draws, space)
            chosen = transform_coordinates(
                space.field, space.in_dim, space.out_dim, chosen, matrix.to(chosen),
                shift.to(chosen),
            )  # fmt: skip
        if augmentation.dropout:
            # One word per weight: compared as they are, because there are many.
            words = random_words(
                self._seed, "augmentation/dropout", draws.indices, rows.shape[1], epoch
            )
            is_dropped = torch.from_numpy(words < round(augmentation.dropout * 2**32))
            chosen = chosen.masked_fill(is_dropped.to(chosen.device), 0.0)
        if augmentation.quantile_dropout:
            share = augmentation.quantile_dropout * _unit(draws, "augmentation/quantile", ())
            chosen = self._without_smallest(chosen, share.to(chosen))
        return chosen

    def partners(self, positions: Tensor, num_rows: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Draw with which of ``num_rows`` rows a row is mixed, and its own share of the mixture.

        Returns:
            Positions int64 ``[B]`` and shares float32 ``[B]``, on the device of ``positions``.
        """
        from scipy.special import betaincinv

        mixup = self._augmentation.mixup
        assert mixup is not None, "asked for only where rows are mixed"
        draws = Draws(self._seed, tuple(positions.tolist()), view=epoch)
        unit = _unit(draws, "augmentation/partner", ()).double()
        partners = (unit * num_rows).long().clamp(max=num_rows - 1)
        level = _unit(draws, "augmentation/share", ()).double().numpy()
        shares = torch.from_numpy(betaincinv(mixup, mixup, level)).float()
        return partners.to(positions.device), shares.to(positions.device)

    def _without_smallest(self, rows: Tensor, share: Tensor) -> Tensor:
        """Set the smallest ``share`` ``[B]`` of the entries of every tensor to zero, ``[B, P]``."""
        sizes = [tensor.size for tensor in self._space.spec.tensors]
        kept = []
        for block in rows.split(sizes, dim=1):
            magnitude = block.abs()
            count = (share * block.shape[1]).long()
            # The count-th largest of the entries to be dropped bounds them; none if count is 0.
            bound = magnitude.sort(dim=1).values.gather(1, (count - 1).clamp(min=0)[:, None])
            is_dropped = (magnitude <= bound) & (count > 0)[:, None]
            kept.append(block.masked_fill(is_dropped, 0.0))
        return torch.cat(kept, dim=1)


def _check(augmentation: Augmentation, space: WeightSpace) -> None:
    """Raise ``TrainingError`` where an augmentation has no meaning for these rows."""
    known = symmetry_kinds(space.spec)
    for kind in augmentation.gauge:
        if kind not in known:
            has = f"they have {', '.join(known)}" if known else "they have none"
            raise TrainingError(
                f"augmentation.gauge: {space.name} have no symmetry {kind!r}"
                f"{nearest(kind, known)}; {has}"
            )
    if not augmentation.moves_coordinates:
        return
    if space.field is None:
        raise TrainingError(
            f"augmentation: {space.name} have no coordinates to move; leave out translation, "
            f"rotation, scale and flip"
        )
    if augmentation.rotation and space.in_dim not in (2, 3):
        raise TrainingError(
            f"augmentation.rotation: expected fields of 2 or 3 dimensions (got {space.name})"
        )
    draws = Draws(0, (0, 1))
    matrix, shift = _motion(augmentation, draws, space)
    try:
        transform_coordinates(
            space.field, space.in_dim, space.out_dim, torch.ones(2, space.num_params), matrix, shift
        )
    except ValueError as error:
        raise TrainingError(f"augmentation: {error}") from error


def _motion(augmentation: Augmentation, draws: Draws, space: WeightSpace) -> tuple[Tensor, Tensor]:
    """Draw matrices ``[B, d, d]`` and shifts ``[B, d]``: flip, then rotate, then scale."""
    size, dim = draws.num_fields, space.in_dim
    matrix = torch.eye(dim, dtype=torch.float64).repeat(size, 1, 1)
    if augmentation.flip:
        is_flipped = draws.uniform("augmentation/flip", (), 1.0) < 0
        matrix[:, 0, 0] = torch.where(is_flipped, -1.0, 1.0).double()
    if augmentation.rotation:
        bound = math.radians(augmentation.rotation)
        angle = draws.uniform("augmentation/rotation", (), bound).double()
        axis = None
        if dim == 3:
            axis = draws.normal("augmentation/axis", (3,), 1.0).double()
        matrix = matrix @ _rotation(angle, axis)
    if augmentation.scale:
        factor = 1 + draws.uniform("augmentation/scale", (), augmentation.scale).double()
        matrix = matrix * factor[:, None, None]
    bound = augmentation.translation * space.half_side
    return matrix, draws.uniform("augmentation/translation", (dim,), bound).double()


def _rotation(angle: Tensor, axis: Tensor | None) -> Tensor:
    """Rotation matrices ``[B, d, d]``: in the plane, or around axes ``[B, 3]`` of any length."""
    cosine, sine = angle.cos(), angle.sin()
    if axis is None:
        first = torch.stack([cosine, sine], dim=1)
        second = torch.stack([-sine, cosine], dim=1)
        return torch.stack([first, second], dim=1)
    # Rodrigues' formula: I + sin K + (1 - cos) K^2 with K the cross product with the axis.
    x, y, z = (axis / axis.norm(dim=1, keepdim=True).clamp(min=1e-12)).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack(
        [torch.stack(r, dim=1) for r in ((zero, -z, y), (z, zero, -x), (-y, x, zero))], dim=1
    )
    identity = torch.eye(3, dtype=angle.dtype)
    square = cross @ cross
    return identity + sine[:, None, None] * cross + (1 - cosine)[:, None, None] * square


def _unit(draws: Draws, name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw from [0, 1)."""
    return (draws.uniform(name, shape, 1.0) + 1) / 2
