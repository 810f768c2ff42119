"""A made-up CIFAR-10: a few images whose class can be seen, and untrained networks for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.tasks.cifar10.data import Cifar10, Images
from toolkit.tasks.cifar10.model import CifarResNet
from toolkit.tasks.cifar10.task import Cifar10Task
from toolkit.tasks.task import Split

SIZES: dict[Split, int] = {"validation": 30, "score": 24, "calibration": 25, "holdout": 21}

NUM_TRAIN, NUM_TEST = 200, 40


def made_up_arrays() -> dict[str, NDArray[Any]]:
    """Each image is of one grey; its first pixel holds its number, so that it can be told from all others."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {}
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = rng.permutation(np.arange(count) % 10)
        pixels = np.repeat((20 * labels + 30).astype(np.uint8), 32 * 32 * 3).reshape(count, 32, 32, 3)
        pixels[:, 0, 0, 0] = np.arange(count)
        arrays |= {f"x_{part}": pixels, f"y_{part}": labels.astype(np.int64)}
    return arrays


def made_up_images() -> Cifar10:
    arrays = made_up_arrays()
    return Cifar10(*(Images(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")))


def random_weights(depth: int) -> dict[str, Tensor]:
    """BatchNorm statistics and scales are drawn too, so that no layer is what it was built as."""
    generator = torch.Generator().manual_seed(depth)
    model = CifarResNet(depth)
    found = {}
    for name, value in model.state_dict().items():
        drawn = torch.rand(value.shape, generator=generator)
        if "bn" in name and name.endswith(("weight", "running_var")):
            found[name] = 0.5 + drawn
        elif value.is_floating_point():
            found[name] = (drawn - 0.5) * (0.2 if value.dim() > 1 else 0.5)
    return found


def made_up_task(depth: int = 14, draw: int = 0) -> Cifar10Task:
    return Cifar10Task(depth, draw=draw, images=made_up_images, weights=random_weights, sizes=SIZES)
