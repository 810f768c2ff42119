"""Replaces the forward method of a module for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def forward_replaced(module: nn.Module, replace: Callable[[Forward], Forward]) -> Iterator[None]:
    """`module.forward` is what `replace` makes of it for the length of the `with`; may be nested.

    The module stays in its place with its hooks and attributes, which some models read.
    """
    own = vars(module).get("forward")
    vars(module)["forward"] = replace(module.forward)
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own
