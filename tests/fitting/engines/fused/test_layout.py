from __future__ import annotations

import pytest
import torch

from fitting.engines.fused.layout import ALIGNMENT
from fitting.engines.fused.networks import describe
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren

FIELDS: list[FieldConfig] = [
    Siren(hidden_dim=5, num_layers=4),
    Siren(hidden_dim=32),
    RFFNet(hidden_dim=10),
    FourierNet(hidden_dim=7, num_filters=3),
    MLP(hidden_dim=9, num_layers=1),
]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.kind}-{field.hidden_dim}")
def test_padding_loses_nothing_and_adds_zeros(field: FieldConfig) -> None:
    spec = field.spec(3, 2)
    network = describe(field, spec)
    assert network is not None
    rows = torch.randn(4, spec.num_params)

    packed = network.layout.pack(rows)

    assert torch.equal(network.layout.unpack(packed), rows)
    assert int((packed != 0).sum()) == rows.numel()
    assert packed.shape[1] % ALIGNMENT == 0
    assert [s.offset % ALIGNMENT for s in network.layout.segments] == [0] * len(spec.tensors)


def test_units_are_padded_to_four_and_the_output_map_is_transposed() -> None:
    field = MLP(hidden_dim=3, num_layers=1)
    network = describe(field, field.spec(2, 2))
    assert network is not None

    # Row: bias 3, kernel [2, 3], bias 2, kernel [3, 2]; segments begin at 0, 16, 32 and 48.
    packed = network.layout.pack(torch.arange(1.0, 18.0)[None])[0]

    assert packed[:4].tolist() == [1, 2, 3, 0]
    assert packed[16:24].tolist() == [4, 5, 6, 0, 7, 8, 9, 0]
    assert packed[32:36].tolist() == [10, 11, 0, 0]
    assert packed[48:56].tolist() == [12, 14, 16, 0, 13, 15, 17, 0]


def test_sines_and_cosines_of_an_encoding_are_padded_apart() -> None:
    field = RFFNet(hidden_dim=6, num_layers=2)
    network = describe(field, field.spec(1, 1))
    assert network is not None
    kernel = network.layout.segments[2]

    packed = network.layout.pack(torch.ones(1, field.spec(1, 1).num_params))[0]

    # Three frequencies: rows 0 to 2 are sines, 4 to 6 cosines; six units in rows of eight.
    square = packed[kernel.offset : kernel.offset + 64].reshape(8, 8)
    assert square[:, 0].tolist() == [1, 1, 1, 0, 1, 1, 1, 0]
    assert square[0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_a_family_without_a_kernel_has_no_network() -> None:
    field = GaborNet()

    assert describe(field, field.spec(2, 1)) is None
