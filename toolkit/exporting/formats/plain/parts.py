"""Holds the functions of load.py; their source is copied into it, so they need torch and the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.folding import make_parameter, remove_computation
from toolkit.stand_ins.plain import plain_attributes_of


def put_module_at(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replaces the submodule called `name` by `module`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def put_like_block(model: nn.Module, name: str, module: Any, returns: Mapping[str, Any]) -> None:
    """Replaces the block called `name` by `module`, which returns what the block did and keeps its plain attributes."""
    module.returns, module.remains = returns, plain_attributes_of(model.get_submodule(name))
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def fold_tensor(model: nn.Module, name: str, kind: str) -> None:
    """Makes the tensor called `name`, which the architecture computes from others in every pass, a parameter."""
    prefix, _, leaf = name.rpartition(".")
    module = model.get_submodule(prefix)
    remove_computation(module, leaf, kind)
    make_parameter(module, leaf, is_trained=True)


def resize_tensors(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Gives parameters and buffers their shapes, without values; tensors that modules share stay shared."""
    resized: dict[int, tuple[Tensor, Tensor]] = {}
    for name, shape in shapes.items():
        prefix, _, leaf = name.rpartition(".")
        module = model.get_submodule(prefix)
        old = getattr(module, leaf)
        new = torch.empty(shape, dtype=old.dtype)
        new = nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        setattr(module, leaf, resized.setdefault(id(old), (old, new))[1])


def set_numbers(model: nn.Module, numbers: Mapping[str, Mapping[str, Any]]) -> None:
    """Sets the attributes of modules that state widths."""
    for name, values in numbers.items():
        module = model.get_submodule(name)
        for attribute, value in values.items():
            old = getattr(module, attribute)
            setattr(module, attribute, type(old)(value) if isinstance(value, tuple) else value)
