"""Holds the settings that name a model of a zoo. Nothing here imports torch or a zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from toolkit.base.files import moved_path
from toolkit.base.settings import Settings


class ZooModel(Settings):
    """States which model of a public zoo the task `zoo` compresses.

    name: `torchvision/NAME`, `timm/NAME` or `transformers/TYPE`, such as `torchvision/resnet18`.
    arguments: keyword arguments of the model's factory or configuration, such as `{num_classes: 10}`: sizes and
        switches, but nothing that downloads or reads files.
    weights: a local file of weights (safetensors, or a state dict or checkpoint of torch); a relative path starts from
        the recipe's folder. With null the weights are random, and the same on every machine.
    weights_key: the key of the weights in a checkpoint that holds several; null takes the only ones that fit the model.
    input_size: the side of images and clips in pixels, or the number of tokens or samples; null is the model's default.
    examples: the number of made-up examples in each fixed split, 2 to 4096.
    """

    later: ClassVar[frozenset[str]] = frozenset({"weights_key"})

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)  # what they may be: toolkit.zoo.names
    weights: Annotated[str, Field(min_length=1)] | None = None
    weights_key: Annotated[str, Field(min_length=1)] | None = None
    input_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    examples: Annotated[int, Field(ge=2, le=4096)] = 16

    def moved(self, old: Path, new: Path) -> ZooModel:
        """Returns the model as a file in the folder `new` names it, where a file in `old` names it like this."""
        if self.weights is None:
            return self
        return self.model_copy(update={"weights": moved_path(self.weights, old, new)})

    def without_weights(self) -> ZooModel:
        """Returns the same model with random weights."""
        return self.model_copy(update={"weights": None})
