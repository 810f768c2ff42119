"""Makes the transforms of pictures with timm: a fixed one, one with random augmentation, and the scaling of values.

Transforms give uint8 [channels, side, side]; whole batches are scaled afterwards, which computes the same.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.tasks.images.settings import ImageSettings
from toolkit.zoo.build import library_of
from toolkit.zoo.inputs import input_shape
from toolkit.zoo.names import split_name

Transform = Callable[[Any], Tensor]


@dataclass(frozen=True, eq=False)
class Preparation:
    """Holds how a picture becomes the input of the model.

    mode: PIL's mode, "RGB" or "L".
    fixed: the transform of every split; it is not random.
    random: the transform of training pictures.
    mean, std: float32 [channels, 1, 1], for values from 0 to 1.
    words: the transform in words.
    """

    mode: str
    fixed: Transform
    random: Transform
    mean: Tensor
    std: Tensor
    words: str

    def scaled(self, pictures: Tensor) -> Tensor:
        """Returns uint8 pictures [B, channels, side, side] as the model gets them: float32, scaled."""
        return (pictures.float() / 255 - self.mean) / self.std


def prepare(settings: ImageSettings, model: nn.Module) -> Preparation:
    """Returns how pictures are prepared, by timm's data configuration of the model where the settings say nothing.

    A model of torchvision is prepared for as its newest published weights are. For grey pictures, mean and deviation
    are the averages over the channels.

    model: the model, whose weights are not looked at.

    Raises:
        UserError: the model takes no pictures, or a setting cannot be used.
    """
    shape = input_shape(settings.model.name, settings.model.arguments, settings.size)
    if shape.kind != "image" or len(set(shape.sizes[1:])) != 1:
        raise UserError(f"{settings.model.name} takes {shape.kind}s of {list(shape.sizes)}, and no square pictures")
    channels = shape.sizes[0]
    given = {"input_size": shape.sizes, "crop_pct": settings.crop}
    config = _config(settings.model.name, model, given)
    mean, std = (
        _per_channel(values, channels) for values in (settings.mean or config["mean"], settings.std or config["std"])
    )
    library_of("timm")
    create = importlib.import_module("timm.data").create_transform
    plain = {"input_size": shape.sizes, "interpolation": config["interpolation"], "mean": mean, "normalize": False}
    fixed = create(**plain, crop_pct=config["crop_pct"], crop_mode=config["crop_mode"])
    try:
        augmented = (
            fixed if settings.augment is None else create(**plain, is_training=True, **settings.augment.model_dump())
        )
    except Exception as error:  # timm asserts that it knows a policy
        raise UserError(f"augment: timm cannot make this augmentation: {' '.join(str(error).split())}") from error
    return Preparation(
        mode="L" if channels == 1 else "RGB",
        fixed=fixed,
        random=augmented,
        mean=torch.tensor(mean).view(-1, 1, 1),
        std=torch.tensor(std).view(-1, 1, 1),
        words=f"pictures are {shape.sizes[1]} x {shape.sizes[2]} pixels, {config['crop_mode']} crop "
        f"{config['crop_pct']:.3g}, mean {_shown(mean)}, deviation {_shown(std)}",
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds all random generators that transforms use, and gives them their state back when the `with` ends."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def _config(name: str, model: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """Returns timm's data configuration of a model; `given` holds what the user says, with None for nothing."""
    library_of("timm")
    resolve = importlib.import_module("timm.data").resolve_data_config
    published = {} if hasattr(model, "pretrained_cfg") else _of_torchvision(name)
    config: dict[str, Any] = resolve(given, pretrained_cfg=published, model=model)
    return config


def _of_torchvision(name: str) -> dict[str, Any]:
    """Returns the preparation for the newest published weights of a model of torchvision, in the words of timm."""
    library, model = split_name(name)
    if library != "torchvision":
        return {}
    preset = importlib.import_module("torchvision.models").get_model_weights(model).DEFAULT.transforms()
    return {
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "interpolation": preset.interpolation.value,
        "crop_pct": preset.crop_size[0] / preset.resize_size[0],
        "crop_mode": "center",
    }


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels


def _shown(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
