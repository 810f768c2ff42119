"""The same cuts by the stages, which find blocks and groups again, choose the channels, and check what they did."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from tests.helpers.any_task import AnyTask
from tests.random_nets.network import inputs_of
from toolkit import BlockDrop, ChannelPrune, Heads
from toolkit.base.console import Console
from toolkit.channels.cut import KeptUnits
from toolkit.measure.macs import count_macs
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.context import StageContext


def _task_of(net: nn.Module) -> AnyTask:
    return AnyTask(partial(copy.deepcopy, net), partial(inputs_of, net))


def _context_of(net: nn.Module, seed: int) -> StageContext:
    def macs(model: nn.Module) -> int:
        return count_macs(model, inputs_of(model, 1)).total

    dense = copy.deepcopy(net)
    return StageContext(dense, macs(dense), macs, torch.device("cpu"), seed, Console(io.StringIO()))


def drop_by_stage(net: nn.Module, blocks: Sequence[str], seed: int) -> None:
    """In place."""
    config = BlockDrop(blocks=tuple(blocks), repair="none")
    model, _ = apply_block_drop(net, _task_of(net), config, _context_of(net, seed))
    _become(net, model)


def cut_by_stage(net: nn.Module, choices: Sequence[KeptUnits], seed: int) -> None:
    """In place, to the widths of the choices; which channels stay is drawn by the stage."""
    widths = {choice.group.name: _width_of(choice) for choice in choices}
    config = ChannelPrune(widths=widths, importance="random", repair="none", batch_norm="keep")
    model, _ = apply_channel_prune(net, _task_of(net), config, _context_of(net, seed))
    _become(net, model)


def _width_of(choice: KeptUnits) -> int | Heads:
    if choice.group.kind != "attention":
        return len(choice.units)
    return Heads(heads=len(choice.units), head_dim=choice.head_dim if choice.inner else None)


def _become(net: nn.Module, model: nn.Module) -> None:
    """A stage may give another model back."""
    vars(net).update(vars(model))
