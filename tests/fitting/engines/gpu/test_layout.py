from __future__ import annotations

import pytest
import torch

from fitting import FitConfig
from fitting.engines import FitProblem
from fitting.engines.gpu.layout import layout_of
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren
from nefbench.signals import grid_coords


def make_problem(field: FieldConfig) -> FitProblem:
    return FitProblem(FitConfig(field=field), field.spec(2, 3), grid_coords((2, 2)), 3)


@pytest.mark.parametrize(
    "field",
    [Siren(hidden_dim=33), RFFNet(hidden_dim=10), FourierNet(hidden_dim=5), MLP(hidden_dim=8)],
    ids=lambda field: field.kind,
)
def test_every_weight_has_a_place_of_its_own_among_zeros(field: FieldConfig) -> None:
    problem = make_problem(field)
    layout = layout_of(problem)
    assert layout is not None
    rows = 1 + torch.rand(3, problem.spec.num_params, generator=torch.Generator().manual_seed(0))

    packed = layout.pack(rows)

    assert torch.equal(layout.unpack(packed), rows)
    assert packed.shape == (3, layout.row_size)
    assert layout.row_size % 16 == 0
    assert (packed != 0).sum() == rows.numel()


def test_there_is_no_layout_of_a_field_that_the_kernel_does_not_know() -> None:
    assert layout_of(make_problem(GaborNet())) is None
