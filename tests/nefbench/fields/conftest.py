from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def golden_row() -> Callable[[int], Tensor]:
    """Parameters of the golden vectors: p_k = 0.5 sin(1 + 1.7 k), float64."""
    return lambda size: 0.5 * torch.sin(1 + 1.7 * torch.arange(size, dtype=torch.float64))


@pytest.fixture
def golden_coords() -> Tensor:
    """Inputs of the golden vectors."""
    return torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.25, -0.5], [1.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def check_laws() -> Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]:
    """Compare drawn tensors with ``name -> ("uniform", bound)``, ``("normal", std)``, zero.

    The seed of the draws is fixed, so the tolerances are met always or never.
    """

    def check(params: dict[str, Tensor], laws: dict[str, tuple[str, float]]) -> None:
        assert list(params) == list(laws)
        for name, (law, scale) in laws.items():
            values = params[name].double()
            if law == "zero":
                assert not values.any(), name
                continue
            largest, std = float(values.abs().max()), float(values.std())
            assert abs(float(values.mean())) < 0.05 * std, name
            if law == "uniform":
                assert 0.99 * scale < largest < scale * (1 + 1e-6), name
                assert std == pytest.approx(scale / 3**0.5, rel=0.03), name
            else:
                # A tail beyond 3 sigma tells a normal from a uniform of the same spread.
                assert largest > 3 * scale, name
                assert std == pytest.approx(scale, rel=0.03), name

    return check
