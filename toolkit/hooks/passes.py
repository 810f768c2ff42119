"""Block passes, counted where they happen: in the forward calls that are really made, not by formula.

The unit is one block over the whole scoring set. Naive selection among n blocks, one forward pass of the n - 1 others
per candidate, takes n(n - 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from toolkit.base.errors import StageError
from toolkit.hooks.forward import Forward, forward_replaced
from toolkit.hooks.tensors import tensors_in


@dataclass
class Meter:
    """Examples (rows of the model's input) that went through blocks, and through single layers in a block's stead."""

    blocks: int = 0
    layers: int = 0
    rows: int = 0  # in the model's current call


@contextmanager
def metered(meter: Meter, model: nn.Module, blocks: Iterable[str]) -> Iterator[None]:
    """Count on `meter` every call of one of the blocks that computes something, also in part."""

    def counts_rows(forward: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            meter.rows = len(tensors_in((args, kwargs))[0])
            try:
                return forward(*args, **kwargs)
            finally:
                meter.rows = 0

        return call

    def counts_passes(forward: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            if meter.rows == 0:
                raise StageError("a block was called outside of a call of the model; the task must call model(...)")
            meter.blocks += meter.rows
            return forward(*args, **kwargs)

        return call

    with ExitStack() as stack:
        stack.enter_context(forward_replaced(model, counts_rows))
        for block in blocks:
            stack.enter_context(forward_replaced(model.get_submodule(block), counts_passes))
        yield
