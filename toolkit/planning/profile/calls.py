"""Parts of a model as models that can be timed by themselves: with the inputs that they have in the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from toolkit.hooks.arguments import first_arguments
from toolkit.hooks.tensors import map_tensors, stream_in, tensors_in

NOT_OF_A_KIND = ("training", "layer_idx", "layer_id", "index")  # what tells blocks apart that are alike


class Bound(nn.Module):
    """A model with inputs of its own, whatever it is called with."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *_: Tensor) -> Any:
        return self.model(*self.inputs)


class BlockCall(nn.Module):
    """A block as a model of its stream: what else it was given in the network it is given again."""

    def __init__(self, block: nn.Module, stream: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.block, self.stream, self.args, self.kwargs = block, stream, args, kwargs

    def forward(self, stream: Tensor) -> Any:
        args, kwargs = map_tensors(lambda one: stream if one is self.stream else one, (self.args, self.kwargs))
        return self.block(*args, **kwargs)


def call_of(model: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> tuple[BlockCall, tuple[Tensor, ...]]:
    """Returns the block as the model calls it: a model of its stream, and the stream."""
    module = model.get_submodule(block)
    args, kwargs = first_arguments(model, block, inputs)
    stream = stream_in((args, kwargs))
    assert stream is not None
    return BlockCall(module, stream, args, kwargs), (stream,)


def signature_of(model: nn.Module, name: str, inputs: tuple[Tensor, ...]) -> str:
    """Returns all that a block's time may depend on: types, shapes, plain attributes, and what the block is given."""
    block = model.get_submodule(name)
    shapes = [(own, tuple(value.shape)) for own, value in block.state_dict().items()]
    plain = [
        (own, key, value)
        for own, module in block.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str, tuple)) and key not in NOT_OF_A_KIND
    ]
    call, _ = call_of(model, name, inputs)
    given = [tuple(part.shape) for part in tensors_in((call.args, call.kwargs))]
    return f"{block} {shapes} {plain} {given}"
