"""Makes up pictures of three classes, a small trained classifier of timm, and a recipe for both."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML
from torch import Tensor

from toolkit.tasks.images.settings import ImageSettings
from toolkit.zoo.build import build_zoo_model

CLASSES = ("bee", "cat", "dog")

ARGUMENTS = {"num_classes": 3, "img_size": 32, "depth": 3, "embed_dim": 16, "num_heads": 2}

SIZES = {"train": 12, "val": 4, "test": 4}  # pictures of each class

RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "mine",
    "task": {
        "type": "images",
        "data": {"folder": "pictures"},
        "model": {"name": "timm/test_vit", "arguments": ARGUMENTS, "weights": "weights.pth"},
    },
    "seed": 0,
    "device": "cpu",
    "stages": [{"type": "block_drop", "num_blocks": 1, "criterion": "random"}],
    "measure": {"batch_sizes": [1], "threads": 1, "repeats": 3, "warmup": 0},
}


def made_up(count: int, seed: int, side: int = 20) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns uint8 [count, side, side + 4, 3] and labels: a picture of class k is bright in channel k."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    pixels = rng.integers(0, 120, (count, side, side + 4, 3))
    pixels[np.arange(count), :, :, labels] += 120
    return pixels.astype(np.uint8), labels


def write_pictures(folder: Path, sizes: dict[str, int] = SIZES) -> None:
    for seed, (split, count) in enumerate(sizes.items()):
        pixels, labels = made_up(count * len(CLASSES), seed)
        for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            path = folder / split / CLASSES[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


@cache
def weights() -> dict[str, Tensor]:
    """Returns the weights of the classifier, which nobody has trained."""
    state: dict[str, Tensor] = build_zoo_model("timm/test_vit", ARGUMENTS).state_dict()
    return state


def write_yaml(path: Path, content: Any) -> Path:
    YAML(typ="safe", pure=True).dump(content, path)
    return path


def recipe(**task: Any) -> dict[str, Any]:
    """Returns the content of the recipe file; `task` replaces settings of the task."""
    content = copy.deepcopy(RECIPE)
    content["task"].update(task)
    return content


def settings(**task: Any) -> ImageSettings:
    return ImageSettings.model_validate(recipe(**task)["task"])


def write_all(folder: Path) -> Path:
    """Writes pictures, weights and recipe, and returns the path of the recipe."""
    write_pictures(folder / "pictures")
    torch.save({"model": {f"module.{name}": value for name, value in weights().items()}}, folder / "weights.pth")
    return write_yaml(folder / "recipe.yaml", recipe())
