"""Every model on every family: what must not change the outputs does not, and the rest does.

Networks are in a state that hides nothing: weights drawn so that the outputs have a root mean
square of one and differ between fields, running statistics populated. Elements of the symmetry
group have windings of up to 40 periods and scales from 1e-2 to 1e2; fields are fitted ones and
Gaussian ones.
"""

from __future__ import annotations

import functools
import typing
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classifiers import ClassifierConfig
from classifiers.models import Model, ModelConfig
from classifiers.reader import WeightReader, build_reader
from classifiers.space import WeightSpace, space_of
from fitting import Adam, FitConfig, Random, fit_dataset
from nefbench.config import config_from_mapping
from nefbench.errors import TrainingError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren
from nefbench.seeding import Draws
from nefbench.signals import signals_from_array
from nefbench.weights.symmetries import act, random_element, symmetry_kinds

NUM_FIELDS, NUM_CLASSES = 8, 5
FAMILIES: dict[str, FieldConfig] = {
    "siren": Siren(hidden_dim=4, num_layers=4, omega_0=5.0),
    "fouriernet": FourierNet(hidden_dim=4, num_filters=3, input_scale=4.0),
    "gabornet": GaborNet(hidden_dim=4, num_filters=3, input_scale=4.0),
    "rffnet": RFFNet(hidden_dim=6, num_layers=3, std=0.5),
    "mlp": MLP(hidden_dim=4, num_layers=2),
    "shapenet": ShapeNet(hidden_dim=4, num_blocks=2, omega_0=5.0),
}
MODELS: dict[str, dict[str, typing.Any]] = {
    "mlp": {"kind": "mlp", "hidden_dims": [16, 16], "batch_norm": True, "dropout": 0.0},
    "gnn": {"kind": "gnn", "hidden_dim": 8, "node_mlp_dims": [16], "edge_mlp_dims": [16]},
    "gnn both ways": {
        "kind": "gnn", "hidden_dim": 8, "node_mlp_dims": [16], "edge_mlp_dims": [16],
        "reverse_edges": True,
    },
    "ng-gnn": {"kind": "ng-gnn", "hidden_dim": 8, "num_frequencies": 8, "dropout": 0.0},
    "ng-gnn probes": {
        "kind": "ng-gnn", "hidden_dim": 8, "num_frequencies": 8, "num_probes": 4, "dropout": 0.0,
    },
    "ng-t": {
        "kind": "ng-t", "node_dim": 8, "edge_dim": 4, "attention_dim": 8, "num_heads": 2,
        "num_frequencies": 8, "dropout": 0.0,
    },
    "ng-t present": {
        "kind": "ng-t", "node_dim": 8, "edge_dim": 4, "attention_dim": 8, "num_heads": 2,
        "num_frequencies": 8, "dropout": 0.0, "edges": "present", "num_probes": 4,
    },
    "dws": {"kind": "dws", "hidden_dim": 8, "num_hidden": 2, "num_heads": 2},
    "dws ds": {"kind": "dws", "set_layer": "ds", "hidden_dim": 8, "num_hidden": 2},
    "nfn": {
        "kind": "nfn", "channels": [8, 8], "num_frequencies": 8, "head_dims": [16],
        "dropout": 0.0, "channel_dropout": 0.0,
    },
    "nfn np": {
        "kind": "nfn", "layer": "np", "position_bands": 2, "channels": [8, 8],
        "num_frequencies": 8, "head_dims": [16], "dropout": 0.0, "channel_dropout": 0.0,
    },
    "inr2vec": {
        "kind": "inr2vec", "encoder_dims": [16, 16], "embedding_dim": 64, "classifier_dims": [16],
        "dropout": 0.0,
    },
    "scale-gmn": {"kind": "scale-gmn", "hidden_dim": 8, "dropout": 0.0, "readout": "all"},
    "scale-gmn both ways": {
        "kind": "scale-gmn", "hidden_dim": 8, "dropout": 0.0, "readout": "all",
        "bidirectional": True,
    },
    "phase-gmn": {"kind": "phase-gmn", "hidden_dim": 8, "head_dims": [16], "dropout": 0.0},
    "phase-gmn two rounds": {
        "kind": "phase-gmn", "hidden_dim": 8, "num_rounds": 2, "head_dims": [16], "dropout": 0.0,
    },
    "phase-probes": {
        "kind": "phase-probes", "num_channels": 8, "unit_dim": 8, "hidden_dims": [16],
        "mixing_rank": 2, "dropout": 0.0,
    },
    "probegen": {"kind": "probegen", "num_probes": 8, "latent_dim": 4, "hidden_dims": [16]},
    "probing": {
        "kind": "probegen", "generator": "none", "num_probes": 8, "hidden_dims": [16],
    },
}  # fmt: skip
"""Small versions of every model, without dropout."""
REFUSED: set[tuple[str, str]] = {
    (model, "shapenet") for model in ("dws", "dws ds", "nfn", "nfn np")
} | {
    (model, family)
    for model in ("phase-gmn", "phase-gmn two rounds", "phase-probes")
    for family in FAMILIES
    if family != "siren"
}
"""(model, family) that the model cannot read."""
PAIRS = [(model, family) for model in MODELS for family in FAMILIES]
READ = [pair for pair in PAIRS if pair not in REFUSED]


