"""Tensors inside of whatever a model takes or returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclasses, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in tensors_in(part)]
    if is_dataclass(value) and not isinstance(value, type):
        return [tensor for field in fields(value) for tensor in tensors_in(getattr(value, field.name))]
    return []


def copied(value: Any) -> Any:
    """The same structure with every tensor cloned: models may change a block's output in place."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), value)


def map_tensors(change: Callable[..., Tensor], *values: Any) -> Any:
    """Returns the structure of the first value with `change(*tensors)` for the tensors at each place of all values.

    Whatever is no tensor is as in the first value.
    """
    return tree_map(lambda *parts: change(*parts) if isinstance(parts[0], Tensor) else parts[0], *values)


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))
