from __future__ import annotations

import io
import itertools
import json
import logging
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nefbench.errors import ConfigError, DatasetFormatError
from nefbench.fields import Siren
from nefbench.weights import NeuralDataset, load_neural_dataset
from nefbench.weights.state_dicts import import_state_dicts, is_of_state_dicts
from nefbench.weights.state_dicts.reading import read_fields

WIDTHS = (2, 6, 6, 1)


class SineLinear(nn.Linear):
    def __init__(self, in_dim: int, out_dim: int, omega_0: float) -> None:
        super().__init__(in_dim, out_dim)
        self.omega_0 = omega_0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega_0 * super().forward(x))


class Wrapped(nn.Module):
    """A sine layer whose linear map has a name of its own, as in NFN's files."""

    def __init__(self, in_dim: int, out_dim: int, omega_0: float) -> None:
        super().__init__()
        self.omega_0 = omega_0
        self.linear = nn.Linear(in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega_0 * self.linear(x))


class INR(nn.Module):
    """A SIREN as DWSNets define it: the output is shifted by one half."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, omega_0: float = 30.0) -> None:
        super().__init__()
        sines = [SineLinear(a, b, omega_0) for a, b in itertools.pairwise(widths[:-1])]
        self.seq = nn.Sequential(*sines, nn.Linear(*widths[-2:]))

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self.seq(x) + 0.5
        return shifted


class NfnSiren(nn.Module):
    """A SIREN as NFN defines it: of (row, column), for images scaled to [-1, 1]."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(Wrapped(2, 6, 30.0), Wrapped(6, 6, 30.0), nn.Linear(6, channels))

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.net(x)
        return values


def make(seed: int, model: Callable[[], nn.Module] = INR) -> nn.Module:
    torch.manual_seed(seed)
    made = model()
    for name, parameter in made.named_parameters():
        if name.endswith("weight") and parameter.shape[1] > 2:
            parameter.data.mul_(0.1)  # near the usual start, a bound of sqrt(6 / h) / omega_0
    return made


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def state(seed: int, model: Callable[[], nn.Module] = INR, **extras: Any) -> dict[str, Any]:
    return {**make(seed, model).state_dict(), **extras}


def mnist_name(split: str, label: int, image: int) -> str:
    return f"mnist_png_{split}_{label}_{image}/checkpoints/model_final.pth"


MNIST = {  # path: seed of its field; image 2 of both splits is another signal
    mnist_name("training", 7, 0): 0,
    mnist_name("training", 0, 1): 1,
    mnist_name("training", 7, 2): 2,
    mnist_name("training", 2, 10): 3,
    mnist_name("testing", 0, 0): 4,
    mnist_name("testing", 2, 2): 5,
}


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "mnist-inrs"
    for path, seed in MNIST.items():
        save(folder / path, make(seed).state_dict())
    return folder


def labels_of(dataset: NeuralDataset, split: str) -> list[int]:
    labels = dataset.split(split).labels
    assert labels is not None
    return labels.tolist()


def seeds_of(dataset: NeuralDataset, split: str) -> list[int]:
    """Which of our fields the rows are, by their output biases."""
    rows = dataset.spec.unflatten(dataset.split(split).weights)["output_linear.bias"][:, 0]
    known = [float(make(seed).state_dict()["seq.2.bias"][0]) for seed in range(20)]
    return [known.index(value) for value in rows.tolist()]


def complaint(source: Path, **options: Any) -> str:
    out = source.parent / "refused"
    with pytest.raises(DatasetFormatError) as caught:
        import_state_dicts(source, out, **options)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Values


def image_coords(height: int, width: int) -> Tensor:
    """The coordinates of DWSNets: (column, row), row by row."""
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    return torch.from_numpy(np.stack([x.reshape(-1), y.reshape(-1)], axis=1)).float()