def model_of(name: str) -> Model:
    model: Model = config_from_mapping(ClassifierConfig, {"model": MODELS[name]}).model
    return model


@functools.cache
def space(family: str) -> WeightSpace:
    return space_of(FAMILIES[family], 2, 3)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> typing.Callable[[str], Tensor]:
    """Fields of a family that were fitted to smooth images, float64 ``[8, P]``."""

    @functools.cache
    def rows(family: str) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        low = torch.rand(NUM_FIELDS, 3, 3, 3, generator=generator)
        images = nn.functional.interpolate(low, size=(8, 8), mode="bicubic").clamp(0, 1)
        config = FitConfig(
            field=FAMILIES[family], init=Random(), optimizer=Adam(learning_rate=1e-2), num_steps=40
        )
        folder: Path = tmp_path_factory.mktemp(family)
        dataset = fit_dataset(signals_from_array(images.movedim(1, -1)), config, folder / "fields")
        return dataset.split("train").weights.double()

    return rows


def gaussian(family: str) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(
        NUM_FIELDS, space(family).num_params, dtype=torch.float64, generator=generator
    )


def lively(name: str, family: str, rows: Tensor) -> WeightReader:
    """Build a network in float64 whose outputs are of size one and differ between the fields."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        reader = build_reader(model_of(name), space(family), NUM_CLASSES).double()
        reader.normalisation.measure(rows)
        for parameter in reader.parameters():
            if parameter.ndim == 1:  # biases, and gains that must not vanish
                parameter.data.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.data.mul_(2)
    last = [p for p in reader.parameters() if p.ndim >= 2 and NUM_CLASSES in p.shape][-1]
    with torch.no_grad():
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in reader.modules()):
            reader.train()
            for _ in range(30):
                reader(rows)
        reader.eval()
        outputs = reader(rows)
        spread = (outputs - outputs.mean(0)).square().mean().sqrt()
        last.data.mul_(1 / spread)
        outputs = reader(rows)
    size = outputs.square().mean().sqrt()
    assert size >= 0.5
    assert (outputs - outputs.mean(0)).square().mean().sqrt() > 0.05 * size, "nothing is read"
    return reader


def change(before: Tensor, after: Tensor) -> float:
    return float((after - before).abs().max() / before.square().mean().sqrt())


def moved(family: str, rows: Tensor, kinds: list[str], seed: int = 0) -> Tensor:
    spec = space(family).spec
    draws = Draws(seed, tuple(range(len(rows))))
    return act(spec, rows, random_element(spec, draws, kinds, max_phase=80, max_scale=1e2))


def cases() -> list[typing.Any]:
    found = []
    for name, family in READ:
        kinds = sorted(model_of(name).symmetries(space(family)))
        words = [[kind] for kind in kinds] + ([kinds] if len(kinds) > 1 else [])
        found += [
            pytest.param(name, family, word, id=f"{name}-{family}-{'+'.join(word)}")
            for word in words
        ]
    return found


def test_no_model_is_left_out() -> None:
    members = typing.get_args(ModelConfig) or (ModelConfig,)
    kinds = {member.__dataclass_fields__["kind"].default for member in members}

    assert {settings["kind"] for settings in MODELS.values()} == kinds


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_model_reads_a_family_or_says_which_it_can(name: str, family: str) -> None:
    if (name, family) in REFUSED:
        with pytest.raises(TrainingError, match="reads"):
            build_reader(model_of(name), space(family), NUM_CLASSES)
    else:
        reader = build_reader(model_of(name), space(family), NUM_CLASSES)
        assert reader(gaussian(family).float()).shape == (NUM_FIELDS, NUM_CLASSES)


@pytest.mark.parametrize(("name", "family", "kinds"), cases())
def test_outputs_do_not_depend_on_what_the_model_is_invariant_to(
    name: str, family: str, kinds: list[str], fitted: typing.Any
) -> None:
    for rows in (fitted(family), gaussian(family)):
        reader = lively(name, family, rows)
        for is_training in (False, True):
            reader.train(is_training)
            with torch.no_grad():
                before = reader(rows)
                for seed in range(2):
                    assert change(before, reader(moved(family, rows, kinds, seed))) <= 1e-9


@pytest.mark.parametrize(("name", "family", "kinds"), cases())
def test_in_single_precision_the_invariance_holds_to_rounding(
    name: str, family: str, kinds: list[str], fitted: typing.Any
) -> None:
    rows = fitted(family)
    reader = lively(name, family, rows).float()
    single = rows.float()
    spec = space(family).spec
    element = random_element(spec, Draws(0, tuple(range(len(rows)))), kinds, max_phase=2)

    with torch.no_grad():
        assert change(reader(single), reader(act(spec, single, element))) <= 1e-4


@pytest.mark.parametrize(("name", "family"), READ)
def test_outputs_depend_on_everything_else(name: str, family: str, fitted: typing.Any) -> None:
    rows = fitted(family)
    reader = lively(name, family, rows)
    spec = space(family).spec
    others = set(symmetry_kinds(spec)) - model_of(name).symmetries(space(family))
    with torch.no_grad():
        before = reader(rows)
        for kind in others:
            assert change(before, reader(moved(family, rows, [kind]))) > 1e-3, kind
        # inputs and outputs are not exchangeable
        for end in ("inputs", "outputs"):
            assert change(before, reader(roll(family, rows, end))) > 1e-4, end


def roll(family: str, rows: Tensor, end: str) -> Tensor:
    """Move every input (or output) of the fields to the next place: another function."""
    spec = space(family).spec
    parts = spec.unflatten(rows)
    for tensor in spec.tensors:
        if end == "outputs" and tensor.axes[-1] is None:
            parts[tensor.name] = parts[tensor.name].roll(1, -1)
        if end == "inputs" and len(tensor.axes) == 2 and tensor.axes[0] is None:
            parts[tensor.name] = parts[tensor.name].roll(1, -2)
    return spec.flatten(parts)


@pytest.mark.parametrize(("name", "family"), READ)
def test_no_parameter_and_no_weight_is_dead(name: str, family: str, fitted: typing.Any) -> None:
    rows = fitted(family).clone().requires_grad_()
    reader = lively(name, family, rows.detach())
    mix = torch.randn(NUM_FIELDS, NUM_CLASSES, dtype=torch.float64)

    (torch.tanh(reader(rows)) * mix).sum().backward()

    for parameter_name, parameter in reader.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().max()) > 0, parameter_name
    assert rows.grad is not None
    for tensor_name, place in space(family).spec.slices().items():
        assert float(rows.grad[:, place].abs().max()) > 0, tensor_name
