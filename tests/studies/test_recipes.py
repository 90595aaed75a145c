from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from classifiers import MLP, Augmentation, ClassifierConfig
from classifiers.models import DWS
from classifiers.space import space_of
from fitting import Adam, AdamW, Constant, FitConfig, Random, Shared
from nefbench.config import config_to_mapping
from nefbench.errors import ConfigError
from nefbench.fields import FieldConfig, FourierNet, RFFNet, Siren
from nefbench.signals import (
    DigitsConfig,
    ImagesConfig,
    MicroImageNetConfig,
    PatchesConfig,
    ProceduralShapesConfig,
    SignalsConfig,
)
from studies.design import Search, grid_params, steps_of
from studies.recipes import (
    FitRecipe,
    load_classifier_config,
    load_fit_recipe,
    load_study_config,
    preset_names,
    study_preset_names,
)
from studies.space import Choice, Integer, Real

# Settings of the published study (Papa et al. 2024): field and learning rate.
STUDY: dict[str, tuple[FieldConfig, float]] = {
    "siren": (Siren(hidden_dim=32, num_layers=3, omega_0=9.0), 1e-3),
    "rffnet": (RFFNet(hidden_dim=32, num_layers=5, std=0.1), 1e-4),
    "fouriernet": (FourierNet(hidden_dim=32, num_filters=4, input_scale=16.0), 5e-3),
}
SIGNALS: dict[str, SignalsConfig] = {
    "digits": DigitsConfig(),
    "mnist": ImagesConfig(
        path="ylecun/mnist",
        name="mnist",
        train="train[:55000]",
        validation="train[55000:]",
        test="test",
        mean=(0.13066047,),
        std=(0.30810782,),
    ),
    "cifar10": ImagesConfig(
        path="uoft-cs/cifar10",
        name="cifar10",
        train="train[:45000]",
        validation="train[45000:]",
        test="test",
        mean=(0.49186882, 0.48265392, 0.44717726),
        std=(0.24697122, 0.24338895, 0.2615926),
    ),
    "patches": PatchesConfig(),
    "stl10": ImagesConfig(
        path="tanganke/stl10",
        name="stl10",
        train="train[:4500]",
        validation="train[4500:]",
        test="test",
        shuffle_seed=42,
        mean=(0.4470306, 0.43970686, 0.40560696),
        std=(0.26047868, 0.25662908, 0.27047333),
    ),
    "tinyimagenet": ImagesConfig(
        path="zh-plus/tiny-imagenet",
        name="tinyimagenet",
        train="train[:90%]",
        validation="train[90%:]",
        test="valid",
        shuffle_seed=42,
        size=(64, 64),
        mode="RGB",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
    "celeba": ImagesConfig(
        path="flwrlabs/celeba",
        name="celeba",
        train="train",
        validation="valid",
        test="test",
        crop=128,
        crop_offset=(15, 0),
        mode="RGB",
        mean=(0.54789786, 0.42231354, 0.35919538),
        std=(0.28920344, 0.25242392, 0.24213944),
    ),
    "imagenet": ImagesConfig(
        path="ILSVRC/imagenet-1k",
        name="imagenet",
        train="train[:96%]",
        validation="train[96%:]",
        test="validation",
        shuffle_seed=42,
        crop=256,
        mode="RGB",
        mean=(0.48254237, 0.4388626, 0.386439),
        std=(0.27634448, 0.26488768, 0.27203527),
    ),
    "micro-imagenet": MicroImageNetConfig(),
}


def presets(verb: str) -> list[str]:
    folder = resources.files("studies") / "presets" / verb
    return sorted(item.name for item in folder.iterdir())


def test_there_is_a_preset_for_every_pair_of_signals_and_field() -> None:
    assert preset_names("fit") == sorted(f"{s}-{f}" for s in (*SIGNALS, "shapes") for f in STUDY)
    assert preset_names("train") == [
        "dws",
        "dws-ds",
        "gnn",
        "gnn-1200k",
        "gnn-1500k",
        "gnn-500k",
        "inr2vec",
        "mlp",
        "mlp-32",
        "mlp-64",
        "mlp-aligned",
        "nfn",
        "nfn-np",
        "ng-gnn",
        "ng-gnn-probes",
        "ng-t",
        "ng-t-probes",
        "phase-gmn",
        "phase-probes",
        "probegen",
        "probing",
        "scale-gmn",
        "scale-gmn-bidirectional",
        "scale-gmn-small",
    ]


@pytest.mark.parametrize("verb", ["fit", "train"])
def test_every_preset_begins_with_a_comment_that_says_what_it_is(verb: str) -> None:
    for name in presets(verb):
        text = (resources.files("studies") / "presets" / verb / name).read_text(encoding="utf-8")
        assert text.startswith("# "), name
        assert len(text.splitlines()[0]) > 20, name


@pytest.mark.parametrize("signals", SIGNALS)
@pytest.mark.parametrize("field", STUDY)
def test_fit_presets_have_exactly_the_settings_of_the_study(signals: str, field: str) -> None:
    recipe = load_fit_recipe(f"{signals}-{field}")

    expected_field, learning_rate = STUDY[field]
    assert recipe.field == expected_field
    assert recipe.field.preset == "fit-a-nef"
    assert recipe.signals == SIGNALS[signals]
    assert recipe.optimizer == Adam(learning_rate=learning_rate)  # no weight decay
    assert recipe.schedule == Constant()
    assert recipe.init == Shared()
    assert recipe.pixel_fraction == 1.0
    assert recipe.seed == 0
    assert recipe.config_name == f"{field}-h32-shared"


@pytest.mark.parametrize("field", STUDY)
def test_shapes_are_fitted_with_the_fields_of_the_study_at_width_64(field: str) -> None:
    recipe = load_fit_recipe(f"shapes-{field}")

    assert recipe.field.kind == field
    assert recipe.config_name == f"{field}-h64-shared"
    assert recipe.signals == ProceduralShapesConfig(num_uniform=50_000, num_near_surface=50_000)
    assert recipe.points_per_step == 2048


@pytest.mark.parametrize(
    ("field", "num_weights"),
    [("siren", (1_185, 1_251)), ("rffnet", (4_289, 4_355)), ("fouriernet", (3_585, 3_651))],
)
def test_fit_presets_have_the_published_numbers_of_weights(
    field: str, num_weights: tuple[int, int]
) -> None:
    grey = load_fit_recipe(f"mnist-{field}").field.spec(2, 1).num_params
    colour = load_fit_recipe(f"cifar10-{field}").field.spec(2, 3).num_params

    assert (grey, colour) == num_weights


def test_the_default_classifier_preset_is_the_default_configuration() -> None:
    assert load_classifier_config("mlp") == ClassifierConfig()


def test_the_aligned_preset_is_the_default_on_aligned_rows() -> None:
    assert load_classifier_config("mlp-aligned") == ClassifierConfig(gauge_fixing="aligned")


def test_the_published_example_is_a_preset() -> None:
    config = load_classifier_config("mlp-64")

    assert config.model == MLP(
        hidden_dims=(64,) * 5, activation="relu", batch_norm=True, dropout=0.0
    )
    assert (config.learning_rate, config.weight_decay, config.amsgrad) == (1e-3, 5e-4, True)
    assert (config.batch_size, config.num_epochs, config.noise_std) == (128, 10, 0.05)


def test_the_baseline_of_navon_is_a_preset() -> None:
    config = load_classifier_config("mlp-32")

    parameters = config.model.build(
        space_of(Siren(hidden_dim=32, num_layers=3), 2, 1), 10
    ).parameters()
    assert sum(parameter.numel() for parameter in parameters) == 42_762
    assert (config.learning_rate, config.weight_decay, config.amsgrad) == (5e-3, 5e-4, True)
    assert (config.batch_size, config.num_epochs, config.noise_std) == (512, 100, 0.0)


@pytest.mark.parametrize(
    ("name", "set_layer", "num_params"), [("dws", "sab", 552_650), ("dws-ds", "ds", 320_586)]
)
def test_the_networks_of_navon_are_presets(name: str, set_layer: str, num_params: int) -> None:
    config = load_classifier_config(name)

    assert isinstance(config.model, DWS)
    assert config.model == DWS(set_layer=config.model.set_layer)
    assert config.model.set_layer == set_layer
    network = config.model.build(space_of(Siren(hidden_dim=32, num_layers=3), 2, 1), 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == num_params
    assert (config.learning_rate, config.weight_decay, config.amsgrad) == (5e-3, 5e-4, True)
    assert (config.batch_size, config.num_epochs, config.noise_std) == (512, 100, 0.1)
    assert config.augmentation == Augmentation(
        translation=0.25, rotation=45.0, scale=0.2, dropout=0.01
    )


def test_a_recipe_without_its_signals_is_the_fit() -> None:
    recipe = load_fit_recipe("digits-siren", ["num_steps=7", "name=mine"])

    fit = recipe.fit_config

    assert type(fit) is FitConfig
    assert config_to_mapping(recipe) == config_to_mapping(fit) | {
        "signals": config_to_mapping(recipe.signals)
    }
    assert (fit.num_steps, fit.name) == (7, "mine")


@pytest.mark.parametrize(
    ("name", "num_params"),
    [
        ("nfn", 3_304_554),
        ("nfn-np", 2_948_650),
        ("inr2vec", 3_573_514),
        ("probegen", 285_548),
        ("probing", 282_506),
    ],
)
def test_presets_have_the_numbers_of_parameters_that_they_state(name: str, num_params: int) -> None:
    space = space_of(Siren(hidden_dim=32, num_layers=3), 2, 1)

    network = load_classifier_config(name).model.build(space, 10)

    assert sum(parameter.numel() for parameter in network.parameters()) == num_params


def test_overrides_change_the_preset_and_nothing_else() -> None:
    plain = load_fit_recipe("digits-siren")

    changed = load_fit_recipe(
        "digits-siren",
        ["field.hidden_dim=64", "init=random", "signals.max_signals=600", "num_steps=5"],
    )

    assert changed.field == Siren(hidden_dim=64, num_layers=3, omega_0=9.0)
    assert changed.init == Random()
    assert changed.signals == DigitsConfig(max_signals=600)
    assert changed.num_steps == 5
    assert changed.optimizer == plain.optimizer


def test_another_kind_drops_the_settings_of_the_preset_s_kind() -> None:
    recipe = load_fit_recipe("digits-siren", ["field.kind=rffnet", "optimizer.kind=adamw"])

    assert recipe.field == RFFNet()
    assert recipe.optimizer == AdamW()


def test_overrides_reach_classifier_presets() -> None:
    config = load_classifier_config("mlp", ["model.hidden_dims=[8]", "seeds=[3]", "noise_std=0.5"])

    assert config.model == MLP(hidden_dims=(8,))
    assert (config.seeds, config.noise_std) == ((3,), 0.5)
    assert config.patience == 15


def test_a_misspelt_preset_is_refused_with_a_suggestion_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'digits-sirn'; did you mean 'digits-siren'"):
        load_fit_recipe("digits-sirn")
    with pytest.raises(ConfigError, match=r"presets: .*mlp, mlp-32, mlp-64.*, or the path"):
        load_classifier_config("forest")


def test_presets_of_another_verb_are_not_found() -> None:
    with pytest.raises(ConfigError, match="no preset 'digits-siren'"):
        load_classifier_config("digits-siren")


def test_an_unknown_key_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'field\.hidden_dims'; did you mean 'hidde"):
        load_fit_recipe("digits-siren", ["field.hidden_dims=8"])


def test_a_file_of_one_s_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('num_steps = 3\n[signals]\nkind = "digits"\n[field]\nkind = "siren"\n')

    recipe = load_fit_recipe(str(path), ["seed=4"])

    assert recipe == FitRecipe(num_steps=3, seed=4, signals=DigitsConfig(), field=Siren())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*mine.toml: No such file"),
        ("num_steps = ", "mine.toml is not valid TOML"),
        ("num_steps = 3", "missing key 'signals'"),
        ('signals = "digits"\nlearning_rate = 1', "unknown key 'learning_rate'"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match=message):
        load_fit_recipe(str(path))


# Studies


def test_every_study_preset_can_be_loaded() -> None:
    names = study_preset_names()

    assert len(names) == len(set(names)) == 3 * 5 * 3 + 2 * 5 * 3
    for name in names:
        assert load_study_config(name).name == name


def test_phase_2_at_full_budget_is_the_published_grid() -> None:
    config = load_study_config("phase-2-mnist-paper")

    assert len(grid_params(config)) == 3 * 60
    for name, (field, rate) in STUDY.items():
        space = config.fields[name]
        widths = space.space["field.hidden_dim"]
        assert isinstance(widths, Choice)
        assert widths.values == ((8, 32, 64) if name == "siren" else (16, 32, 64))
        assert space.config({"field.hidden_dim": 32}).field == field
        assert space.fit.optimizer == Adam(learning_rate=rate)
        assert steps_of(config, name) == (5, 15, 25, 50, 75, 1000, 5000, 10000, 20000, 50000)
    assert config.sources == {"mnist": SIGNALS["mnist"]}
    (mlp,) = config.classifiers.values()
    released = load_classifier_config("mlp-64", ["num_epochs=50", "seeds=[0, 1, 2]"])
    assert mlp.config({}) == released


def test_phase_1_at_full_budget_has_the_published_space() -> None:
    config = load_study_config("phase-1-rffnet-cifar10-paper")

    assert list(config.fields) == ["rffnet"]
    assert config.fields["rffnet"].space == {
        "init.kind": Choice(values=("shared", "random")),
        "optimizer.weight_decay": Real(low=1e-8, high=1e-2, log=True),
        "optimizer.learning_rate": Real(low=1e-5, high=1e-1, log=True),
        "num_steps": Choice(values=(20, 200, 1000, 5000, 10000, 20000)),
        "field.hidden_dim": Integer(low=4, high=128, log=True, multiple_of=2),
        "field.num_layers": Integer(low=3, high=6),
        "field.std": Real(low=1e-2, high=1e2, log=True),
    }
    (mlp,) = config.classifiers.values()
    assert mlp.config({}) == load_classifier_config("mlp-64")
    assert config.sources == {"cifar10": SIGNALS["cifar10"]}


@pytest.mark.parametrize("budget", ["smoke", "laptop", "paper"])
def test_the_overfitting_study_has_three_published_sizes_of_two_classifiers(budget: str) -> None:
    config = load_study_config(f"overfitting-mnist-{budget}")
    space = space_of(Siren(hidden_dim=32, num_layers=3), 2, 1)

    sizes = {
        name: sum(p.numel() for p in item.classifier.model.build(space, 10).parameters())
        for name, item in config.classifiers.items()
    }

    assert sizes == {
        "mlp-74k": 73_642, "mlp-116k": 116_742, "mlp-363k": 363_082,
        "gnn-500k": 494_458, "gnn-1200k": 1_256_138, "gnn-1500k": 1_491_498,
    }  # fmt: skip
    assert len(grid_params(config)) == 6


def test_overrides_come_on_top_of_a_study_preset() -> None:
    config = load_study_config("phase-1-siren-digits-smoke", ["design.num_trials=3", "name=x"])

    assert config.design == Search(num_trials=3, pruning=True)
    assert config.name == "x"
