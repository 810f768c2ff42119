"""Finds the linear maps of the stream that can take the place of a block, and puts them, with zero weights, there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from toolkit.blocks.drop import block_end, drop_block
from toolkit.measure.macs import count_macs
from toolkit.planning.profile.calls import call_of
from toolkit.planning.tables import Drops
from toolkit.record.plan import Rank
from toolkit.repair.stream import bypass_arguments
from toolkit.stand_ins.linear_bypass import LinearBypass, LinearBypassArguments
from toolkit.stand_ins.registry import make_stand_in

RANK: Final = 16  # of the cheaper of a block's two bypasses; a quarter of the channels where that is less

MOST_MACS: Final = 0.5  # share of the block's: a dearer bypass is no better choice than narrowing the block


def bypass_ranks(model: nn.Module, blocks: Sequence[str], inputs: tuple[Tensor, ...]) -> dict[str, tuple[Rank, ...]]:
    """Returns the ranks of the bypasses that can take the place of each block, the dearest first.

    A bypass is left out if it takes more than half of the block's multiply-adds. A block has none if the channel
    dimension of its stream cannot be determined.

    blocks: names of blocks that `find_blocks` found in the model.
    """
    return {block: _ranks(model, block, inputs) for block in blocks}


def _ranks(model: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> tuple[Rank, ...]:
    arguments = arguments_of(model, block, "full", inputs)
    if arguments is None:
        return ()
    call, (stream,) = call_of(model, block, inputs)
    most_macs = MOST_MACS * count_macs(call, (stream,)).total
    low = min(RANK, arguments.channels // 4)
    ranks: tuple[Rank, ...] = ("full", low) if low else ("full",)
    return tuple(rank for rank in ranks if new_bypass(model, block, rank, inputs).macs(stream.shape) <= most_macs)


def arguments_of(model: nn.Module, block: str, rank: Rank, inputs: tuple[Tensor, ...]) -> LinearBypassArguments | None:
    """Returns the arguments of a bypass of that rank; None if the stream's channel dimension cannot be determined."""
    end = block_end(model, block)
    number = None if rank == "full" else rank
    return bypass_arguments(model, block, inputs, structure=end.structure, behind=end.behind, rank=number)


def new_bypass(model: nn.Module, block: str, rank: Rank, inputs: tuple[Tensor, ...]) -> LinearBypass:
    """Returns a bypass for the place of the block, with weights of 0."""
    arguments = arguments_of(model, block, rank, inputs)
    assert arguments is not None
    bypass = make_stand_in(model.get_submodule(block), arguments)
    assert isinstance(bypass, LinearBypass)
    return bypass


def drop_all(model: nn.Module, drops: Drops, inputs: tuple[Tensor, ...]) -> None:
    """Drops blocks of the model without repairs, and puts bypasses with weights of 0 where `drops` has ranks."""
    bypasses = {name: None if rank is None else new_bypass(model, name, rank, inputs) for name, rank in drops.items()}
    for name, stand_in in bypasses.items():
        drop_block(model, name, stand_in)