@pytest.mark.parametrize("widths", [WIDTHS, (2, 5, 3), (2, 4, 4, 4, 1)])
@pytest.mark.parametrize("omega_0", [30.0, 7.0])
def test_a_rendered_field_has_the_values_of_its_module(
    tmp_path: Path, widths: tuple[int, ...], omega_0: float
) -> None:
    modules = [make(seed, lambda: INR(widths, omega_0)) for seed in range(3)]
    for seed, module in enumerate(modules):
        save(tmp_path / "set" / f"field_{seed}.pth", module.state_dict())

    dataset = import_state_dicts(tmp_path / "set", tmp_path / "out", omega_0=omega_0)

    assert dataset.field == Siren(hidden_dim=widths[1], num_layers=len(widths) - 1, omega_0=omega_0)
    rendered = dataset.render(dataset.split("train").weights, (5, 9))
    expected = torch.stack([module(image_coords(5, 9)) for module in modules])
    # float32: the sine's argument is up to some 40, rounded to 4e-6, times output weights of 0.04
    torch.testing.assert_close(rendered.flatten(1, 2), expected, rtol=0, atol=1e-6)


def test_every_bit_of_the_weights_is_kept_and_kernels_are_turned(tmp_path: Path) -> None:
    saved = state(3)
    save(tmp_path / "set" / "0.pth", saved)

    dataset = import_state_dicts(tmp_path / "set", tmp_path / "out")

    params = dataset.spec.unflatten(dataset.split("train").weights[0])
    for layer, name in enumerate(["kernel_net_0.linear", "kernel_net_1.linear", "output_linear"]):
        assert torch.equal(params[f"{name}.kernel"], saved[f"seq.{layer}.weight"].mT)
        assert torch.equal(params[f"{name}.bias"], saved[f"seq.{layer}.bias"])


@pytest.mark.parametrize(("channels", "grid"), [(1, (28, 28)), (3, (32, 32))])
def test_fields_of_nfn_show_the_image_upright_and_in_0_to_1(
    tmp_path: Path, channels: int, grid: tuple[int, ...]
) -> None:
    modules = [make(seed, lambda: NfnSiren(channels)) for seed in range(3)]
    folder = tmp_path / ("mnist" if channels == 1 else "cifar") / "randinit"
    for seed, module in enumerate(modules):
        save(folder / f"randinit_test_{seed % 2}s" / f"net{seed}.pth", module.state_dict())

    dataset = import_state_dicts(
        folder.parent, tmp_path / "out", splits=[("train", 1), ("test", 2)]
    )

    assert dataset.entry.signals.grid_shape == grid
    assert dataset.entry.signals.source.startswith("SIRENs of NFN")
    assert labels_of(dataset, "test") == [1, 0]
    rendered = dataset.render(dataset.split("test").weights, (4, 7))
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 7),
                                   indexing="ij")  # fmt: skip
    coords = torch.stack([rows, columns], dim=-1).reshape(-1, 2)
    expected = torch.stack([module(coords) for module in modules[1:]]) * 0.5 + 0.5
    torch.testing.assert_close(rendered.flatten(1, 2), expected, rtol=0, atol=1e-6)


# Labels, indices and splits


def test_names_of_folders_give_labels_splits_and_the_order_of_signals(
    mnist: Path, tmp_path: Path
) -> None:
    dataset = import_state_dicts(mnist, tmp_path / "out", part_rows=3)

    assert [(s.name, s.start, s.stop) for s in dataset.entry.splits] == [
        ("train", 0, 4), ("test", 4, 6),
    ]  # fmt: skip
    assert seeds_of(dataset, "train") == [0, 1, 2, 3]
    assert labels_of(dataset, "train") == [7, 0, 7, 2]
    assert dataset.split("train").signal_index.tolist() == [0, 1, 2, 10]
    assert labels_of(dataset, "test") == [0, 2]
    assert dataset.split("test").signal_index.tolist() == [11, 13]  # counted on after image 10
    assert dataset.class_names == tuple("01234567")
    assert dataset.name == "siren-h6-imported"
    signals = dataset.entry.signals
    assert (signals.grid_shape, signals.mean, signals.std) == ((28, 28), (0.5,), (1.0,))
    assert signals.source == "INRs of DWSNets in folder mnist-inrs"
    assert [(part.start, part.stop) for part in dataset.entry.parts] == [(0, 3), (3, 4), (4, 6)]
    assert load_neural_dataset(tmp_path / "out").entry == dataset.entry


