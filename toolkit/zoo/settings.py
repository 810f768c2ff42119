"""Which model of a zoo a recipe is about. Nothing here imports torch or a zoo."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from toolkit.base.settings import Settings


class ZooModel(Settings):
    """A model of a public zoo, for task `zoo`: `torchvision/NAME`, `timm/NAME` or `transformers/TYPE`.

    `arguments` are keyword arguments of its factory or configuration: sizes and switches, nothing that downloads or
    reads files. `weights`: a local file (safetensors, or a state dict of torch); a relative path starts from the
    recipe's folder; null: random weights, always the same. `input_size`: side of images and clips, number of tokens or
    samples; null: the model's own. `examples`: how many each fixed split has.
    """

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)  # what they may be: toolkit.zoo.names
    weights: Annotated[str, Field(min_length=1)] | None = None
    input_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    examples: Annotated[int, Field(ge=2, le=4096)] = 16
