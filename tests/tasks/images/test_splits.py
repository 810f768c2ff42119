"""Where pictures come from, and which splits are made of them: nothing is shared, and nothing is made in silence."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.pictures import CLASSES, SIZES, made_up, settings, write_pictures
from toolkit.tasks.images.collected import FilesError
from toolkit.tasks.images.divided import Divided, divide, stratified
from toolkit.tasks.images.look import collect


def folder(root: Path) -> dict[str, str]:
    write_pictures(root / "pictures")
    return {"folder": "pictures"}


def listed(root: Path, label: Callable[[int], str], header: str = "path,label,split") -> dict[str, str]:
    write_pictures(root / "pictures")
    paths = sorted((root / "pictures").rglob("*.png"))
    with open(root / "list.csv", "w", newline="") as file:
        file.write(f"{header}\n")
        for path in paths:
            split, name = path.relative_to(root / "pictures").parts[:2]
            csv.writer(file).writerow([path.relative_to(root), label(CLASSES.index(name)), split])
    return {"csv": "list.csv"}


def npz(root: Path, x: str, y: str, names: tuple[str, str, str]) -> dict[str, str]:
    arrays = {}
    for seed, (name, count) in enumerate(zip(names, SIZES.values(), strict=True)):
        pixels, labels = made_up(count * len(CLASSES), seed)
        arrays |= {x.format(name): pixels, y.format(name): labels[:, None] if "images" in x else labels}
    np.savez(root / "p.npz", **arrays)
    return {"npz": "p.npz"}


def mnist(root: Path) -> dict[str, str]:
    """Writes the files of MNIST, which torchvision reads without a look at their MD5."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": 36, "t10k": 12}.items()):
        pixels, labels = made_up(count, seed, 28)
        for kind, values in (("images-idx3", pixels[:, :, :28, 0]), ("labels-idx1", labels)):
            sizes = np.array(values.shape, ">i4").tobytes()
            head = bytes([0, 0, 8, values.ndim]) + sizes
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())
    return {"torchvision": "MNIST", "root": "."}


SOURCES: dict[str, Callable[[Path], dict[str, str]]] = {
    "folder": folder,
    "csv with names": lambda root: listed(root, lambda label: CLASSES[label]),
    "csv with numbers": lambda root: listed(root, str),
    "csv, other columns": lambda root: listed(root, lambda label: CLASSES[label], "path,label,split"),
    "npz": lambda root: npz(root, "x_{}", "y_{}", ("train", "val", "test")),
    "npz of MedMNIST": lambda root: npz(root, "{}_images", "{}_labels", ("train", "val", "test")),
    "npz, other name": lambda root: npz(root, "x_{}", "y_{}", ("train", "validation", "test")),
}


def divided(place: Path, **data: object) -> Divided:
    chosen = settings(data=data).data
    assert not list(chosen.faults())
    return divide(collect(chosen, place), chosen)


def names_of(found: Divided) -> dict[str, set[str]]:
    every = {"train": found.train, **found.fixed}
    return {split: {path.as_posix() for path in pictures.paths} for split, pictures in every.items()}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_pictures(source: str, tmp_path: Path) -> None:
    found = divided(tmp_path, **SOURCES[source](tmp_path))
    assert found.classes == (
        CLASSES if source == "folder" or "names" in source or "other columns" in source else tuple("012")
    )
    assert {split: len(pictures) for split, pictures in found.fixed.items()} == {
        **dict.fromkeys(("score", "calibration", "holdout"), 12),
        **dict.fromkeys(("validation", "test"), 12),
    }
    for pictures in (found.train, *found.fixed.values()):
        for place in range(len(pictures)):
            brightest = np.asarray(pictures.open(place, "RGB")).mean((0, 1)).argmax()
            assert brightest == pictures.labels[place]


def test_a_data_set_of_torchvision(tmp_path: Path) -> None:
    found = divided(tmp_path, **mnist(tmp_path), validation_share=0.25)
    assert len(found.classes) == 10 and found.classes[0] == "0 - zero"
    assert [len(found.fixed[split]) for split in ("validation", "test")] == [9, 12] and len(found.train) == 27
    assert found.train.open(0, "L").size == (28, 28)


