"""Drops a residual block from a model, for good or for the length of a `with`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from toolkit.base.errors import StageError
from toolkit.blocks.dropped import dropped_blocks, put_module, take_over_hooks
from toolkit.blocks.find import END_ATTRIBUTE, BlockEnd
from toolkit.stand_ins.contract import StandIn
from toolkit.stand_ins.nothing import NothingArguments
from toolkit.stand_ins.registry import make_stand_in


def block_end(model: nn.Module, name: str) -> BlockEnd:
    """Returns how a block ends, as `find_blocks` noted it on the block.

    Raises:
        StageError: `name` is not a block that `find_blocks` found, or is dropped already.
    """
    known = [place for place, module in model.named_modules() if END_ATTRIBUTE in vars(module)]
    if name not in known:
        state = "is dropped already" if name in dropped_blocks(model) else "is not a known block"
        raise StageError(f"{name!r} {state}; known blocks: {', '.join(known) or 'none; call find_blocks first'}")
    end: BlockEnd = vars(model.get_submodule(name))[END_ATTRIBUTE]
    return end


def drop_block(model: nn.Module, name: str, stand_in: StandIn | None = None) -> None:
    """Replaces a block that `find_blocks` found by a stand-in, in place; the names of all other modules stay.

    stand_in: the module to put there; without it, the block's stream is handed on unchanged.

    Raises:
        StageError: as in `block_end`.
    """
    end = block_end(model, name)
    if stand_in is None:
        stand_in = make_stand_in(model.get_submodule(name), NothingArguments(structure=end.structure))
    take_over_hooks(model.get_submodule(name), stand_in)
    put_module(model, name, stand_in)


@contextlib.contextmanager
def block_dropped(model: nn.Module, name: str, stand_in: StandIn | None = None) -> Iterator[None]:
    """Drops a block as `drop_block` does for the length of the `with`, then puts the same block back."""
    block = dict(model.named_modules()).get(name)
    drop_block(model, name, stand_in)
    assert block is not None
    try:
        yield
    finally:
        put_module(model, name, block)
