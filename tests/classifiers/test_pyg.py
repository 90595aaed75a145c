from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, GINEConv, global_mean_pool

from classifiers import Examples, examples_from_dataset
from classifiers.batch import FieldBatch
from classifiers.examples import LabelledRows
from classifiers.graph import topology_of
from classifiers.models.gnn import GNN
from classifiers.normalisation import TensorNormalisation
from classifiers.pyg import GeometricNetwork, examples_to_pyg, from_pyg, to_pyg
from classifiers.space import WeightSpace, space_of, space_of_values
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.weights import load_neural_dataset

FAMILIES: list[FieldConfig] = [
    Siren(hidden_dim=8, num_layers=3),
    FourierNet(hidden_dim=6, num_filters=3),
    GaborNet(hidden_dim=6, num_filters=2),
    RFFNet(hidden_dim=8, num_layers=3),
    MLP(hidden_dim=6, num_layers=2),
    ShapeNet(hidden_dim=5, num_blocks=2, block="shortcut"),
]
EVERY_FAMILY = pytest.mark.parametrize("field", FAMILIES, ids=lambda field: field.kind)
VARIANTS = [{}, {"reverse_edges": True}, {"residual": False, "reverse_edges": True}]


def random_rows(space: WeightSpace, num_fields: int = 6) -> Tensor:
    return torch.randn(num_fields, space.num_params, generator=torch.Generator().manual_seed(0))


def two_networks(config: GNN, space: WeightSpace) -> tuple[nn.Module, GeometricNetwork]:
    """Dense and geometric, with one state in which logits differ between fields."""
    torch.manual_seed(0)
    dense, geometric = config.build(space, 5), GeometricNetwork(config, space, 5)
    for parameter in dense.parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(0, 0.3)
    geometric.load_state_dict(dense.state_dict(), strict=True)
    return dense, geometric


@EVERY_FAMILY
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "+".join(variant) or "default")
def test_the_geometric_network_gives_the_logits_of_the_dense_one(
    field: FieldConfig, variant: dict[str, bool]
) -> None:
    space = space_of(field, 2, 3)
    config = GNN(hidden_dim=16, node_mlp_dims=(32, 32), edge_mlp_dims=(32,), **variant)
    dense, geometric = two_networks(config, space)
    rows = random_rows(space)

    with torch.no_grad():
        expected = dense(FieldBatch(rows, rows))
        static = geometric(FieldBatch(rows, rows))
        batched = geometric(Batch.from_data_list(list(to_pyg(rows, space))))

    size = expected.square().mean().sqrt()
    assert (expected - expected.mean(0)).square().mean().sqrt() > 0.05 * size
    # float32, other orders of summation; relative to the size of the logits
    assert float((static - expected).abs().max() / size) <= 1e-5
    assert float((batched - expected).abs().max() / size) <= 1e-5


def test_both_networks_have_the_same_gradients() -> None:
    space = space_of(FourierNet(hidden_dim=6, num_filters=3), 2, 1)
    dense, geometric = two_networks(GNN(hidden_dim=8, reverse_edges=True), space)
    dense, geometric = dense.double(), geometric.double()
    rows = random_rows(space).double()

    dense(FieldBatch(rows, rows)).square().sum().backward()
    geometric(Batch.from_data_list(list(to_pyg(rows, space)))).square().sum().backward()

    of_geometric = dict(geometric.named_parameters())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(
            of_geometric[name].grad, parameter.grad, rtol=1e-9, atol=1e-9, msg=name
        )


def test_a_single_graph_is_a_batch_of_one() -> None:
    space = space_of(Siren(hidden_dim=4), 2, 1)
    _, geometric = two_networks(GNN(hidden_dim=8), space)
    rows = random_rows(space)

    with torch.no_grad():
        alone = geometric(to_pyg(rows, space)[2])

        together = geometric(FieldBatch(rows, rows))
    assert alone.shape == (1, 5)
    torch.testing.assert_close(alone[0], together[2], rtol=1e-5, atol=1e-5)


def test_shared_edges_are_no_part_of_the_state() -> None:
    space = space_of(Siren(hidden_dim=4), 2, 1)
    dense, geometric = two_networks(GNN(hidden_dim=8), space)

    assert list(geometric.state_dict()) == list(dense.state_dict())
    assert geometric.edge_index.shape == (2, topology_of(space).num_edges)