def test_no_split_shares_a_picture(tmp_path: Path) -> None:
    names = names_of(divided(tmp_path, **folder(tmp_path)))
    assert names["score"] | names["calibration"] | names["holdout"] <= names["train"]
    for one, other in combinations(("train", "validation", "test"), 2):
        assert not names[one] & names[other]
    for one, other in combinations(("score", "calibration", "holdout"), 2):
        assert not names[one] & names[other]


@pytest.mark.parametrize("counts", [[60, 30, 6], [500, 1, 1], [7]])
def test_every_beginning_of_a_draw_holds_the_classes_by_their_share(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified(labels, 3)
    assert sorted(order) == list(range(len(labels)))
    assert list(stratified(labels, 3)) == list(order) and (
        len(counts) == 1 or list(stratified(labels, 4)) != list(order)
    )
    for end in range(1, len(labels) + 1):
        found = np.bincount(labels[order[:end]], minlength=len(counts))
        assert np.abs(found - end * np.array(counts) / len(labels)).max() <= 2


def test_validation_is_set_aside_from_training(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", {"train": 20, "test": 4})
    found = divided(tmp_path, folder="p", validation_share=0.2)
    names = names_of(found)
    assert np.bincount(found.fixed["validation"].labels).tolist() == [4, 4, 4] and len(found.train) == 48
    assert not names["validation"] & (names["train"] | names["score"] | names["calibration"] | names["holdout"])
    assert "set aside by a draw; a model that was trained on them looks better" in found.notes[1]
    assert names_of(divided(tmp_path, folder="p", validation_share=0.2)) == names
    assert names_of(divided(tmp_path, folder="p", validation_share=0.2, seed=1))["validation"] != names["validation"]


def test_the_test_is_set_aside_from_validation_when_asked(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", {"train": 12, "val": 8})
    with pytest.raises(FilesError, match=r"no test pictures, .*; add them, or set test_share: 0\.5"):
        divided(tmp_path, folder="p")
    found = divided(tmp_path, folder="p", test_share=0.25)
    assert np.bincount(found.fixed["test"].labels).tolist() == [2, 2, 2] and len(found.fixed["validation"]) == 18
    assert "test: 0.25 of the validation pictures" in found.notes[1]


def test_training_pictures_alone_cannot_be_judged(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", {"train": 12})
    with pytest.raises(FilesError, match="a model that has seen its training pictures cannot be judged by them"):
        divided(tmp_path, folder="p", test_share=0.5)


def test_a_share_without_use(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="there are test pictures, so that this share has no use"):
        divided(tmp_path, **folder(tmp_path), test_share=0.5)


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_files_between_splits(copies: int, tmp_path: Path) -> None:
    data = folder(tmp_path)
    for number in range(copies):
        source = sorted((tmp_path / "pictures" / "train" / "bee").iterdir())[number]
        (tmp_path / "pictures" / "test" / "bee" / f"copy{number}.png").write_bytes(source.read_bytes())
    if copies > 2:
        with pytest.raises(FilesError, match="train and test share 3 pictures"):
            divided(tmp_path, **data)
    else:
        assert "train and test share 2 pictures" in divided(tmp_path, **data).notes[1]


def test_copies_of_rows_between_splits(tmp_path: Path) -> None:
    pixels, labels = made_up(30, 0)
    np.savez(tmp_path / "p.npz", x_train=pixels, y_train=labels, x_test=pixels[:9], y_test=labels[:9])
    with pytest.raises(FilesError, match=r"train and test share \d of the 9 examples of test"):
        divided(tmp_path, npz="p.npz")


def test_classes_may_be_named_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    data = folder(tmp_path)
    found = divided(tmp_path, **data, classes=["ant", *reversed(CLASSES)])
    assert found.classes == ("ant", "dog", "cat", "bee") and set(found.train.labels) == {1, 2, 3}
