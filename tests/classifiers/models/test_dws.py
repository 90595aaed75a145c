from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classifiers.batch import FieldBatch
from classifiers.chain import Chain
from classifiers.models.dws import DWS, DWSNetwork
from classifiers.models.dws_blocks import Pooling, Variant
from classifiers.models.dws_layer import DWSLayer, SetKind
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, Siren

R1 = space_of(Siren(hidden_dim=32, num_layers=3), 2, 1)
R3 = space_of(Siren(hidden_dim=32, num_layers=3), 2, 3)
DEEP = space_of(Siren(hidden_dim=32, num_layers=4), 2, 1)
SMALL = space_of(Siren(hidden_dim=4, num_layers=3), 2, 3)


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_chain(sizes: tuple[int, ...], features: int, batch: int = 3) -> Chain:
    pairs = list(itertools.pairwise(sizes))
    return Chain(
        tuple(torch.randn(batch, *pair, features, dtype=torch.float64) for pair in pairs),
        tuple(torch.randn(batch, n, features, dtype=torch.float64) for _, n in pairs),
    )


def lively(layer: DWSLayer) -> DWSLayer:
    """Redraw every parameter, so that biases count and attention is not uniform."""
    layer.double()
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter) / math.sqrt(parameter.shape[-2:][0])
    return layer


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "sab", "ds"),
    [(R1, 552_650, 320_586), (R3, 1_037_258, 663_562), (DEEP, 800_554, 500_394)],
    ids=["2-32-32-1", "2-32-32-3", "2-32-32-32-1"],
)
def test_the_released_variant_has_the_published_numbers_of_parameters(
    space: WeightSpace, sab: int, ds: int
) -> None:
    assert count(DWS(variant="released").build(space, 10)) == sab
    assert count(DWS(variant="released", set_layer="ds").build(space, 10)) == ds


@pytest.mark.parametrize(
    ("space", "sab", "ds"),
    [(R1, 552_650, 320_586), (R3, 1_112_842, 688_970), (DEEP, 800_554, 500_394)],
    ids=["2-32-32-1", "2-32-32-3", "2-32-32-32-1"],
)
def test_the_fixed_variant_has_more_parameters_where_there_are_several_outputs(
    space: WeightSpace, sab: int, ds: int
) -> None:
    # On 2-32-32-3, with ds: W_2 -> W_3 grows from 2pq+q to 6pq+3q, b_1 -> W_3 from pq+q to 3pq+3q:
    # 6pq+4q more, p = 1, q = 32 in the first layer and p = q = 32 in four: 320 + 4 * 6272 = 25408
    assert count(DWS().build(space, 10)) == sab
    assert count(DWS(set_layer="ds").build(space, 10)) == ds
    assert space is not R3 or ds == 663_562 + 25_408


def test_a_layer_has_tens_of_modules() -> None:
    for set_layer in ("sab", "ds"):
        for sizes in ((2, 32, 32, 1), (2, 32, 32, 3), (2, 32, 32, 32, 1)):
            layer = DWSLayer(sizes, 32, 32, set_layer=set_layer)  # type: ignore[arg-type]

            assert len(list(layer.modules())) < 60


def test_skip_head_and_norms_have_the_parameters_of_a_hand_count() -> None:
    plain = count(DWS(hidden_dim=8, num_heads=2, num_hidden=1).build(SMALL, 5))

    def extra(**changes: Any) -> int:
        config = DWS(hidden_dim=8, num_heads=2, num_hidden=1, **changes)
        return count(config.build(SMALL, 5)) - plain

    assert extra(skip=True) == 8 + 8
    assert extra(num_head_layers=3) == 2 * (5 * 5 + 5)
    assert extra(batch_norm=False) == -6 * 2 * 8  # six tensors


# --- one layer against its table of blocks -------------------------------------------------------


def reduce(values: Tensor, dim: int, pooling: Pooling) -> Tensor:
    if pooling == "max":
        return values.max(dim).values
    return values.mean(dim) if pooling == "mean" else values.sum(dim)


Maps = dict[str, tuple[Tensor, Tensor | None]]


def linear(values: Tensor, maps: Maps, name: str) -> Tensor:
    weight, bias = maps[name]
    return values @ weight + (0 if bias is None else bias)


