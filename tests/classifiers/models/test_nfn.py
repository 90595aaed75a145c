from __future__ import annotations

import math
import typing

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from classifiers.batch import FieldBatch
from classifiers.chain import chain_layout, to_chain
from classifiers.models.nfn import (
    NFN,
    EquivariantLinear,
    LayerKind,
    Part,
    Variant,
    chain_parts,
    position_codes,
)
from classifiers.space import WeightSpace, space_of
from nefbench.errors import TrainingError
from nefbench.fields import FieldConfig, FourierNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.weights.symmetries import act, random_element

LAYERS = typing.get_args(LayerKind)
VARIANTS = typing.get_args(Variant)
SIZES = {"one output": (2, 4, 5, 1), "three outputs": (2, 4, 5, 3), "one hidden": (2, 4, 3)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shape(part: Part, sizes: tuple[int, ...], num_features: int) -> tuple[int, ...]:
    return (*(sizes[axis] for axis in part.axes), part.folded * num_features)


def inputs(sizes: tuple[int, ...], layer: LayerKind, batch: int, num_features: int) -> list[Tensor]:
    return [
        draw(batch, *shape(part, sizes, num_features), seed=seed)
        for seed, part in enumerate(chain_parts(sizes, layer))
    ]


def permuted(
    parts: typing.Sequence[Part], values: list[Tensor], orders: dict[int, Tensor]
) -> list[Tensor]:
    moved = []
    for part, value in zip(parts, values, strict=True):
        for place, axis in enumerate(part.axes):
            value = value.index_select(1 + place, orders[axis])
        moved.append(value)
    return moved


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("model", "out_dim", "expected"),
    [
        (NFN(variant="released", channels=(512,) * 3), 1, 68_844_330),  # 68.84 M
        (NFN(variant="released", channels=(512,) * 3), 3, 135_126_826),  # 135.13 M
        (NFN(variant="released"), 1, 3_871_338),  # 3.87 M
        (  # 44.97 M
            NFN(layer="np", variant="released", channels=(512,) * 3, position_bands=3),
            1,
            44_966_186,
        ),
        (NFN(), 1, 3_304_554),
        (NFN(), 3, 5_724_010),
        (NFN(channels=(512,) * 3), 1, 53_758_762),
    ],
)
def test_parameter_counts_are_the_published_ones(model: NFN, out_dim: int, expected: int) -> None:
    space = space_of(Siren(hidden_dim=32, num_layers=3), 2, out_dim)

    with torch.device("meta"):
        assert count(model.build(space, 10)) == expected


def test_a_small_count_agrees_with_a_hand_count() -> None:
    # 2-n-n-1, one feature in, C = 1 out. Along each of two axes 3 statistics to 3 tensors, with 2
    # inputs folded on the first and one output on the last: 4*4 + 3*3; the middle weights to
    # themselves: 1; everything (2+1+1+1+1+1 = 7 numbers) to everything and a bias: 7*7 + 7.
    layer = EquivariantLinear(chain_parts((2, 5, 5, 1), "hnp"), 1, 1, "complete")

    assert count(layer) == 16 + 9 + 1 + 56 == 82


# ---------------------------------------------------------------- completeness


@pytest.mark.parametrize(
    ("sizes", "layer", "variant", "rank"),
    [
        ((2, 4, 5, 1), "hnp", "complete", 75 + 7),
        ((2, 4, 5, 1), "hnp", "released", 81),
        ((2, 4, 5, 3), "hnp", "complete", 163 + 11),
        ((2, 4, 5, 3), "hnp", "released", 171),
        ((2, 4, 4, 4, 1), "hnp", "complete", 117 + 9),
        ((2, 4, 5, 1), "np", "complete", 57 + 6),
        ((2, 4, 5, 1), "np", "released", 57 + 6),
        ((2, 4, 5, 3), "np", "complete", 62 + 6),
        ((2, 4, 5, 3), "np", "released", 62 + 6),
    ],
)
def test_a_layer_spans_every_equivariant_map(
    sizes: tuple[int, ...], layer: LayerKind, variant: Variant, rank: int
) -> None:
    network = EquivariantLinear(chain_parts(sizes, layer), 1, 1, variant).double()
    values = inputs(sizes, layer, 12, 1)

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        parts = functional_call(network, parameters, (values,))
        return torch.cat([part.flatten() for part in parts])

    blocks = jacrev(outputs)({name: p.detach() for name, p in network.named_parameters()})
    jacobian = torch.cat([block.flatten(1) for block in blocks.values()], dim=1)

    assert int(torch.linalg.matrix_rank(jacobian)) == rank
    if (variant == "complete" and sizes[-1] > 1) or (layer == "hnp" and variant == "complete"):
        assert jacobian.shape[1] == rank  # and every map once


