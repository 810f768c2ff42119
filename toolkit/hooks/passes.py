"""Counts block passes in the forward calls that are really made, not by formula.

One block pass is one block run on the whole scoring set. Naive selection among n blocks makes one forward pass of the
other n - 1 blocks for each candidate, which is n(n - 1) block passes.
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
    """Counts examples, which are rows of the model's input.

    blocks: examples that went through blocks, summed over blocks.
    layers: examples that went through single layers where a block was not needed as a whole.
    rows: examples of the model's current call.
    """

    blocks: int = 0
    layers: int = 0
    rows: int = 0


@contextmanager
def metered(meter: Meter, model: nn.Module, blocks: Iterable[str]) -> Iterator[None]:
    """Counts every call of one of the blocks on `meter` for the length of the `with`, also a call that is cut short.

    Raises:
        StageError: a block is called outside of a call of the model.
    """

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
                raise StageError(
                    "a block was called outside of a call of the whole model; the task must call model(...)"
                )
            meter.blocks += meter.rows
            return forward(*args, **kwargs)

        return call

    with ExitStack() as stack:
        stack.enter_context(forward_replaced(model, counts_rows))
        for block in blocks:
            stack.enter_context(forward_replaced(model.get_submodule(block), counts_passes))
        yield
