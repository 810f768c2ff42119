"""Captures the arguments that a network calls one of its modules with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toolkit.hooks.held import attributes_kept
from toolkit.hooks.points import Inputs


@torch.no_grad()
def first_arguments(model: nn.Module, name: str, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the positional and the keyword arguments of the first call of the module `name` in one forward pass."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    module = model.get_submodule(name)
    handle = module.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        with attributes_kept(model):
            model(*inputs)
    finally:
        handle.remove()
    return calls[0]
