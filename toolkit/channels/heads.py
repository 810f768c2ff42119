"""What the forward code of an attention module may read of its heads: attributes that hold their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

_LARGEST_NUMBER_OF_HEADS = 256


@dataclass(frozen=True)
class HeadCount:
    """`owner` says, in `attribute`, that it has `num_heads` heads."""

    owner: str
    attribute: str
    num_heads: int


def head_counts(model: nn.Module, layers: tuple[str, ...], width: int) -> Iterator[HeadCount]:
    """Numbers of heads that divide `width`, of the modules around the layers, the innermost module first.

    Nothing is said of what the numbers are for: the caller tries them out.
    """
    seen = set()
    for layer in layers:
        name = layer
        for _ in range(2):  # the module of the layer, and the one around it
            name = name.rpartition(".")[0]
            if not name or name in seen:
                continue
            seen.add(name)
            for attribute, value in vars(model.get_submodule(name)).items():
                is_number = type(value) is int and 1 < value <= min(width, _LARGEST_NUMBER_OF_HEADS)
                names_heads = "head" in attribute and "dim" not in attribute and "size" not in attribute
                if is_number and names_heads and width % value == 0:
                    yield HeadCount(name, attribute, value)


def attributes_of(module: nn.Module, value: int, words: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Integer attributes of that value; with `words`, those whose name has one of them."""
    found = [name for name, own in vars(module).items() if type(own) is int and own == value]
    return tuple(name for name in found if not words or any(word in name for word in words))