def test_a_field_is_a_graph_of_its_neurons() -> None:
    space = space_of(Siren(hidden_dim=2, num_layers=2), 1, 1)
    bias_0, kernel_0, bias_1, kernel_1 = [0.1, 0.2], [0.3, 0.4], [0.5], [0.6, 0.7]
    parts = {
        tensor.name: torch.tensor(values).reshape(1, *tensor.shape)
        for tensor, values in zip(
            space.spec.tensors, [bias_0, kernel_0, bias_1, kernel_1], strict=True
        )
    }

    graph = to_pyg(space.spec.flatten(parts), space, torch.tensor([3]))[0]

    assert isinstance(graph, Data)
    graph.validate(raise_on_error=True)
    # nodes: the input, two units, the output
    torch.testing.assert_close(graph.x, torch.tensor([[0.0], [0.1], [0.2], [0.5]]))
    assert graph.edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 3, 3]]
    torch.testing.assert_close(graph.edge_attr, torch.tensor([[0.3], [0.4], [0.6], [0.7]]))
    assert graph.node_type.tolist() == [0, 1, 1, 2]
    assert graph.edge_type.tolist() == [0, 0, 1, 1]
    assert graph.y.tolist() == [3]


@EVERY_FAMILY
@pytest.mark.parametrize("as_batch", [False, True])
def test_rows_survive_the_way_to_graphs_and_back(field: FieldConfig, as_batch: bool) -> None:
    space = space_of(field, 3, 2)
    rows = random_rows(space)
    rows[0, :3] = 0.0  # a weight of zero is a weight

    graphs = to_pyg(rows, space)

    back = from_pyg(Batch.from_data_list(list(graphs)) if as_batch else graphs, space)
    assert torch.equal(back, rows)
    assert torch.equal(from_pyg(graphs[4], space), rows[4:5])
    assert torch.equal(from_pyg(graphs[[5, 0]], space), rows[[5, 0]])


def test_graphs_of_other_fields_are_refused() -> None:
    small, large = (space_of(Siren(hidden_dim=width), 2, 1) for width in (4, 5))

    with pytest.raises(ValueError, match=r"expected x of shape \[13, 1\] per graph .*other fields"):
        from_pyg(to_pyg(random_rows(small, 2), small), large)


def test_rows_and_labels_of_different_numbers_are_refused() -> None:
    space = space_of(Siren(hidden_dim=4), 2, 1)

    with pytest.raises(ValueError, match=r"expected 6 labels, one per row \(got 5\)"):
        to_pyg(random_rows(space), space, torch.zeros(5))


def test_plain_values_are_no_graphs() -> None:
    with pytest.raises(TrainingError, match="needs fields with hidden units"):
        to_pyg(torch.zeros(2, 6), space_of_values((6,)))


def test_splits_are_normalised_with_the_statistics_of_the_training_split() -> None:
    space = space_of(Siren(hidden_dim=4), 2, 1)
    splits = {
        name: LabelledRows(scale * random_rows(space), torch.arange(6) % 2)
        for name, scale in (("train", 1.0), ("validation", 2.0), ("test", 3.0))
    }
    examples = Examples("random", space, ("a", "b"), splits, 0, "")
    normalise = TensorNormalisation(space.spec)
    normalise.measure(splits["train"].rows)

    stored, normalised = examples_to_pyg(examples), examples_to_pyg(examples, "standardise")

    assert torch.equal(from_pyg(stored["test"], space), splits["test"].rows)
    assert torch.equal(from_pyg(normalised["test"], space), normalise(splits["test"].rows))
    assert normalised["test"].num_classes == 2


class Convolutions(nn.Module):
    """A user's own model from convolutions of the library."""

    def __init__(self, num_node_features: int, num_edge_features: int) -> None:
        super().__init__()
        mlp = nn.Sequential(nn.Linear(num_node_features, 16), nn.ReLU(), nn.Linear(16, 16))
        self.first = GINEConv(mlp, edge_dim=num_edge_features)
        self.second = GCNConv(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, data: Data) -> Tensor:
        """Map a batch of graphs to logits."""
        nodes = self.first(data.x, data.edge_index, data.edge_attr).relu()
        nodes = self.second(nodes, data.edge_index).relu()
        logits: Tensor = self.head(global_mean_pool(nodes, data.batch))
        return logits


def test_any_model_of_the_library_trains_on_a_neural_dataset(fitted_digits: Path) -> None:
    examples = examples_from_dataset(load_neural_dataset(fitted_digits))
    graphs = examples_to_pyg(examples, "standardise")["train"]
    loader = DataLoader(graphs, batch_size=32, shuffle=True)
    torch.manual_seed(0)
    model = Convolutions(graphs.num_node_features, graphs.num_edge_features)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    batch = next(iter(loader))
    loss = nn.functional.cross_entropy(model(batch), batch.y)
    loss.backward()
    optimizer.step()

    assert batch.num_graphs == 32
    assert len(graphs) == 180
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, parameter)
    with torch.no_grad():
        assert float(nn.functional.cross_entropy(model(batch), batch.y)) < float(loss)
