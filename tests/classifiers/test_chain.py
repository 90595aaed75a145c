from __future__ import annotations

import torch

from classifiers.chain import chain_layout, to_chain
from classifiers.space import WeightSpace, space_of
from nefbench.fields import MLP, FourierNet, GaborNet, RFFNet, Siren


def rows(space: WeightSpace) -> torch.Tensor:
    return torch.randn(3, space.num_params, generator=torch.Generator().manual_seed(0))


def test_a_siren_is_its_own_chain() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 2, 3)
    layout = chain_layout(space, "test")
    values = rows(space)

    chain = to_chain(space, layout, values)

    parts = space.spec.unflatten(values)
    assert (layout.sizes, layout.num_features) == ((2, 4, 4, 3), 1)
    assert torch.equal(chain.weights[0][..., 0], parts["kernel_net_0.linear.kernel"])
    assert torch.equal(chain.weights[2][..., 0], parts["output_linear.kernel"])
    assert torch.equal(chain.biases[1][..., 0], parts["kernel_net_1.linear.bias"])


def test_filters_after_the_first_are_folded_into_the_biases() -> None:
    space = space_of(FourierNet(hidden_dim=4, num_filters=3), 2, 1)
    layout = chain_layout(space, "test")
    values = rows(space)

    chain = to_chain(space, layout, values)

    parts = space.spec.unflatten(values)
    assert (layout.sizes, layout.num_features) == ((2, 4, 4, 4, 1), 4)
    first, second = chain.biases[:2]
    assert torch.equal(first[..., 0], parts["filters_0.linear.bias"])
    assert torch.equal(first[..., 1:], torch.zeros(3, 4, 3))
    assert torch.equal(second[..., 0], parts["filters_1.linear.bias"])
    assert torch.equal(second[..., 1], parts["linears_0.bias"])
    assert torch.equal(second[..., 2:], parts["filters_1.linear.kernel"].mT)
    assert torch.equal(chain.weights[1][..., 0], parts["linears_0.kernel"])


def test_every_number_of_a_row_is_somewhere_in_the_chain() -> None:
    for field in (MLP(hidden_dim=4), RFFNet(hidden_dim=4), GaborNet(hidden_dim=4, num_filters=3)):
        space = space_of(field, 2, 3)
        values = rows(space)

        chain = to_chain(space, chain_layout(space, "test"), values)

        found = torch.cat([part.flatten(1) for part in (*chain.weights, *chain.biases)], dim=1)
        found = found[:, (found != 0).all(0)]  # without padding
        assert torch.equal(found.sort(1).values, values.sort(1).values)
