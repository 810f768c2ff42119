"""Whatever is wrong with pictures and weights is one sentence of `apply --check`, with the line, before any work."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.pictures import ARGUMENTS, RECIPE, made_up, weights, write_all, write_yaml
from tests.helpers.slow import cases
from toolkit.apply import main
from toolkit.zoo.build import build_zoo_model

Change = Callable[[Path, dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_all(folder)
    return folder


def data(**keys: Any) -> Change:
    return lambda _, recipe: recipe["task"].update(data=keys)


def task(**keys: Any) -> Change:
    return lambda _, recipe: recipe["task"].update(keys)


def model(**keys: Any) -> Change:
    return lambda _, recipe: recipe["task"]["model"].update(keys)


def saved(content: Any) -> Change:
    return lambda folder, _: torch.save(content() if callable(content) else content, folder / "weights.pth")


def listed(*rows: str, header: str = "path,label,split") -> Change:
    def change(folder: Path, recipe: dict[str, Any]) -> None:
        (folder / "list.csv").write_text("\n".join([header, *rows]))
        recipe["task"]["data"] = {"csv": "list.csv"}

    return change


def arrays(**changed: Any) -> Change:
    def change(folder: Path, recipe: dict[str, Any]) -> None:
        pixels, labels = made_up(30, 0)
        other, other_labels = made_up(9, 1)
        content = {"x_train": pixels, "y_train": labels, "x_test": other, "y_test": other_labels}
        content |= {name: value(pixels, labels) for name, value in changed.items()}
        np.savez(folder / "p.npz", **{name: value for name, value in content.items() if value is not None})
        recipe["task"]["data"] = {"npz": "p.npz"}

    return change


def moved(old: str, new: str) -> Change:
    return lambda folder, _: shutil.move(folder / "pictures" / old, folder / "pictures" / new)


def written(path: str, content: bytes) -> Change:
    def change(folder: Path, _: dict[str, Any]) -> None:
        (folder / "pictures" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / path).write_bytes(content)

    return change


def deep(folder: Path, _: dict[str, Any]) -> None:
    Image.fromarray(np.full((20, 20), 999, np.uint16)).save(folder / "pictures/train/bee/000.png")


def cut_off(folder: Path, _: dict[str, Any]) -> None:
    path = folder / "pictures/test/cat/001.png"
    path.write_bytes(path.read_bytes()[:-300])


def without_splits(folder: Path, _: dict[str, Any]) -> None:
    shutil.move(folder / "pictures", folder / "old")
    shutil.move(folder / "old" / "train", folder / "pictures")


def loose(folder: Path, _: dict[str, Any]) -> None:
    for number, path in enumerate(sorted((folder / "pictures" / "test").rglob("*.png"))):
        path.rename(folder / "pictures" / "test" / f"{number}.png")
    for path in (folder / "pictures" / "test").iterdir():
        if path.is_dir():
            path.rmdir()


def other_model(**arguments: Any) -> Callable[[], dict[str, Any]]:
    return lambda: build_zoo_model("timm/test_vit", {**ARGUMENTS, **arguments}).state_dict()


FIXED_SIZE = {"model": {**RECIPE["task"]["model"], "arguments": {**ARGUMENTS, "dynamic_img_size": False}}}

ROW = "pictures/train/bee/000.png"

FAULTS: dict[str, tuple[Change, str]] = {
    # missing or unreadable files
    "no folder": (data(folder="photos"), "task.data.folder: .*photos: there is no such folder"),
    "a file for a folder": (data(folder="weights.pth"), "weights.pth: is a file"),
    "no weights": (model(weights="best.pth"), "task.model.weights: .*best.pth: cannot be read: No such file"),
    "no list": (data(csv="l.csv"), "l.csv: cannot be read: No such file"),
    "no npz": (data(npz="p.npz"), "p.npz: cannot be read as an npz file"),
    "no torchvision": (data(torchvision="CIFAR10", root="."), "CIFAR10 cannot be read from there: .*download it there"),
    "no root": (data(torchvision="CIFAR10"), "task.data.root: missing; name the folder"),
    "an empty picture": (written("train/cat/x.png", b""), "x.png: there is no such file, or it is empty"),
    "not a picture": (written("train/cat/x.png", b"text"), "x.png: cannot be read as a picture"),
    "cut off": (cut_off, "001.png: cannot be read as a picture"),
    "more than 8 bits": (deep, r"000.png: has more than 8 bits for each channel \(mode I;16\)"),
    "a file in the list": (listed(f"{ROW},bee,train", "far.png,bee,test"), "far.png: there is no such file"),
    "damaged weights": (lambda f, _: (f / "weights.pth").write_bytes(b"PK"), "weights.pth: not a file of torch.save"),
    # misspelt names
    "a model": (
        model(name="timm/test_vitt"),
        r"task.model.name: .*timm/test_vitt is not known; similar names are: .*test_vit",
    ),
    "a library": (model(name="tim/test_vit"), "task.model.name: .*choose one of: torchvision/NAME, timm/NAME"),
    "another library": (model(name="transformers/vit"), "takes timm/NAME or torchvision/NAME"),
    "an argument": (model(arguments={"num_clases": 3}), "task.model.arguments.num_clases: is not an allowed argument"),
    "a split": (
        moved("train", "trian"),
        r"pictures: has no folder train; it holds: test, trian and 1 more|did you mean 'train'",
    ),
    "another split": (moved("val", "vall"), "vall: is the folder of no split; did you mean 'val'"),
    "a class": (
        moved("val/cat", "val/cats"),
        "cats of validation is no class of the 3 known ones .*; did you mean 'cat'",
    ),
    "a metric": (task(metric="acuracy"), "task.metric: .*did you mean 'accuracy'"),
    "a key": (data(fodler="pictures"), "task.data.fodler: unknown key; did you mean 'folder'"),
    "a data set": (data(torchvision="CIFAR", root="."), "task.data.torchvision: .*did you mean 'CIFAR10'"),
    "a split in the list": (listed(f"{ROW},bee,trian"), "line 2 has the split 'trian'; did you mean 'train'"),
    "a column": (listed("a,b", header="path,class"), "has no column label and split; its columns are: path, class"),
    "a separator": (
        listed("a;b;c", header="path;label;split"),
        "its columns are: path;label;split; separate columns by",
    ),
    "a policy": (task(augment={"auto_augment": "rnd-m9"}), "augment: timm cannot make this augmentation"),
    # wrong numbers of classes
    "of the model": (
        model(arguments={**ARGUMENTS, "num_classes": 5}),
        r"tells 5 classes apart, and the data have 3 \(bee, cat, dog\)",
    ),
    "not said": (model(arguments={"img_size": 32}), r"tells 1000 classes apart, .*: set arguments: \{num_classes: 3\}"),
    "of the weights": (
        saved(other_model(num_classes=7)),
        r"the weights are of a model of 7 classes, and this model tells 3 apart",
    ),
    "of the data": (written("train/ant/1.png", b""), "there is no such file, or it is empty"),
    "no classifier": (model(arguments={**ARGUMENTS, "num_classes": 0}), "num_classes: 0 leaves the classifier out"),
    "too few for top-5": (task(metric="top-5 accuracy"), "task.metric: top-5 accuracy is always 1 with 3 classes"),
    "labels from 1": (
        arrays(y_train=lambda x, y: y + 1, y_test=lambda x, y: y[:9] + 1),
        "labels go from 1 to 3; they must begin at 0",
    ),
    "a class of no picture": (
        arrays(y_train=lambda x, y: y * 2),
        "no picture has the label 3|no picture has the label",
    ),
    # weights of another model, wrappers that hide them
    "another width": (saved(other_model(embed_dim=32)), "weights.pth: these are not weights of this model: "),
    "another depth": (saved(other_model(depth=2)), "blocks.2.norm1.weight is missing"),
    "an average too": (saved({"model": weights(), "ema": weights()}), "under model and ema; say with weights_key"),
    "another key": (model(weights_key="ema"), "no weights under the key 'ema'; the keys of weights in it are: model"),
    "an optimizer": (
        saved({"state": {}, "param_groups": []}),
        "not a state dict of this model; save model.state_dict()",
    ),
    "a whole model": (
        saved(lambda: build_zoo_model("timm/test_vit", ARGUMENTS)),
        "holds timm.*, and code in a file is never run",
    ),
    # more blocks than there are
    "blocks": (
        lambda _, recipe: recipe["stages"][0].update(num_blocks=3),
        "stages.0: num_blocks is 3, but the model has 3 blocks",
    ),
    "two stages": (
        lambda _, recipe: recipe.update(stages=[dict(recipe["stages"][0]) | {"num_blocks": 2} for _ in range(2)]),
        "stages.1: num_blocks is 2, but the model has 3 blocks .*2 are dropped before",
    ),
    # data of another form
    "no splits": (without_splits, "has no folder train; it holds: bee, cat, dog; these look like classes"),
    "no labels": (loose, "its pictures lie in no folder of a class, so that they have no labels"),
    "two folders of one split": (
        lambda f, _: shutil.copytree(f / "pictures/val", f / "pictures/valid"),
        "val and valid are folders of the same split",
    ),
    "no data": (data(seed=1), "task.data: give one of folder, csv, npz, torchvision; there is none of them"),
    "two kinds of data": (data(folder="pictures", npz="p.npz"), "there is folder and npz"),
    "no test": (lambda f, _: shutil.rmtree(f / "pictures/test"), r"no test pictures, .*test_share: 0\.5"),
    "no training": (
        arrays(x_train=lambda x, y: None, y_train=lambda x, y: None),
        "has no x_train and y_train; its arrays are",
    ),
    "too many drawn": (data(folder="pictures", fixed_examples=20), "fixed_examples: .*give at most 12"),
    "wrong order of axes": (arrays(x_train=lambda x, y: x.transpose(0, 3, 1, 2)), r"save x.transpose\(0, 2, 3, 1\)"),
    "flat": (arrays(x_train=lambda x, y: x.reshape(30, -1)), r"x_train has the shape \[30, 1440\]; pictures are uint8"),
    "one-hot": (
        arrays(y_train=lambda x, y: np.eye(3, dtype=int)[y]),
        r"one label for each of the 30 pictures: save y.argmax\(1\)",
    ),
    "one label short": (arrays(y_train=lambda x, y: y[1:]), r"y_train has the shape \[29\]"),
    "gaps in the list": (
        listed(f"{ROW},0,train", "pictures/train/bee/003.png,2,train", "pictures/test/bee/000.png,0,test"),
        "labels go from 0 to 2 without 1",
    ),
    # units
    "scaled to 1": (arrays(x_train=lambda x, y: x / 255), r"x_train is float64; .*save \(x \* 255\)"),
    "mean of 255": (
        task(mean=[123.7, 116.3, 103.5]),
        "task.mean: 123.7 is of a picture with values from 0 to 255; .*divide by 255",
    ),
    "deviation of 255": (task(std=[58.4]), "task.std: 58.4 is of a picture"),
    "no deviation": (task(std=[0.2, 0.2, 0.0]), "task.std: 0 cannot be divided by"),
    "two means": (task(mean=[0.5, 0.5]), "task.mean: has 2 numbers; give one, or one for each of the 3 channels"),
    "percent of a crop": (task(crop=87.5), "task.crop: 87.5 is out of range: must be at most 1"),
    "percent of a share": (
        data(folder="pictures", validation_share=10),
        "validation_share: 10 is out of range: must be below 1",
    ),
    "a size as text": (task(size="32"), "task.size: .*without quotes"),
    "another size": (task(size=48, **FIXED_SIZE), "does not run on 2 examples .*48"),
    # random data
    "random validation": (
        lambda _, recipe: recipe["task"]["data"].update(augment=True),
        "task.data.augment: unknown key",
    ),
    "scale in the wrong order": (task(augment={"scale": [1.0, 0.5]}), "task.augment.scale: .*begin with the smaller"),
}


# two of each kind of mistake
IN_SUITE = (
    *("no folder", "no weights", "not a picture", "more than 8 bits", "cut off"),
    *("a model", "a split", "a class", "a column", "of the model", "of the weights", "labels from 1"),
    *("another width", "an average too", "blocks", "no splits", "no test", "wrong order of axes", "one-hot"),
    *("scaled to 1", "mean of 255", "percent of a crop", "random validation"),
)


@pytest.mark.parametrize("case", cases(FAULTS, IN_SUITE))
def test_a_fault_is_one_sentence(
    case: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = FAULTS[case]
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    recipe = copy.deepcopy(RECIPE)
    change(tmp_path, recipe)
    monkeypatch.chdir(tmp_path)
    file = write_yaml(Path("recipe.yaml"), recipe)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(file), "--check"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(words, error), error
    assert "Traceback" not in error and sorted(tmp_path.rglob("*")) == before


def test_all_faults_are_told_at_once(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    recipe = copy.deepcopy(RECIPE)
    recipe["task"]["model"]["weights"] = "best.pth"
    shutil.rmtree(tmp_path / "pictures" / "test")
    assert main([str(write_yaml(tmp_path / "recipe.yaml", recipe)), "--check"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "recipe.yaml:" in lines[0] and "task.data.folder" in lines[0]
    assert "task.model.weights" in lines[1]


def test_a_run_tells_the_same_before_it_begins(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["task"]["data"]["folder"], recipe["task"]["model"]["weights"] = str(whole / "pictures"), "best.pth"
    file = write_yaml(tmp_path / "recipe.yaml", recipe)
    assert main([str(file), "--out", str(tmp_path / "run")]) == 2
    assert "best.pth: cannot be read" in capsys.readouterr().err and not (tmp_path / "run").exists()
