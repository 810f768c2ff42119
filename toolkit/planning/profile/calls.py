"""Parts of a model as models that can be timed by themselves: with the inputs that they have in the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Bound(nn.Module):
    """A model with inputs of its own, whatever it is called with."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *_: Tensor) -> Any:
        return self.model(*self.inputs)


class BlockCall(nn.Module):
    """A block as a model of one input: what else it was given in the network it is given again."""

    def __init__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.block, self.args, self.kwargs = block, args, kwargs

    def forward(self, stream: Tensor) -> Any:
        return self.block(stream, *self.args, **self.kwargs)


class _Named(nn.Module):
    """A block that takes its stream by name."""

    def __init__(self, block: nn.Module, name: str) -> None:
        super().__init__()
        self.block, self.name = block, name

    def forward(self, stream: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.block(*args, **{self.name: stream}, **kwargs)


@torch.no_grad()
def call_of(model: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> tuple[BlockCall, tuple[Tensor, ...]]:
    """Returns the block as the model calls it: a model of its stream, and the stream."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    module = model.get_submodule(block)
    handle = module.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    try:
        model(*inputs)
    finally:
        handle.remove()
    (args, kwargs) = seen[0]
    if args and isinstance(args[0], Tensor):
        return BlockCall(module, args[1:], kwargs), (args[0],)
    name = next(key for key, value in kwargs.items() if isinstance(value, Tensor))
    rest = {key: value for key, value in kwargs.items() if key != name}
    return BlockCall(_Named(module, name), args, rest), (kwargs[name],)
