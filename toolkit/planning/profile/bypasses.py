"""Which linear maps of the stream can take the place of a block, and models with such maps, of zeros, in places."""

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

RANK: Final = 16  # of the cheap one of a block's two bypasses; a quarter of the channels where that is less

MOST_MACS: Final = 0.5  # of the block's: what costs more is no choice beside dropping or narrowing it


def bypass_ranks(model: nn.Module, blocks: Sequence[str], inputs: tuple[Tensor, ...]) -> dict[str, tuple[Rank, ...]]:
    """Returns the bypasses that can take the place of each block, the dearest first; none where its stream has channels
    that cannot be told, or where the bypass takes more than half of the multiply-adds of the block.

    `blocks` are blocks that `find_blocks` found in the model.
    """
    return {block: _ranks(model, block, inputs) for block in blocks}


def _ranks(model: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> tuple[Rank, ...]:
    arguments = arguments_of(model, block, "full", inputs)
    if arguments is None:
        return ()
    call, (stream,) = call_of(model, block, inputs)
    most = MOST_MACS * count_macs(call, (stream,)).total
    low = min(RANK, arguments.channels // 4)
    ranks: tuple[Rank, ...] = ("full", low) if low else ("full",)
    return tuple(rank for rank in ranks if new_bypass(model, block, rank, inputs).macs(stream.shape) <= most)


def arguments_of(model: nn.Module, block: str, rank: Rank, inputs: tuple[Tensor, ...]) -> LinearBypassArguments | None:
    """Returns the arguments of a bypass of that rank; None where it cannot be told what the stream's channels are."""
    end = block_end(model, block)
    number = None if rank == "full" else rank
    return bypass_arguments(model, block, inputs, structure=end.structure, behind=end.behind, rank=number)


def new_bypass(model: nn.Module, block: str, rank: Rank, inputs: tuple[Tensor, ...]) -> LinearBypass:
    """Returns a bypass for the place of the block, with weights of 0."""
    arguments = arguments_of(model, block, rank, inputs)
    assert arguments is not None
    made = make_stand_in(model.get_submodule(block), arguments)
    assert isinstance(made, LinearBypass)
    return made


def drop_all(model: nn.Module, drops: Drops, inputs: tuple[Tensor, ...]) -> None:
    """Drops blocks without repairs, in place; bypasses with weights of 0 stand where the plan has some."""
    made = {name: None if rank is None else new_bypass(model, name, rank, inputs) for name, rank in drops.items()}
    for name, stand_in in made.items():
        drop_block(model, name, stand_in)
