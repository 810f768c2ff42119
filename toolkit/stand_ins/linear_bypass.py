"""Holds the stand-in `linear_bypass`: one linear map of the stream's channels, the same at every position.

    full:        y = act(x + D x + c)        C C multiply-adds for each position
    of rank r:   y = act(x + U V x + c)      2 r C multiply-adds for each position

C: the channels of the stream.
act: what the stream passes after every addition, a ReLU in post-activation ResNets, or nothing.
The map is the identity plus a correction. With a correction of 0 it is the identity, towards which weight decay pulls.
The stream has the same channels before and behind it, so that both are cut together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from toolkit.stand_ins.contract import StandIn, StandInArguments

Channels = Annotated[int, Field(ge=1, le=2**16)]

StreamLayer = Literal["linear", "conv1d", "conv2d", "conv3d"]

LAYERS: Final[dict[StreamLayer, type[nn.Module]]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
}

_INPUTS, _OUTPUTS = ("in_features", "in_channels"), ("out_features", "out_channels")

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"nothing": lambda total: total, "relu": torch.relu}


class LinearBypassArguments(StandInArguments):
    """Holds the arguments of a bypass.

    layer: linear if the last dimension of the stream holds the channels, a convolution if the second does.
    channels: the channels of the stream when the bypass was made.
    rank: the rank of the correction; None is full rank.
    behind: what the sum passes.
    """

    type: Literal["linear_bypass"] = "linear_bypass"
    layer: StreamLayer
    channels: Channels
    rank: Channels | None = None
    behind: Literal["nothing", "relu"] = "nothing"

    @model_validator(mode="after")
    def _rank_fits(self) -> LinearBypassArguments:
        if self.rank is not None and self.rank > self.channels:
            raise ValueError(
                f"rank {self.rank} is more than the {self.channels} channels of the stream; choose a smaller one"
            )
        return self


@final
class LinearBypass(StandIn):
    """Adds a linear correction to the stream; a new bypass adds 0.

    The correction of full rank is the layer `map`; that of rank r is `down`, which reads the stream, and then `up`.
    """

    arguments: LinearBypassArguments

    def __init__(
        self, block: nn.Module, arguments: LinearBypassArguments, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(block, arguments, device, dtype)
        width, rank = arguments.channels, arguments.rank

        def layer(inputs: int, outputs: int, bias: bool) -> nn.Module:
            options = {} if arguments.layer == "linear" else {"kernel_size": 1}
            kind = LAYERS[arguments.layer]
            new_layer: nn.Module = nn.utils.skip_init(  # type: ignore[no-untyped-call]
                kind, inputs, outputs, bias=bias, device=device, dtype=dtype, **options
            )
            return new_layer

        if rank is None:
            self.map = layer(width, width, bias=True)
        else:
            self.down, self.up = layer(width, rank, bias=False), layer(rank, width, bias=True)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @property
    def first(self) -> str:
        """Returns the name of the layer that reads the stream."""
        return "map" if self.arguments.rank is None else "down"

    @property
    def last(self) -> str:
        """Returns the name of the layer whose output is added to the stream."""
        return "map" if self.arguments.rank is None else "up"

    @property
    def last_layer(self) -> nn.Module:
        """Returns the layer whose output is added to the stream."""
        return self.get_submodule(self.last)

    def entry(self, stream: Tensor) -> Tensor:
        """Returns what the last layer reads of a stream."""
        read: Tensor = stream if self.last == "map" else self.down(stream)
        return read

    def carry(self, stream: Tensor) -> Tensor:
        """Returns the corrected stream."""
        return ACTIVATIONS[self.arguments.behind](stream + self.last_layer(self.entry(stream)))

    def macs(self, shape: Sequence[int]) -> int:
        """Returns the multiply-adds of the correction for a stream of this shape, batch included."""
        weights = [part for part in self.parameters() if part.dim() > 1]
        dim = 1 if weights[0].dim() > 2 else -1
        return math.prod(shape) // shape[dim] * sum(part.numel() for part in weights)

    def plain_form(self) -> tuple[str, dict[str, Any]]:
        """Returns the class with the same layers, and their widths as they are now."""
        last, first = (self.get_submodule(name).get_parameter("weight") for name in (self.last, self.first))
        rank = None if self.arguments.rank is None else len(first)
        arguments = {
            "layer": self.arguments.layer,
            "channels": len(last),
            "rank": rank,
            "behind": self.arguments.behind,
        }
        return "LinearMap", arguments

    def fault(self) -> str | None:
        """Returns which layer's weights do not have the shape that the layer states; None if all do."""
        for name, layer in self.named_children():
            outputs, inputs = layer.get_parameter("weight").shape[:2]
            stated = tuple(value for key, value in vars(layer).items() if key in (*_INPUTS, *_OUTPUTS))
            if stated != (inputs, outputs):
                return f"{name} must map {stated[0]} channels to {stated[1]}, but its weights map {inputs} to {outputs}"
        return None