# ---------------------------------------------------------------- equivariance


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_permuting_before_a_layer_is_permuting_after_it(
    sizes: tuple[int, ...], layer: LayerKind, variant: Variant
) -> None:
    parts = chain_parts(sizes, layer)
    network = EquivariantLinear(parts, 3, 2, variant).double()
    values = inputs(sizes, layer, 2, 3)
    orders = {axis: torch.randperm(size) for axis, size in enumerate(sizes)}

    after = permuted(parts, network(values), orders)
    before = network(permuted(parts, values, orders))

    for one, other in zip(after, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_the_axes_of_the_parts_are_those_that_the_symmetries_permute() -> None:
    space = space_of(FourierNet(hidden_dim=4, num_filters=3), 2, 3)
    layout = chain_layout(space, "test")
    parts = chain_parts(layout.sizes, "hnp")
    rows = draw(2, space.num_params)
    element = random_element(space.spec, Draws(0, (0,)), ["permutation"])

    def folded(values: Tensor) -> list[Tensor]:
        chain = to_chain(space, layout, values)
        tensors = (*chain.weights, *chain.biases)
        return [part.fold(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    orders = {1 + i: order[0] for i, order in enumerate(element.permutations.values())}
    moved = type(element)({g: o.expand(2, -1) for g, o in element.permutations.items()}, {})

    for one, other in zip(
        folded(act(space.spec, rows, moved)), permuted(parts, folded(rows), orders), strict=True
    ):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- parity


def test_a_complete_layer_agrees_with_sums_entry_by_entry() -> None:
    sizes, before, after = (2, 4, 5, 3), 3, 2
    parts = chain_parts(sizes, "hnp")
    layer = EquivariantLinear(parts, before, after, "complete").double()
    values = inputs(sizes, "hnp", 2, before)
    w1, w2, w3, b1, b2, b3 = values
    first, second, everywhere = (linear.weight for linear in layer.maps)

    # every unit k of layer 1 sees (W_1 column k, mean of W_2 row k, b_1 k); of layer 2 likewise
    along_first = torch.stack(
        [
            first @ torch.cat([w1[b, k], w2[b, k].mean(0), b1[b, k]])
            for b in (0, 1)
            for k in range(4)
        ]
    ).reshape(2, 4, -1)
    along_second = torch.stack(
        [
            second @ torch.cat([w2[b, :, k].mean(0), w3[b, k], b2[b, k]])
            for b in (0, 1)
            for k in range(5)
        ]
    ).reshape(2, 5, -1)
    means = [w1.mean(1), w2.mean((1, 2)), w3.mean(1), b1.mean(1), b2.mean(1), b3]
    whole = torch.cat(means, dim=1) @ everywhere.T + layer.maps[2].bias
    to_w1, to_w2, to_w3, to_b1, to_b2, to_b3 = whole.split([4, 2, 6, 2, 2, 6], dim=1)
    w1_first, w2_first, b1_first = along_first.split([4, 2, 2], dim=2)
    w2_second, w3_second, b2_second = along_second.split([2, 6, 2], dim=2)
    pointwise = layer.pointwise["1"].weight
    expected_w2 = torch.empty(2, 4, 5, after, dtype=torch.float64)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                expected_w2[b, i, j] = (
                    pointwise @ w2[b, i, j] + w2_first[b, i] + w2_second[b, j] + to_w2[b]
                )

    outputs = layer(values)

    expected = [
        w1_first + to_w1[:, None],
        expected_w2,
        w3_second + to_w3[:, None],
        b1_first + to_b1[:, None],
        b2_second + to_b2[:, None],
        to_b3,
    ]
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_released_layer_agrees_with_the_published_equations() -> None:
    sizes, width = (2, 4, 5, 3), 2
    layer = EquivariantLinear(chain_parts(sizes, "hnp"), width, width, "released").double()
    values = inputs(sizes, "hnp", 2, width)
    w1, w2, w3, b1, b2, b3 = values
    inputs_mean = w1.unflatten(-1, (2, width)).mean(-2)
    outputs_mean = w3.unflatten(-1, (3, width)).mean(-2)
    rows, columns = w2.mean(2), w2.mean(1)
    read = [
        torch.cat([w1, b1, rows], dim=-1),  # to W_1, b_1
        torch.cat([rows, w1, inputs_mean, b1], dim=-1),  # to W_2, along its rows
        torch.cat([columns, b2, w3, outputs_mean], dim=-1),  # to W_2, b_2, along its columns
        torch.cat([w3, columns], dim=-1),  # to W_3
        torch.cat(
            [
                *(w1.mean(1), w2.mean((1, 2)), w3.mean(1), b1.mean(1), b2.mean(1), b3),
                *(inputs_mean.mean(1), outputs_mean.mean(1), b3.unflatten(-1, (3, width)).mean(-2)),
            ],
            dim=-1,
        ),
    ]
    sums = [linear(statistics) for linear, statistics in zip(layer.maps, read, strict=True)]
    to_w1, to_w2, to_w3, to_b1, to_b2, to_b3 = sums[4].split([4, 2, 6, 2, 2, 6], dim=-1)

    outputs = layer(values)

    expected = [
        sums[0][..., :4] + to_w1[:, None],
        layer.pointwise["1"](w2)
        + sums[1][:, :, None]
        + sums[2][:, None, :, :2]
        + to_w2[:, None, None],
        sums[3] + to_w3[:, None],
        sums[0][..., 4:] + to_b1[:, None],
        sums[2][..., 2:] + to_b2[:, None],
        to_b3,
    ]
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


# ---------------------------------------------------------------- start


def test_maps_that_are_summed_start_within_one_bound() -> None:
    layer = EquivariantLinear(chain_parts((2, 6, 6, 1), "hnp"), 40, 30, "complete")
    # to W_2: itself 40, along rows (2 + 1 + 1) 40, along columns (1 + 1 + 1) 40, everything 7 * 40
    bound = 1 / math.sqrt(40 + 160 + 120 + 280)
    along_rows, along_columns, everywhere = (linear.weight for linear in layer.maps)

    for kernel in (
        layer.pointwise["1"].weight,
        along_rows[60:90],
        along_columns[:30],
        everywhere[60:90],
    ):
        assert 0.98 * bound < float(kernel.detach().abs().max()) <= bound


# ---------------------------------------------------------------- positions


def test_positions_are_sines_cosines_and_themselves() -> None:
    codes = position_codes((2, 4, 3), 2, 4.0)

    # layers and inputs lie at -1 and 1, outputs at -1, 0, 1; frequencies are pi and 2 pi
    at_ends = [0.0, 0.0, -1.0, 1.0]
    at_zero = [0.0, 0.0, 1.0, 1.0]
    first = torch.tensor([[*at_ends, -1.0], [*at_ends, 1.0]]) + torch.tensor([*at_ends, -1.0])
    outputs = torch.tensor([[*at_ends, -1.0], [*at_zero, 0.0], [*at_ends, 1.0]])
    last = outputs + torch.tensor([*at_ends, 1.0])
    torch.testing.assert_close(codes[0].squeeze(1), first, rtol=0, atol=1e-6)
    torch.testing.assert_close(codes[1].squeeze(0), last, rtol=0, atol=1e-6)
    torch.testing.assert_close(codes[2], torch.tensor([[*at_ends, -1.0]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(codes[3], last, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bands", [0, 3])
def test_np_tells_inputs_and_outputs_apart_by_their_positions_alone(bands: int) -> None:
    space = space_of(Siren(hidden_dim=4), 2, 3)
    network = small(NFN, space, layer="np", position_bands=bands)
    rows = draw(4, space.num_params)
    parts = space.spec.unflatten(rows)
    swapped = space.spec.flatten(
        parts | {"kernel_net_0.linear.kernel": parts["kernel_net_0.linear.kernel"].flip(-2)}
    )

    difference = float((read(network, rows) - read(network, swapped)).abs().max())

    assert difference > 1e-4 if bands else difference < 1e-12


# ---------------------------------------------------------------- network


def small(kind: type[NFN], space: WeightSpace, **settings: typing.Any) -> nn.Module:
    defaults = {"channels": (6, 6), "num_frequencies": 8, "head_dims": (12,), "dropout": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(**(defaults | {"channel_dropout": 0.0} | settings))
        return model.build(space, 5).double()


def read(network: nn.Module, rows: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network(FieldBatch(torch.full_like(rows, torch.nan), rows))
    return outputs


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("field", "in_dim", "out_dim"),
    [
        (Siren(hidden_dim=4, num_layers=2), 2, 1),
        (Siren(hidden_dim=4, num_layers=5), 3, 3),
        (FourierNet(hidden_dim=4, num_filters=1), 1, 2),
    ],
)
def test_any_depth_is_read(
    field: FieldConfig, in_dim: int, out_dim: int, layer: LayerKind, variant: Variant
) -> None:
    space = space_of(field, in_dim, out_dim)
    network = small(NFN, space, layer=layer, variant=variant)
    rows = draw(4, space.num_params)
    element = random_element(space.spec, Draws(0, tuple(range(4))), ["permutation"])

    outputs = read(network, rows)

    assert float((outputs[0] - outputs[1]).abs().max()) > 1e-4
    torch.testing.assert_close(read(network, act(space.spec, rows, element)), outputs)


def test_whole_channels_of_weights_are_dropped_while_training() -> None:
    space = space_of(Siren(hidden_dim=4), 2, 3)
    network = small(NFN, space, channel_dropout=0.5)
    ones = [torch.ones(3, *shape(part, (2, 4, 4, 3), 6)) for part in network.parts]

    torch.manual_seed(1)
    dropped = [network._drop(place, value) for place, value in enumerate(ones)]

    for part, value in zip(network.parts[:3], dropped[:3], strict=True):
        channels = value.unflatten(-1, (part.folded, 6)).flatten(1, -2)
        assert torch.equal(channels, channels[:, :1].expand_as(channels))
        assert set(channels.unique().tolist()) == {0.0, 2.0}
    assert len(dropped[3][0, :, 0].unique()) == 2  # of biases, entries
    assert network.eval()._drop(0, ones[0]) is ones[0]


def test_fields_whose_layers_share_their_neurons_are_refused() -> None:
    space = space_of(ShapeNet(hidden_dim=4), 2, 1)

    with pytest.raises(TrainingError, match="model 'nfn' reads chains of layers"):
        NFN().build(space, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ()}, r"expected one or more channels >= 1 \(got \(\)\)"),
        ({"head_dims": (0,)}, r"expected head_dims >= 1 \(got \(0,\)\)"),
        ({"num_frequencies": 0}, "expected num_frequencies >= 1"),
        ({"position_bands": -1}, "expected position_bands >= 0"),
        ({"sigma": 0.0}, r"expected sigma > 0 and finite \(got 0.0\)"),
        ({"position_max_frequency": math.inf}, "expected position_max_frequency > 0 and finite"),
        ({"dropout": 1.0}, "expected 0 <= dropout < 1"),
        ({"channel_dropout": -0.1}, "expected 0 <= channel_dropout < 1"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NFN(**settings)
