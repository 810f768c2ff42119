"""Tensors inside of whatever a model takes or returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from toolkit.base.files import bytes_sha256


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


def unlike(first: Tensor, second: Tensor) -> Tensor:
    """Returns where two tensors of one shape differ, as bool of that shape. Two NaN, of rows of padding, are equal."""
    return (first != second) & ~(first.isnan() & second.isnan())


def equal(first: Tensor, second: Tensor) -> bool:
    """Says whether two tensors have the same shape and the same numbers; two NaN are the same number."""
    if first.shape != second.shape:
        return False
    return torch.equal(first, second) or not bool(unlike(first, second).any())


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(equal, first, second))


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns the values of a tensor in row-major order, whatever its memory layout, device and type."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def tensors_sha256(tensors: Iterable[Tensor]) -> str:
    """Returns the SHA-256 of shapes, types and values. What is kept in tables is bound to it."""
    return bytes_sha256(
        part for tensor in tensors for part in (f"{tuple(tensor.shape)}{tensor.dtype}".encode(), tensor_bytes(tensor))
    )


def model_sha256(model: nn.Module, settings: object) -> str:
    """Returns the SHA-256 of plain settings and of all weights of a model, frozen ones and those to train.

    What an interrupted training left is bound to it.
    """

    def parts() -> Iterator[bytes]:
        yield json.dumps(settings, sort_keys=True).encode()
        for name, value in model.state_dict().items():
            yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
            yield tensor_bytes(value)
        yield " ".join(name for name, parameter in model.named_parameters() if parameter.requires_grad).encode()

    return bytes_sha256(parts())


class FlatOutputs(nn.Module):
    """The model with a plain tuple of all its output tensors, of whatever nesting they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors_in(self.model(*inputs)))
