from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from nefbench.errors import SignalError
from nefbench.signals.class_folders import ClassFiles, list_class_files


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> ClassFiles:
    return list_class_files(
        folder,
        [".off", ".obj"],
        validation_size=validation,
        test_size=test,
        split_seed=seed,
        stream="test",
        ignored_names=["skip.off"],
    )


def names(files: ClassFiles, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files.paths]


def test_the_first_folder_is_the_class(tmp_path: Path) -> None:
    touch(tmp_path, [f"{c}/deep/{i}.off" for c in ("lamp", "chair") for i in range(5)])
    files = listed(tmp_path)

    assert files.class_names == ("chair", "lamp")
    assert files.labels is not None
    for path, label in zip(files.paths, files.labels.tolist(), strict=True):
        assert path.relative_to(tmp_path).parts[0] == files.class_names[label]
    assert [(s.name, len(s)) for s in files.splits] == [
        ("train", 6),
        ("validation", 2),
        ("test", 2),
    ]


def test_indices_are_positions_among_the_sorted_names(tmp_path: Path) -> None:
    touch(tmp_path, [f"{i}.obj" for i in (3, 1, 2, 0)] + ["4.OFF"])
    files = listed(tmp_path)

    assert files.labels is None
    assert files.class_names == ()
    in_order = sorted(names(files, tmp_path))
    assert [in_order[i] for i in files.indices.tolist()] == names(files, tmp_path)


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    touch(tmp_path, [f"{i:02}.off" for i in range(20)])

    assert names(listed(tmp_path), tmp_path) == names(listed(tmp_path), tmp_path)
    assert names(listed(tmp_path), tmp_path) != names(listed(tmp_path, seed=1), tmp_path)
    assert names(listed(tmp_path), tmp_path) != sorted(names(listed(tmp_path), tmp_path))


def sizes(files: ClassFiles) -> list[tuple[str, int]]:
    return [(split.name, len(split)) for split in files.splits]


def test_split_folders_are_the_splits(tmp_path: Path) -> None:
    touch(
        tmp_path,
        ["test/lamp/a.off", "train/lamp/b.off", "train/chair/deep/c.off", "validation/lamp/d.off"],
    )
    files = listed(tmp_path)

    found = names(files, tmp_path)
    assert sorted(found[:2]) == ["train/chair/deep/c.off", "train/lamp/b.off"]
    assert found[2:] == ["validation/lamp/d.off", "test/lamp/a.off"]
    assert sizes(files) == [("train", 2), ("validation", 1), ("test", 1)]
    assert [sorted(found)[i] for i in files.indices.tolist()] == found
    assert files.class_names == ("chair", "lamp")
    assert files.labels is not None
    assert [files.class_names[i] for i in files.labels] == [name.split("/")[1] for name in found]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], [("train", 8), ("validation", 2), ("test", 3)]),
        (["test"], [("train", 11), ("validation", 2), ("test", 13)]),
        (["validation"], [("train", 10), ("validation", 13), ("test", 3)]),
    ],
)
def test_splits_without_a_folder_are_drawn_from_the_training_files(
    tmp_path: Path, given: list[str], expected: list[tuple[str, int]]
) -> None:
    parts = ["train", *given]
    touch(tmp_path, [f"{part}/{i:02}.off" for part in parts for i in range(13)])
    files = listed(tmp_path, validation=2)

    assert sizes(files) == expected
    assert sorted(files.indices.tolist()) == list(range(13 * len(parts)))
    for split in files.splits:
        found = names(files, tmp_path)[split.start : split.stop]
        home = split.name if split.name in given else "train"
        assert {name.split("/")[0] for name in found} == {home}


def test_paths_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "x", [f"{i}.off" for i in range(5)])
    monkeypatch.chdir(tmp_path)
    paths = listed(Path("x")).paths
    monkeypatch.chdir("/")

    assert all(path.is_file() for path in paths)


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", [f"{i}.off" for i in range(5)])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "lamp").symlink_to(tmp_path / "elsewhere")

    assert len(listed(tmp_path / "x").paths) == 5
    assert listed(tmp_path / "x").class_names == ("lamp",)


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, ["a/0.off", "b/0.off"])
    scan = os.scandir

    def closed(place: str) -> Any:
        if Path(place).name == "b":
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(SignalError, match=r"^cannot read .*/b: Permission denied"):
        listed(tmp_path)


def test_sizes_of_zero_make_no_split(tmp_path: Path) -> None:
    touch(tmp_path, ["a.off"])

    assert [s.name for s in listed(tmp_path, 0, 0).splits] == ["train"]


def test_hidden_files_notes_and_named_files_are_passed_over(tmp_path: Path) -> None:
    touch(
        tmp_path, ["a.off", "b.off", "c.off", ".d.off", ".git/e.off", "skip.off", "a.mtl", "README"]
    )

    assert sorted(names(listed(tmp_path), tmp_path)) == ["a.off", "b.off", "c.off"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "holds no .off or .obj files"),
        (["a.txt"], "holds no .off or .obj files"),
        (["a.off", "b.zip"], "b.zip is an archive; unpack it"),
        (["a.off", "b.glb"], "b.glb: expected .off or .obj files; convert it"),
        (["a.off", "b.mp3"], "b.mp3: expected .off or .obj files; convert it"),
        (["a.off", "b.off"], "2 signals leave none to train on beside 1 for validation and 1 for"),
        (["lamp/a.off", "b.off", "c.off"], "beside them, b.off; move it into a class folder"),
        (["train/a.off", "lamp/b.off"], "folders train and lamp/b.off; put every file below"),
        (["train/a.off", "b.off"], "folders train and b.off; put every file below"),
        (["train/a.off", "test/.b.off"], "test holds no .off or .obj files; add some, or remove"),
        (["test/a.off"], "folders test and no train folder"),
        (["train/lamp/a.off", "train/b.off"], "beside them, train/b.off"),
    ],
)
def test_folders_that_cannot_be_understood_are_refused(
    tmp_path: Path, files: list[str], expected: str
) -> None:
    touch(tmp_path, files)

    with pytest.raises(SignalError, match=expected) as caught:
        listed(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_an_archive_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, ["shapes.zip"])

    with pytest.raises(SignalError, match=r"gone; check signals\.path"):
        listed(tmp_path / "gone")
    with pytest.raises(SignalError, match=r"shapes\.zip; unpack it and give the folder"):
        listed(tmp_path / "shapes.zip")
