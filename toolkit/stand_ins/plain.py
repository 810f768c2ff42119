"""Holds what stand-ins share with programs that run without this toolkit, into which this source is copied.

Everything here needs torch, the standard library and `toolkit.hooks.tensors` alone, which is copied with it.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.tensors import entries_of, rebuilt, stream_in


class InPlace(nn.Module):
    """Stands in the place of a block, and takes whatever the block was given; `carry` computes the output."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        """Returns the output for the first argument; what else the block was given is ignored."""
        return self.carry(x)

    def carry(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block."""
        raise NotImplementedError


class InPlaceOfAny(nn.Module):
    """Stands in the place of a block, whatever the block took and returned; `carry` computes the stream behind it.

    returns: in which container the block returned the stream, as `wrapped` takes it.
    remains: plain attributes of the block, which the model may read.
    """

    returns: Mapping[str, Any] = {}
    remains: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the stream behind the block, in a container like the block's."""
        stream = stream_in((args, kwargs))
        assert stream is not None
        return wrapped(self.carry(stream), (args, kwargs), **self.returns)

    def carry(self, x: Tensor) -> Tensor:
        """Returns the stream behind the block."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if not hasattr(self.remains, name):
                raise
            return getattr(self.remains, name)


class Removed(InPlace):
    """Stands where a block was removed: its input is its output."""

    def carry(self, x: Tensor) -> Tensor:
        """Returns the input."""
        return x


class LinearMap(InPlace):
    """Stands where a block was replaced by a fitted map of the channels: x + W x + c, then `behind`.

    layer: linear if the last dimension holds the channels, a convolution if the second does.
    rank: of W, which is then the product of `up` and `down`; None is full rank.
    """

    def __init__(self, layer: str, channels: int, rank: int | None, behind: str) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"linear": nn.Linear, "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
        options = {} if layer == "linear" else {"kernel_size": 1}
        if rank is None:
            self.map = kinds[layer](channels, channels, **options)
        else:
            self.down = kinds[layer](channels, rank, bias=False, **options)
            self.up = kinds[layer](rank, channels, **options)
        self.rank, self.behind = rank, behind

    def carry(self, x: Tensor) -> Tensor:
        """Returns the mapped input."""
        total: Tensor = x + (self.map(x) if self.rank is None else self.up(self.down(x)))
        return torch.relu(total) if self.behind == "relu" else total


def wrapped(
    tensor: Tensor,
    given: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    kind: str = "tensor",
    length: int = 1,
    index: int = 0,
    keys: tuple[str, ...] = (),
    handed: tuple[tuple[int, tuple[int | str, ...]], ...] = (),
    like: int | str | None = None,
) -> Any:
    """Returns a stream in a container of `length` entries, at `index`; other entries are None unless handed on.

    given: the arguments, by position and by name.
    keys: the names of the entries; empty if they have none.
    handed: entries that are given arguments, or parts of them: (number of the entry, place of the argument).
    like: the argument that is a container of the output's own type.
    """
    if kind == "tensor":
        return tensor
    known = {at: argument_at(place, *given) for at, place in handed} | {index: tensor}
    entries = [known.get(at) for at in range(length)]
    if like is not None:
        return rebuilt(argument_at((like,), *given), entries)
    if kind == "mapping":
        return NamedOutputs(zip(keys, entries, strict=True))
    if kind in ("named_tuple", "dataclass"):
        return named_type(kind, keys)(*entries)
    return tuple(entries) if kind == "tuple" else entries


def argument_at(place: Sequence[int | str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Returns the argument at a place: its number or name, and for a part of it the number or key of the part.

    Raises:
        LookupError: there is no such argument.
    """
    value = args[place[0]] if isinstance(place[0], int) else kwargs[place[0]]
    if len(place) == 1:
        return value
    named_parts = entries_of(value)
    if named_parts is None:
        raise LookupError(f"argument {place[0]} of a dropped block has no part {place[1]}")
    return dict(zip(*named_parts, strict=True))[place[1]]


@cache
def named_type(kind: str, keys: tuple[str, ...]) -> Any:
    """Returns a type with these names; it replaces a type that a saved model cannot name."""
    return namedtuple("Outputs", keys) if kind == "named_tuple" else dataclasses.make_dataclass("Outputs", keys)


class NamedOutputs(dict[str, Any]):
    """Is a mapping that can also be read by attribute and by position, like the model outputs of transformers."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]


def plain_attributes_of(module: nn.Module) -> SimpleNamespace:
    """Returns the plain attributes of a module and, by their names, those of its submodules."""
    plain = (bool, int, float, str, tuple, type(None))
    values = {name: value for name, value in vars(module).items() if name[0] != "_" and isinstance(value, plain)}
    return SimpleNamespace(**values, **{name: plain_attributes_of(child) for name, child in module.named_children()})
