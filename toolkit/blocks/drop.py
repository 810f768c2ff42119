"""Drops a residual block from a model, for good or for the length of a `with`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from toolkit.base.errors import StageError
from toolkit.blocks.dropped import dropped_blocks, put_module, replace_block
from toolkit.blocks.find import OUTPUT_ATTRIBUTE


def drop_block(model: nn.Module, name: str) -> None:
    """Replace a block that `find_blocks` found by a `DroppedBlock`, in place; every other name stays.

    Raises:
        StageError: `name` is not a known block, or is dropped already.
    """
    known = [place for place, module in model.named_modules() if OUTPUT_ATTRIBUTE in vars(module)]
    if name not in known:
        state = "is dropped already" if name in dropped_blocks(model) else "is not a known block"
        raise StageError(f"{name!r} {state}; known blocks: {', '.join(known) or 'none, find_blocks finds them'}")
    replace_block(model, name, vars(model.get_submodule(name))[OUTPUT_ATTRIBUTE])


@contextlib.contextmanager
def block_dropped(model: nn.Module, name: str) -> Iterator[None]:
    """`drop_block` for the length of a `with`; afterwards the same block is back."""
    block = dict(model.named_modules()).get(name)
    drop_block(model, name)
    assert block is not None
    try:
        yield
    finally:
        put_module(model, name, block)