def test_given_sizes_cut_the_signals_in_their_order(mnist: Path, tmp_path: Path) -> None:
    sizes = [("train", 3), ("validation", 1), ("test", 2)]

    dataset = import_state_dicts(mnist, tmp_path / "out", splits=sizes)

    assert [seeds_of(dataset, split) for split, _ in sizes] == [[0, 1, 2], [3], [4, 5]]
    assert "add up to the 6 fields" in complaint(mnist, splits=sizes[:2])


def dws_splits(paths: Mapping[str, int], prefix: str = "/home/someone/data/mnist-inrs/") -> Any:
    train, val, test = list(paths)[1:4], list(paths)[:1], list(paths)[4:]
    return {
        split: {"path": [prefix + path for path in some],
                "label": [path.split("/")[0].split("_")[-2] for path in some]}
        for split, some in (("train", train), ("test", test), ("val", val))
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["/home/someone/data/mnist-inrs/", "mnist-inrs/", "", "./"])
def test_a_file_of_splits_from_another_machine_is_followed(
    mnist: Path, tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "mnist_splits.json"
    path.write_text(json.dumps(dws_splits(MNIST, prefix)))

    dataset = import_state_dicts(mnist, tmp_path / "out", splits=path)

    assert dataset.split_names == ("train", "validation", "test")
    assert [seeds_of(dataset, split) for split in dataset.split_names] == [[1, 2, 3], [0], [4, 5]]
    assert labels_of(dataset, "validation") == [7]
    assert dataset.split("validation").signal_index.tolist() == [0]


def test_files_in_no_split_are_left_out_and_counted(
    mnist: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(mnist / "statistics.pth", {"mean": torch.zeros(3)})
    listed = dws_splits(MNIST)
    del listed["test"]
    (mnist / "mnist_splits.json").write_text(json.dumps(listed))

    with caplog.at_level(logging.WARNING):
        dataset = import_state_dicts(mnist, tmp_path / "out")  # the file in the folder is found

    assert dataset.split_names == ("train", "validation")
    assert caplog.messages == [
        f"{mnist}: 3 files are in no split of mnist_splits.json and left out"
    ]


def test_labels_inside_the_files_are_taken_with_splits_without_labels(tmp_path: Path) -> None:
    folder = tmp_path / "fmnist_inrs"
    for split, count in (("train", 3), ("test", 2)):
        for image in range(count):
            label: Any = 9 - image if split == "train" else torch.tensor([image])
            saved = state(image + 3 * (split == "test"), label=label)
            save(folder / split / f"model_{image}.pth", saved)
    listed = {
        "train": ["fmnist/train/model_2.pth", "fmnist/train/model_0.pth"],
        "val": ["fmnist/train/model_1.pth"],
        "test": ["fmnist/test/model_0.pth", "fmnist/test/model_1.pth"],
    }
    (folder / "splits.json").write_text(json.dumps(listed))

    dataset = import_state_dicts(folder, tmp_path / "out")

    assert [seeds_of(dataset, s) for s in dataset.split_names] == [[0, 2], [1], [3, 4]]
    assert [labels_of(dataset, s) for s in dataset.split_names] == [[9, 7], [8], [0, 1]]
    assert len(dataset.class_names) == 10
    assert dataset.entry.signals.grid_shape == (28, 28)
    assert dataset.split("test").signal_index.tolist() == [3, 4]


def test_coefficients_of_waves_are_properties_and_samples_are_left_out(tmp_path: Path) -> None:
    line = np.linspace(-math.pi, math.pi, 7)
    for seed in range(3):
        saved = state(seed, lambda: INR((1, 6, 6, 1)), coef=[seed + 0.1, 2.0], x=line, y=line**2)
        save(tmp_path / "sines" / f"model_{seed}.pth", saved)

    dataset = import_state_dicts(tmp_path / "sines", tmp_path / "out")

    rows = dataset.split("train")
    assert dataset.entry.properties == ("coef_0", "coef_1")
    assert rows.properties["coef_0"].tolist() == [0.1, 1.1, 2.1]
    assert rows.labels is None
    assert dataset.entry.in_dim == 1


def test_other_folders_are_classes_by_their_names(tmp_path: Path) -> None:
    for seed, place in enumerate(["train/cat/a", "train/dog/a", "test/dog/b", "test/cat/b"]):
        save(tmp_path / "set" / f"{place}.pt", state(seed))

    dataset = import_state_dicts(tmp_path / "set", tmp_path / "out")

    assert dataset.class_names == ("cat", "dog")
    assert (labels_of(dataset, "train"), labels_of(dataset, "test")) == ([0, 1], [0, 1])
    assert (seeds_of(dataset, "train"), seeds_of(dataset, "test")) == ([0, 1], [3, 2])
    assert len({*dataset.split("train").signal_index.tolist(),
                *dataset.split("test").signal_index.tolist()}) == 4  # fmt: skip


@pytest.mark.parametrize("place", ["{}.pth", "all/{}.pth", "{}/checkpoints/model.pth"])
def test_a_folder_of_all_fields_or_of_each_is_no_class(tmp_path: Path, place: str) -> None:
    for seed in range(12):
        save(tmp_path / "set" / place.format(seed), state(seed))

    dataset = import_state_dicts(tmp_path / "set", tmp_path / "out")

    assert dataset.class_names == ()
    assert dataset.split("train").labels is None
    assert seeds_of(dataset, "train") == list(range(12))  # 10 comes after 9


# Status, repeating, continuing


def test_fields_with_nan_are_diverged_and_counted(
    mnist: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = mnist / mnist_name("training", 0, 1)
    saved = torch.load(bad, weights_only=True)
    saved["seq.1.weight"][2, 3] = math.nan
    torch.save(saved, bad)

    with caplog.at_level(logging.WARNING):
        dataset = import_state_dicts(mnist, tmp_path / "out")

    assert dataset.split("train").status == ("ok", "diverged", "ok", "ok")
    assert dataset.entry.summary["train"].status == {"diverged": 1, "ok": 3}
    assert caplog.messages == [
        f"1 of 6 fields have NaN or infinite weights and get status 'diverged', for example {bad}"
    ]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_stopped_import_continues_and_another_one_changes_nothing(
    mnist: Path, tmp_path: Path
) -> None:
    whole = import_state_dicts(mnist, tmp_path / "whole", part_rows=1)
    reports: list[tuple[str, int, int]] = []

    def stop(what: str, done: int, total: int) -> None:
        reports.append((what, done, total))
        if (what, done) == ("write", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_state_dicts(mnist, tmp_path / "out", part_rows=1, on_progress=stop)
    left = sorted((tmp_path / "out").rglob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in left]
    import_state_dicts(mnist, tmp_path / "out", part_rows=1)

    assert reports == [*(("check", n, 6) for n in range(1, 7)), ("write", 1, 6), ("write", 2, 6)]
    assert len(left) == 2
    assert [path.stat().st_mtime_ns for path in left] == times
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    again = import_state_dicts(mnist, tmp_path / "out", part_rows=2)
    assert again.entry == whole.entry


def test_another_frequency_under_the_same_name_is_refused(mnist: Path, tmp_path: Path) -> None:
    import_state_dicts(mnist, tmp_path / "out")

    with pytest.raises(ConfigError, match=r"\(it differs in field\.omega_0\)"):
        import_state_dicts(mnist, tmp_path / "out", omega_0=20.0)
    for omega_0 in (0.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="expected omega_0 > 0"):
            import_state_dicts(mnist, tmp_path / "out", omega_0=omega_0)


def test_files_of_older_versions_of_torch_are_read(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    torch.save(state(1), tmp_path / "set" / "1.pth", _use_new_zipfile_serialization=False)

    assert seeds_of(import_state_dicts(tmp_path / "set", tmp_path / "out"), "train") == [1]


# Files that are something else


def without(saved: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in saved.items() if name != key}


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ([state(0)], " holds a list; expected the state dict of one field: save each field with"),
        (torch.zeros(3), " holds a Tensor; expected the state dict"),
        ({}, " has no weights; expected keys such as 'seq.0.weight' (got nothing)"),
        ({"epoch": 3}, " has no weights; expected keys such as 'seq.0.weight' (got 'epoch')"),
        ({"state_dict": state(0)}, " has 'state_dict', a dict; expected weights and biases"),
        (state(0, frequencies=torch.ones(3)), " has 'frequencies', a Tensor; expected weights"),
        (state(0, coef=[1.0, math.nan]), " has 'coef', a list; expected weights and biases"),
        (state(0, label=1.5), ": expected 'label' to be a whole number (got 1.5)"),
        (state(0, label=math.nan), ": expected 'label' to be a whole number (got nan)"),
        (state(0, label="cat"), ": expected 'label' to be a whole number (got 'cat')"),
        (
            without(state(0), "seq.1.bias"),
            ": expected a weight and a bias of one length in 'seq.1'",
        ),
        (without(state(0), "seq.1.weight"), ": expected a weight and a bias of one length in"),
        (
            {key.replace("seq.0", "seq.1_"): value for key, value in state(0).items()},
            ": the first linear map is 'seq.1_', so something without weights stands before it",
        ),
        (
            {key: value.half() for key, value in state(0).items()},
            ": expected 'seq.0.weight' to be a float32 tensor of 2 dimension(s) "
            "(got shape [6, 2], float16)",
        ),
        (state(0, lambda: INR((2, 5, 4, 1))), ": expected at least two linear maps"),
        ({"0.weight": torch.ones(1, 2), "0.bias": torch.ones(1)}, ": expected at least two linear"),
        (
            {**state(0), "seq.1.weight": torch.zeros(6, 5)},
            "(got weights of shapes [6, 2], [6, 5], [1, 6])",
        ),
        (nn.Linear(2, 1), " holds Python objects; it is not opened because unpickling runs code"),
    ],
)
def test_a_file_that_is_no_state_dict_of_a_siren_is_refused(
    tmp_path: Path, saved: Any, reason: str
) -> None:
    path = save(tmp_path / "set" / "0.pth", saved)

    message = complaint(tmp_path / "set")

    assert message.startswith(str(path))
    assert reason in message


@pytest.mark.parametrize("name", ["all.pth", "all.pkl", "all.pickle"])
def test_a_pickled_list_of_fields_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / name
    path.write_bytes(pickle.dumps([{"seq.0.weight": [1.0]}]))

    assert complaint(tmp_path / "set") == (
        f"{path} is a pickle; it is not opened because unpickling runs code: save each field with "
        f"torch.save(field.state_dict(), …) in a file of its own"
    )


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    save(tmp_path / "set" / "0.pth", {**state(0), "trap": Trap()})

    assert "holds Python objects" in complaint(tmp_path / "set")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("damage", [b"", b"hello", b"PK\x03\x04"])
def test_a_damaged_file_is_named(mnist: Path, damage: bytes) -> None:
    (mnist / mnist_name("testing", 2, 2)).write_bytes(damage)

    message = complaint(mnist)

    assert message.startswith(str(mnist / mnist_name("testing", 2, 2)))
    assert "is not a readable file of torch.save" in message


def outcome_of_reading(path: Path) -> str:
    try:
        list(read_fields([path]))
    except DatasetFormatError as error:
        return str(error)
    return "read"


def test_files_with_flipped_bits_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(state(0), stream)
    whole, draw = stream.getvalue(), np.random.default_rng(0)
    path = tmp_path / "0.pth"
    outcomes = []
    for place in draw.integers(0, len(whole), 200):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(bytes(changed))
        outcomes.append(outcome_of_reading(path))

    refused = [outcome for outcome in outcomes if outcome != "read"]
    assert 0 < len(refused) < 200
    assert all(text.startswith(str(path)) and "\n" not in text for text in refused)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (state(9, lambda: INR((2, 6, 6, 6, 1))), "holds a 2-6-6-6-1 field; "),
        (state(9, lambda: INR((2, 6, 6, 3))), "holds a 2-6-6-3 field; "),
        (state(9, label=3), "holds a 2-6-6-1 field with a label; "),
        (state(9, coef=[1.0]), "holds a 2-6-6-1 field with coef_0; "),
    ],
)
def test_an_odd_file_among_others_is_named(mnist: Path, odd: Any, reason: str) -> None:
    path = save(mnist / mnist_name("training", 7, 2), odd)

    assert complaint(mnist) == (
        f"{path} {reason}{mnist / mnist_name('training', 7, 0)} holds a 2-6-6-1 field: import "
        f"fields of different kinds from different folders"
    )


def test_a_file_that_is_named_unlike_its_neighbours_is_refused(mnist: Path) -> None:
    save(mnist / "statistics.pth", {"mean": torch.zeros(3)})

    assert complaint(mnist).startswith(
        f"{mnist}/statistics.pth is not named like the INRs of DWSNets beside it; move it away"
    )


def test_fields_of_which_some_have_no_class_are_refused(tmp_path: Path) -> None:
    for place in ("a/0", "a/1", "b/2", "3"):
        save(tmp_path / "set" / f"{place}.pth", state(0))

    assert complaint(tmp_path / "set") == (
        f"{tmp_path / 'set'}/3.pth lies in no folder that names a class, other fields do; sort it "
        f"in, or move it away"
    )


def test_a_label_in_a_file_that_is_listed_with_another_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    save(folder / "train" / "model_0.pth", state(0, label=4))
    listed = {"train": {"path": ["train/model_0.pth"], "label": [5]}}
    (folder / "splits.json").write_text(json.dumps(listed))

    assert complaint(folder) == (
        f"{folder / 'train/model_0.pth'} has label 4, but is listed with 5"
    )


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([], "expected a JSON object with the paths of every split"),
        ({}, "expected a JSON object with the paths of every split"),
        ({"trian": []}, "expected each split once, out of train, val and test (got 'trian')"),
        ({"val": [], "valid": []}, "expected each split once, out of train, val and test"),
        ({"train": 3}, "train: expected a list of paths, or 'path' with such a list"),
        ({"train": {"paths": []}}, "train: expected a list of paths, or 'path' with such a list"),
        ({"train": {"path": ["a"], "label": []}}, "train: expected 1 labels, numbers or words"),
        ({"train": {"path": ["a"], "label": [1.5]}}, "train: expected 1 labels, numbers or words"),
        ({"train": ["0.pth", "9.pth"]}, "lists 1 file(s) that are not below"),
        ({"train": ["0.pth"], "test": ["x/0.pth"]}, "lists 0.pth twice"),
        (
            {"train": {"path": ["0.pth"], "label": [1]}, "test": ["1.pth"]},
            "expected a label for each path of all splits, or none",
        ),
        ({"train": ["0.pth"], "test": []}, "expected splits of at least one field"),
    ],
)
def test_a_file_of_splits_that_does_not_fit_is_refused(
    tmp_path: Path, listed: Any, reason: str
) -> None:
    for seed in range(2):
        save(tmp_path / "set" / f"{seed}.pth", state(seed))
    (tmp_path / "s.json").write_text(json.dumps(listed))

    assert reason in complaint(tmp_path / "set", splits=tmp_path / "s.json")


def test_splits_that_cannot_be_read_or_chosen_are_refused(mnist: Path, tmp_path: Path) -> None:
    assert "s.json is not readable JSON" in complaint(mnist, splits=tmp_path / "s.json")
    for name in ("a_splits.json", "splits_b.json"):
        (mnist / name).write_text("{}")
    assert complaint(mnist) == (
        f"{mnist} has several files of splits (a_splits.json, splits_b.json); "
        f"choose one with --splits"
    )


def test_folders_without_such_files_are_told_apart(tmp_path: Path, mnist: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert is_of_state_dicts(mnist)
    assert not is_of_state_dicts(tmp_path / "empty")
    assert not is_of_state_dicts(tmp_path / "nowhere")
    assert complaint(tmp_path / "empty") == f"{tmp_path / 'empty'} has no .pth or .pt files"
    assert complaint(tmp_path / "nowhere") == f"no such folder: {tmp_path / 'nowhere'}"
