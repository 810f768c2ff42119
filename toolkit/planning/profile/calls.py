"""Makes models of parts of a model, so that each part can be timed alone with the inputs that it has in the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from toolkit.hooks.arguments import first_arguments
from toolkit.hooks.tensors import map_tensors, stream_in, tensors_in

NOT_OF_A_KIND = ("training", "layer_idx", "layer_id", "index")  # attributes that differ between blocks of one kind


class Bound(nn.Module):
    """Calls a model with inputs that are given once, and ignores the inputs that it is called with."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *_: Tensor) -> Any:
        return self.model(*self.inputs)


class BlockCall(nn.Module):
    """Presents a block as a model whose only input is the stream; other arguments are those that the network gave."""

    def __init__(self, block: nn.Module, stream: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.block, self.stream, self.args, self.kwargs = block, stream, args, kwargs

    def forward(self, stream: Tensor) -> Any:
        args, kwargs = map_tensors(lambda one: stream if one is self.stream else one, (self.args, self.kwargs))
        return self.block(*args, **kwargs)


def call_of(model: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> tuple[BlockCall, tuple[Tensor, ...]]:
    """Returns the block as a model whose only input is the stream, and the stream that it has in the network."""
    module = model.get_submodule(block)
    args, kwargs = first_arguments(model, block, inputs)
    stream = stream_in((args, kwargs))
    assert stream is not None
    return BlockCall(module, stream, args, kwargs), (stream,)


def signature_of(model: nn.Module, name: str, inputs: tuple[Tensor, ...]) -> str:
    """Returns a text of all that a block's time may depend on: types, shapes, plain attributes, and its arguments."""
    block = model.get_submodule(name)
    shapes = [(tensor, tuple(value.shape)) for tensor, value in block.state_dict().items()]
    plain = [
        (part, key, value)
        for part, module in block.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str, tuple)) and key not in NOT_OF_A_KIND
    ]
    call, _ = call_of(model, name, inputs)
    given = [tuple(part.shape) for part in tensors_in((call.args, call.kwargs))]
    return f"{block} {shapes} {plain} {given}"
