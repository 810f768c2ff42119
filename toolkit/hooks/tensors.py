"""Finds, changes, compares and hashes the tensors inside of whatever a model takes or returns."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.files import bytes_sha256


def entries_of(value: Any) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Returns keys and values of a mapping, named tuple, tuple, list or dataclass, and None for any other value."""
    if isinstance(value, Mapping):
        return tuple(value), list(value.values())
    if isinstance(value, tuple | list):
        return getattr(value, "_fields", tuple(range(len(value)))), list(value)
    if is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in fields(value))
        return names, [getattr(value, name) for name in names]
    return None


def rebuilt(value: Any, values: Sequence[Any]) -> Any:
    """Returns a container like `value` with `values` in the places of what `entries_of` returns."""
    if isinstance(value, tuple | list):
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    new = copy.copy(value)
    if isinstance(value, Mapping):
        for key, part in zip(tuple(value), values, strict=True):
            new[key] = part
    else:
        for field, part in zip(fields(value), values, strict=True):
            object.__setattr__(new, field.name, part)  # the dataclass may be frozen
    return new


def tensors_in(value: Any) -> list[Tensor]:
    """Returns every tensor in nested tuples, lists, mappings and dataclasses, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    entries = entries_of(value)
    return [] if entries is None else [tensor for part in entries[1] for tensor in tensors_in(part)]


def stream_in(value: Any) -> Tensor | None:
    """Returns the first floating-point tensor in a structure, before which a mask or token ids may come.

    Without a floating-point tensor it returns the first tensor, and without any tensor None.
    """
    tensors = tensors_in(value)
    return next((tensor for tensor in tensors if tensor.is_floating_point()), tensors[0] if tensors else None)


def copied(value: Any) -> Any:
    """Returns the same structure with every tensor cloned, because models may change a block's output in place."""
    return map_tensors(lambda tensor: tensor.detach().clone(), value)


def usable_in_training(value: Any) -> Any:
    """Returns a model's output whose tensors of inference mode are replaced by ordinary copies."""
    return map_tensors(lambda part: part.clone() if part.is_inference() else part, value)


def map_tensors(change: Callable[..., Tensor], *values: Any) -> Any:
    """Returns the structure of the first value with `change(*tensors)` in the place of each tensor.

    values: structures of the same shape; `tensors` are those at one place of all of them. Other values are taken from
        the first structure.
    """
    if isinstance(values[0], Tensor):
        return change(*values)
    parts = [entries_of(value) for value in values]
    if any(part is None for part in parts):
        return values[0]
    columns = zip(*(part[1] for part in parts if part is not None), strict=True)
    return rebuilt(values[0], [map_tensors(change, *column) for column in columns])


def unlike(first: Tensor, second: Tensor) -> Tensor:
    """Returns a bool tensor that is true where two tensors of one shape differ.

    Two NaN are equal, because rows of padding may hold NaN.
    """
    return (first != second) & ~(first.isnan() & second.isnan())


def equal(first: Tensor, second: Tensor) -> bool:
    """Says whether two tensors have the same shape and the same numbers; two NaN are equal."""
    if first.shape != second.shape:
        return False
    return torch.equal(first, second) or not bool(unlike(first, second).any())


@torch.no_grad()
def put_values(tensor: Tensor, values: Tensor) -> None:
    """Copies values into a tensor of the same shape, unless it holds them already or lies on the meta device."""
    if tensor.is_meta:
        return
    with torch.inference_mode(tensor.is_inference()):
        if not _holds(tensor, values):
            tensor.copy_(values)


def _holds(tensor: Tensor, values: Tensor) -> bool:
    try:
        return tensor.shape == values.shape and torch.equal(tensor, values)
    except NotImplementedError:  # torch copies tensors of packed types, but compares none
        return False


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Says whether two lists have the same length and `equal` tensors."""
    return len(first) == len(second) and all(map(equal, first, second))


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns the values of a tensor in row-major order, whatever its memory layout, device and type."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def tensors_sha256(tensors: Iterable[Tensor]) -> str:
    """Returns the SHA-256 of shapes, types and values; cost and loss tables are stored under it."""
    return bytes_sha256(
        part for tensor in tensors for part in (f"{tuple(tensor.shape)}{tensor.dtype}".encode(), tensor_bytes(tensor))
    )


def model_sha256(model: nn.Module, settings: object) -> str:
    """Returns the SHA-256 of plain settings, of all weights of a model, and of which weights are trainable.

    The checkpoint of an interrupted training is bound to this hash.
    """

    def parts() -> Iterator[bytes]:
        yield json.dumps(settings, sort_keys=True).encode()
        for name, value in model.state_dict().items():
            yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
            yield tensor_bytes(value)
        yield " ".join(name for name, parameter in model.named_parameters() if parameter.requires_grad).encode()

    return bytes_sha256(parts())


class FlatOutputs(nn.Module):
    """Wraps a model so that it returns a plain tuple of all its output tensors, whatever their nesting."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the output tensors of the model in the order of `tensors_in`."""
        return tuple(tensors_in(self.model(*inputs)))
