"""Holds the settings that name a model of a zoo. Nothing here imports torch or a zoo."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from toolkit.base.settings import Settings


class ZooModel(Settings):
    """States which model of a public zoo the task `zoo` compresses.

    name: `torchvision/NAME`, `timm/NAME` or `transformers/TYPE`, such as `torchvision/resnet18`.
    arguments: keyword arguments of the model's factory or configuration, such as `{num_classes: 10}`: sizes and
        switches, but nothing that downloads or reads files.
    weights: a local file of weights (safetensors, or a state dict of torch); a relative path starts from the recipe's
        folder. With null the weights are random, and the same on every machine.
    input_size: the side of images and clips in pixels, or the number of tokens or samples; null is the model's default.
    examples: the number of made-up examples in each fixed split, 2 to 4096.
    """

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)  # what they may be: toolkit.zoo.names
    weights: Annotated[str, Field(min_length=1)] | None = None
    input_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    examples: Annotated[int, Field(ge=2, le=4096)] = 16

    def without_weights(self) -> ZooModel:
        """Returns the same model with random weights."""
        return self.model_copy(update={"weights": None})
