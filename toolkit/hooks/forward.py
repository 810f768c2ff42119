"""Replaces the forward method of a module for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def forward_replaced(module: nn.Module, replace: Callable[[Forward], Forward]) -> Iterator[None]:
    """Replaces `module.forward` by `replace(module.forward)` for the length of the `with`; calls may be nested.

    The module itself stays in the model, because some models read its hooks and attributes.
    """
    earlier = vars(module).get("forward")
    vars(module)["forward"] = replace(module.forward)
    try:
        yield
    finally:
        del vars(module)["forward"]
        if earlier is not None:
            vars(module)["forward"] = earlier
