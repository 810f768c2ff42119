"""Makes models of parts of a model, so that each part can be timed alone with the inputs that it has in the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from toolkit.hooks.arguments import first_arguments
from toolkit.hooks.tensors import tensors_in

NOT_OF_A_KIND = ("training", "layer_idx", "layer_id", "index")  # attributes that differ between blocks of one kind


class Bound(nn.Module):
    """Calls a model with inputs that are given once, and ignores the inputs that it is called with."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *_: Tensor) -> Any:
        return self.model(*self.inputs)


class BlockCall(nn.Module):
    """Makes a block a model of its stream alone: passes the other arguments that the block has in the network."""

    def __init__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.block, self.args, self.kwargs = block, args, kwargs

    def forward(self, stream: Tensor) -> Any:
        return self.block(stream, *self.args, **self.kwargs)


class _Named(nn.Module):
    """Passes the stream to a block as a named argument."""

    def __init__(self, block: nn.Module, name: str) -> None:
        super().__init__()
        self.block, self.name = block, name

    def forward(self, stream: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.block(*args, **{self.name: stream}, **kwargs)


def call_of(model: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> tuple[BlockCall, tuple[Tensor, ...]]:
    """Returns the block as a model of its stream, and the stream that it has in the network."""
    module = model.get_submodule(block)
    args, kwargs = first_arguments(model, block, inputs)
    if args and isinstance(args[0], Tensor):
        return BlockCall(module, args[1:], kwargs), (args[0],)
    name = next(key for key, value in kwargs.items() if isinstance(value, Tensor))
    rest = {key: value for key, value in kwargs.items() if key != name}
    return BlockCall(_Named(module, name), args, rest), (kwargs[name],)


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
    call, (stream,) = call_of(model, name, inputs)
    arguments = [tuple(part.shape) for part in tensors_in((stream, call.args, call.kwargs))]
    return f"{block} {shapes} {plain} {arguments}"