def set_map(tokens: Tensor, maps: Maps, heads: int, pooling: Pooling) -> Tensor:
    if "gamma" in maps:
        pooled = reduce(tokens, 1, pooling)
        return linear(tokens, maps, "gamma") - linear(pooled, maps, "lambda")[:, None]
    query, key, value = (linear(tokens, maps, name) for name in ("query", "key", "value"))
    width = query.shape[-1]
    parts = []
    for q, k, v in zip(*(x.split(width // heads, -1) for x in (query, key, value)), strict=True):
        scores = torch.einsum("bik,bjk->bij", q, k) / math.sqrt(width)
        parts.append(q + torch.einsum("bij,bjk->bik", scores.softmax(-1), v))
    mixed = torch.cat(parts, -1)
    return mixed + linear(mixed, maps, "mix").relu()


def naive_layer(
    layer: DWSLayer, chain: Chain, heads: int, pooling: Pooling, variant: Variant
) -> Chain:
    """Evaluate block by block, as the table of Navon et al. reads; nothing is shared."""
    sizes = layer.tensors.sizes
    M, B = len(sizes) - 1, len(chain.weights[0])
    maps: dict[tuple[int, int], Maps] = {}
    for block, name, weight, bias in layer.linears():
        maps.setdefault((block.source, block.target.tensor), {})[name] = (weight, bias)
    W = dict(enumerate(chain.weights, 1))
    b = dict(enumerate(chain.biases, 1))

    def rows_folded(w: Tensor) -> Tensor:  # [B, n_0, n_1, F] -> [B, n_1, n_0 F]
        return w.permute(0, 2, 1, 3).reshape(B, sizes[1], -1)

    def everything(w: Tensor, i: int) -> Tensor:
        if i == 1:
            return reduce(rows_folded(w), 1, pooling)
        if i == M:
            return reduce(w.reshape(B, sizes[M - 1], -1), 1, pooling)
        return reduce(w.flatten(1, 2), 1, pooling)

    def bias_pooled(j: int) -> Tensor:
        return b[j].reshape(B, -1) if j == M else reduce(b[j], 1, pooling)

    def on_rows(values: Tensor, i: int, copied: bool) -> Tensor:  # [B, n_{i-1}, …] -> like W_i
        if i == M and not copied:
            return values.reshape(B, sizes[M - 1], sizes[M], -1)
        return values[:, :, None].expand(-1, -1, sizes[i], -1)

    def on_columns(values: Tensor, i: int) -> Tensor:  # [B, n_i, …] -> like W_i
        if i == 1:
            return values.reshape(B, sizes[1], sizes[0], -1).permute(0, 2, 1, 3)
        return values[:, None].expand(-1, sizes[i - 1], -1, -1)

    def on_all(values: Tensor, i: int, copied: bool) -> Tensor:  # [B, …] -> like W_i
        if i == 1:
            return values.reshape(B, sizes[0], 1, -1).expand(-1, -1, sizes[1], -1)
        if i == M and not copied:
            return values.reshape(B, 1, sizes[M], -1).expand(-1, sizes[M - 1], -1, -1)
        return values[:, None, None].expand(-1, sizes[i - 1], sizes[i], -1)

    def to_weight_from_weight(i: int, j: int, m: Maps) -> Tensor:
        w, copied = W[j], False
        if i == j == 1:
            return on_columns(set_map(rows_folded(w), m, heads, pooling), 1)
        if i == j == M:
            return on_rows(set_map(w.reshape(B, sizes[M - 1], -1), m, heads, pooling), M, False)
        if i == j:
            four = linear(w, m, "entries") + linear(reduce(w, 1, pooling), m, "rows")[:, None]
            four = four + linear(reduce(w, 2, pooling), m, "columns")[:, :, None]
            both = reduce(reduce(w, 1, pooling), 1, pooling)
            return (four + linear(both, m, "both")[:, None, None]) / 4
        if j == i - 1:  # the columns of W_j are the rows of W_i
            tokens = rows_folded(w) if j == 1 else reduce(w, 1, pooling)
            copied = i == M and variant == "released"
            return on_rows(set_map(tokens, m, heads, pooling), i, copied)
        if j == i + 1:  # the rows of W_j are the columns of W_i
            tokens = w.reshape(B, sizes[M - 1], -1) if j == M else reduce(w, 2, pooling)
            return on_columns(set_map(tokens, m, heads, pooling), i)
        return on_all(linear(everything(w, j), m, "pooled"), i, False)

    def to_weight_from_bias(i: int, j: int, m: Maps) -> Tensor:
        if i == j < M:
            return on_columns(set_map(b[j], m, heads, pooling), i)
        if j == i - 1:
            return on_rows(set_map(b[j], m, heads, pooling), i, False)
        copied = i == M and j != M and variant == "released"
        return on_all(linear(bias_pooled(j), m, "pooled"), i, copied)

    def to_bias_from_weight(i: int, j: int, m: Maps) -> Tensor:
        if i == j < M:
            tokens = rows_folded(W[1]) if j == 1 else reduce(W[j], 1, pooling)
            return set_map(tokens, m, heads, pooling)
        if j == i + 1:
            last = j == M
            tokens = W[M].reshape(B, sizes[M - 1], -1) if last else reduce(W[j], 2, pooling)
            return set_map(tokens, m, heads, pooling)
        return bias_of(linear(everything(W[j], j), m, "pooled"), i)

    def to_bias_from_bias(i: int, j: int, m: Maps) -> Tensor:
        if i == j < M:
            return set_map(b[j], m, heads, pooling)
        return bias_of(linear(bias_pooled(j), m, "pooled"), i)

    def bias_of(values: Tensor, i: int) -> Tensor:
        if i == M:
            return values.reshape(B, sizes[M], -1)
        return values[:, None].expand(-1, sizes[i], -1)

    weights, biases = [], []
    for i in range(1, M + 1):
        weight: Any = 0
        bias: Any = 0
        for j in range(1, M + 1):
            for j_tensor, to_weight, to_bias in (
                (j - 1, to_weight_from_weight, to_bias_from_weight),
                (M + j - 1, to_weight_from_bias, to_bias_from_bias),
            ):
                if (j_tensor, i - 1) in maps:
                    weight = weight + to_weight(i, j, maps[j_tensor, i - 1])
                if (j_tensor, M + i - 1) in maps:
                    bias = bias + to_bias(i, j, maps[j_tensor, M + i - 1])
        weights.append(weight / (2 * M))
        biases.append(bias / (2 * M))
    return Chain(tuple(weights), tuple(biases))


@pytest.mark.parametrize("variant", ["fixed", "released"])
@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
@pytest.mark.parametrize("set_layer", ["sab", "ds"])
@pytest.mark.parametrize("sizes", [(2, 4, 5, 3), (3, 5, 5, 1), (2, 3, 4, 4, 3), (2, 3, 4, 5, 3, 2)])
def test_a_layer_agrees_with_its_table_of_blocks(
    sizes: tuple[int, ...], set_layer: SetKind, pooling: Pooling, variant: Variant
) -> None:
    layer = lively(
        DWSLayer(sizes, 3, 8, set_layer=set_layer, num_heads=2, pooling=pooling, variant=variant)
    )
    chain = random_chain(sizes, 3)

    joined = layer(chain)
    plain = naive_layer(layer, chain, 2, pooling, variant)

    torch.testing.assert_close(tuple(joined), tuple(plain), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("set_layer", ["sab", "ds"])
def test_every_parameter_belongs_to_one_map_of_one_block(
    set_layer: SetKind, diagonal: bool
) -> None:
    layer = DWSLayer((2, 4, 4, 4, 3), 3, 8, set_layer=set_layer, diagonal=diagonal)
    for parameter in layer.parameters():
        parameter.data.zero_()

    pairs = set()
    for block, _, weight, bias in layer.linears():
        pairs.add((block.source, block.target.tensor))
        weight.data.add_(1)
        if bias is not None:
            bias.data.add_(1)

    assert all(torch.equal(p, torch.ones_like(p)) for p in layer.parameters())
    assert len(pairs) == (4 * 4 if diagonal else 4 * 4**2)


@pytest.mark.parametrize("set_layer", ["sab", "ds"])
def test_a_diagonal_layer_agrees_with_its_table_and_keeps_the_layers_of_the_field_apart(
    set_layer: SetKind,
) -> None:
    sizes = (2, 4, 5, 4, 3)
    layer = lively(DWSLayer(sizes, 2, 4, set_layer=set_layer, num_heads=2, diagonal=True))
    chain, other = random_chain(sizes, 2), random_chain(sizes, 2)
    mixed = Chain(
        (other.weights[0], chain.weights[1], *other.weights[2:]),
        (other.biases[0], chain.biases[1], *other.biases[2:]),
    )

    before, after = layer(chain), layer(mixed)

    plain = naive_layer(layer, chain, 2, "max", "fixed")
    torch.testing.assert_close(tuple(before), tuple(plain), rtol=1e-10, atol=1e-10)
    assert torch.equal(before.weights[1], after.weights[1])
    assert torch.equal(before.biases[1], after.biases[1])


@pytest.mark.parametrize(
    ("sizes", "variant", "expected"),
    [
        ((2, 4, 4, 1), "fixed", 75 + 7),
        ((2, 4, 4, 3), "fixed", 163 + 11),
        ((2, 4, 4, 4, 1), "fixed", 117 + 9),
        ((2, 4, 4, 1), "released", 75 + 7),
        ((2, 4, 4, 3), "released", 168),
    ],
)
def test_a_deep_sets_layer_spans_every_equivariant_affine_map(
    sizes: tuple[int, ...], variant: Variant, expected: int
) -> None:
    # The dimension of that space is a sum over products of Bell numbers; hidden layers of four
    # units are wide enough for it. The layer is affine in its parameters.
    layer = DWSLayer(sizes, 1, 1, set_layer="ds", pooling="mean", variant=variant).double()
    parameters = {name: value.detach() for name, value in layer.named_parameters()}
    chain = random_chain(sizes, 1, batch=14)

    def outputs(values: dict[str, Tensor]) -> Tensor:
        result: Chain = torch.func.functional_call(layer, values, (chain,))
        return torch.cat([x.flatten() for x in (*result.weights, *result.biases)])

    jacobian = torch.func.jacfwd(outputs)(parameters)
    matrix = torch.cat([block.flatten(1) for block in jacobian.values()], dim=1)

    assert int(torch.linalg.matrix_rank(matrix)) == expected


# --- equivariance --------------------------------------------------------------------------------


def permuted(chain: Chain, orders: dict[int, Tensor]) -> Chain:
    """Put the units of hidden layer ``l`` in the order ``orders[l]``."""
    weights, biases = [], []
    for layer, (weight, bias) in enumerate(zip(*chain, strict=True), 1):
        if layer - 1 in orders:
            weight = weight[:, orders[layer - 1]]
        if layer in orders:
            weight, bias = weight[:, :, orders[layer]], bias[:, orders[layer]]
        weights.append(weight)
        biases.append(bias)
    return Chain(tuple(weights), tuple(biases))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["fixed", "released"])
@pytest.mark.parametrize("set_layer", ["sab", "ds"])
@pytest.mark.parametrize("sizes", [(2, 5, 6, 3), (2, 5, 4, 6, 3)])
def test_a_layer_is_equivariant_to_permutations_of_hidden_units_and_of_nothing_else(
    sizes: tuple[int, ...], set_layer: SetKind, variant: Variant
) -> None:
    layer = lively(DWSLayer(sizes, 2, 4, set_layer=set_layer, num_heads=2, variant=variant))
    chain = random_chain(sizes, 2)
    hidden = {axis: torch.randperm(sizes[axis]) for axis in range(1, len(sizes) - 1)}

    torch.testing.assert_close(
        tuple(layer(permuted(chain, hidden))),
        tuple(permuted(layer(chain), hidden)),
        rtol=1e-12,
        atol=1e-12,
    )
    for end in (0, len(sizes) - 1):
        rolled = {end: torch.arange(sizes[end]).roll(1)}
        pairs = zip(layer(permuted(chain, rolled)), permuted(layer(chain), rolled), strict=True)
        for changed, expected in pairs:
            for x, y in zip(changed, expected, strict=True):
                assert float((x - y).abs().max()) > 1e-2


def small(**changes: Any) -> DWS:
    return DWS(**{"hidden_dim": 8, "num_heads": 2, "num_hidden": 2} | changes)


def network_on(space: WeightSpace, config: DWS) -> tuple[DWSNetwork, FieldBatch]:
    network = config.build(space, 5).double()
    assert isinstance(network, DWSNetwork)
    rows = torch.randn(6, space.num_params, dtype=torch.float64)
    return network, FieldBatch(torch.full_like(rows, torch.nan), rows)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{}, {"set_layer": "ds", "pooling": "sum"}, {"skip": True}, {"downsample": 3}],
    ids=["default", "ds", "skip", "downsample"],
)
def test_the_network_does_not_see_the_order_of_units_but_of_inputs_and_outputs(
    changes: dict[str, Any],
) -> None:
    network, batch = network_on(SMALL, small(**changes))
    parts = SMALL.spec.unflatten(batch.normalised)
    order = torch.tensor([2, 0, 3, 1])

    def logits(**moved: Tensor) -> Tensor:
        names = {"W1": "kernel_net_0.linear.kernel", "b1": "kernel_net_0.linear.bias",
                 "W2": "kernel_net_1.linear.kernel", "W3": "output_linear.kernel",
                 "b3": "output_linear.bias"}  # fmt: skip
        changed = parts | {names[name]: values for name, values in moved.items()}
        outputs: Tensor = network(FieldBatch(batch.weights, SMALL.spec.flatten(changed)))
        return outputs

    W1, b1, W2, W3, b3 = (
        parts[name]
        for name in ("kernel_net_0.linear.kernel", "kernel_net_0.linear.bias",
                     "kernel_net_1.linear.kernel", "output_linear.kernel", "output_linear.bias")
    )  # fmt: skip
    plain = logits()
    units = logits(W1=W1[:, :, order], b1=b1[:, order], W2=W2[:, order])
    inputs = logits(W1=W1.roll(1, 1))
    outputs = logits(W3=W3.roll(1, 2), b3=b3.roll(1, 1))

    size = float(plain.square().mean().sqrt())
    assert float((units - plain).abs().max()) <= 1e-10 * size
    assert float((inputs - plain).abs().max()) > 1e-3 * size
    assert float((outputs - plain).abs().max()) > 1e-3 * size


# --- around the layers ---------------------------------------------------------------------------


@torch.no_grad()
def test_at_the_start_logits_of_gaussian_inputs_are_small() -> None:
    network = DWS(batch_norm=False).build(R1, 10)

    logits = network(FieldBatch(torch.zeros(0), torch.randn(64, R1.num_params)))

    # measured on the released code: about 0.05
    assert 0.025 < float(logits.square().mean().sqrt()) < 0.1


@torch.no_grad()
def test_weights_start_with_the_published_deviation() -> None:
    layer = DWSLayer((2, 32, 32, 1), 32, 64, init_scale=3.0, off_diagonal_scale=0.5)

    for block, _, weight, bias in layer.linears():
        fan_in, fan_out = weight.shape
        factor = 3.0 if block.source == block.target.tensor else 1.5
        expected = factor * math.sqrt(2 / (fan_in + fan_out) * 2 * fan_in / fan_out)
        assert float(weight.std()) == pytest.approx(expected, rel=0.1)  # >= 2048 draws: 1.6 %
        assert bias is None or 0 < float(bias.abs().max()) <= 1e-4


@torch.no_grad()
def test_the_released_variant_scales_every_block() -> None:
    layer = DWSLayer((2, 4, 4, 1), 1, 8, off_diagonal_scale=0.0, variant="released")

    assert all(float(weight.abs().max()) == 0 for _, _, weight, _ in layer.linears())


def test_without_equivariant_layers_the_skip_is_left() -> None:
    network, batch = network_on(SMALL, small(skip=True, init_scale=0.0))
    for layer in network.layers:
        for parameter in layer.parameters():
            parameter.data.zero_()
    network.head = nn.Identity()

    # one linear map 1 -> 8 of constant weight 1/8; ReLU; W_1 keeps two inputs, then W_2, …
    first = SMALL.spec.unflatten(batch.normalised)["kernel_net_0.linear.kernel"]
    pooled = network(batch)[:, : 2 * 8].reshape(6, 2, 8)

    expected = (first / 8).relu().amax(-1)
    torch.testing.assert_close(pooled, expected[..., None].expand(-1, -1, 8))


def test_dropout_is_for_training_except_in_the_released_variant() -> None:
    fixed, batch = network_on(SMALL, small(dropout=0.5))
    released, _ = network_on(SMALL, small(dropout=0.5, variant="released"))

    assert not torch.equal(fixed(batch), fixed(batch))
    assert torch.equal(fixed.eval()(batch), fixed(batch))
    assert not torch.equal(released.eval()(batch), released(batch))


@torch.no_grad()
def test_norms_normalise_every_tensor_and_feature_over_fields_and_entries() -> None:
    network, batch = network_on(SMALL, small())
    seen: list[Chain] = []
    network.layers[1].register_forward_hook(lambda *call: seen.append(call[2]))

    network(batch)

    (chain,) = seen
    for values in (*chain.weights, *chain.biases):
        flat = values.flatten(0, -2)
        assert float(flat.mean(0).abs().max()) < 1e-10
        # the variance has 1e-5 added to it before the division
        assert 0.5 < float(flat.var(0, correction=0).max()) <= 1


def test_downsampled_layers_agree_with_a_plain_computation() -> None:
    space = space_of(Siren(hidden_dim=4, num_layers=3), 7, 1)
    network, _ = network_on(space, small(downsample=3))
    layer = network.layers[0]
    layer.down.query.data.normal_()
    layer.up.query.data.normal_()
    chain = random_chain((7, 4, 4, 1), 1)

    def mapped(weight: Tensor, inner: Any) -> Tensor:
        results = torch.empty(3, inner.gamma.out_features, 4, weight.shape[-1]).double()
        for field, feature in itertools.product(range(3), range(weight.shape[-1])):
            units = weight[field, :, :, feature].T  # [n_1, n_0]
            pooled = torch.softmax(units @ inner.query, 0) @ units
            values = inner.gamma(units) - inner.lamda.weight @ pooled
            results[field, :, :, feature] = values.T
        return results

    result = layer(chain)
    reduced = Chain((mapped(chain.weights[0], layer.down), *chain.weights[1:]), chain.biases)
    inner = layer.layer(reduced)

    assert inner.weights[0].shape == (3, 3, 4, 8)
    expected = mapped(inner.weights[0], layer.up) + layer.skip(chain.weights[0])
    torch.testing.assert_close(result.weights[0], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(result.weights[1], inner.weights[1], rtol=1e-10, atol=1e-10)


# --- families ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "num_tensors", "num_features"),
    [
        (Siren(hidden_dim=4, num_layers=3), 0, 0),
        (MLP(hidden_dim=4, num_layers=2), 0, 0),
        (FourierNet(hidden_dim=4, num_filters=3), 8, 4),
        (GaborNet(hidden_dim=4, num_filters=3), 8, 7),
        (RFFNet(hidden_dim=6, num_layers=2), 6, 2),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
@pytest.mark.parametrize("set_layer", ["sab", "ds"])
def test_every_family_is_read_and_only_padded_ones_get_an_embedding(
    field: FieldConfig, num_tensors: int, num_features: int, set_layer: SetKind
) -> None:
    space = space_of(field, 2, 3)
    network, batch = network_on(space, small(set_layer=set_layer))

    assert network(batch).shape == (6, 5)
    if num_tensors:
        assert network.embedding is not None
        assert network.embedding.shape == (num_tensors, num_features)
    else:
        assert network.embedding is None


def test_fields_with_two_layers_are_refused() -> None:
    space = space_of(Siren(num_layers=2), 2, 1)

    with pytest.raises(
        TrainingError,
        match=r"model 'dws' reads chains of at least 3 layers \(got siren fields .* in 2\)",
    ):
        DWS().build(space, 10)


def test_plain_values_are_refused() -> None:
    with pytest.raises(TrainingError, match="fields with hidden units"):
        DWS().build(space_of_values((1185,)), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 12}, r"hidden_dim to be a multiple of num_heads \(got 12 and 8\)"),
        ({"num_hidden": 0}, "num_hidden >= 1"),
        ({"num_head_layers": 0}, "num_head_layers >= 1"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
        ({"downsample": 0}, "downsample >= 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DWS(**settings)


def test_deep_sets_need_no_heads() -> None:
    assert DWS(set_layer="ds", hidden_dim=12).hidden_dim == 12
