from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from nefbench.errors import SignalError
from nefbench.signals.shapes.folders import ShapeFiles, check_shares, list_shape_files


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> ShapeFiles:
    return list_shape_files(
        folder,
        [".off", ".obj"],
        validation_share=validation,
        test_share=test,
        split_seed=seed,
        ignored_names=["skip.off"],
    )


def names(files: ShapeFiles, folder: Path) -> list[str]:
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


def test_split_folders_are_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, ["test/lamp/a.off", "train/lamp/b.off", "train/chair/c.off"])
    files = listed(tmp_path)

    assert names(files, tmp_path) == ["train/chair/c.off", "train/lamp/b.off", "test/lamp/a.off"]
    assert [(s.name, len(s)) for s in files.splits] == [("train", 2), ("test", 1)]
    assert files.labels is not None
    assert files.labels.tolist() == [0, 1, 1]
    # Sorted: test/…, train/chair, train/lamp.
    assert files.indices.tolist() == [1, 2, 0]


def test_shares_of_zero_make_no_split(tmp_path: Path) -> None:
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
        (["a.off", "b.off"], "2 shape.s. leave none to train on"),
        (["lamp/a.off", "b.off", "c.off"], "beside them, b.off; move it into a class folder"),
        (["train/a.off", "lamp/b.off"], "folders train and lamp/b.off"),
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


def test_shares_must_leave_something_to_train_on() -> None:
    check_shares(0.0, 0.5)
    with pytest.raises(ValueError, match="sum below 1"):
        check_shares(0.5, 0.5)
    with pytest.raises(ValueError, match=">= 0"):
        check_shares(-0.1, 0.5)
