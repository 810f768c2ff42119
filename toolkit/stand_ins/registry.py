"""Holds the closed list of stand-ins, by the names in saved models; nothing else is ever built from a file."""

from __future__ import annotations

from typing import Annotated, Any, Final

import torch
from pydantic import Field
from torch import nn

from toolkit.stand_ins.contract import StandIn, StandInArguments
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.stand_ins.linear_bypass import LinearBypass, LinearBypassArguments
from toolkit.stand_ins.nothing import Nothing, NothingArguments

AnyArguments = Annotated[NothingArguments | LinearBypassArguments | DynamicConvArguments, Field(discriminator="type")]

STAND_INS: Final[dict[str, Any]] = {"nothing": Nothing, "linear_bypass": LinearBypass, "dynamic_conv": DynamicConv}


def make_stand_in(block: nn.Module, arguments: StandInArguments, *, without_memory: bool = False) -> StandIn:
    """Returns a new stand-in for a block, with weights of the block's type on the block's device.

    without_memory: whether its weights lie on the meta device instead.
    """
    device, dtype = place_of(block)
    stand_in: StandIn = STAND_INS[arguments.type](
        block, arguments, torch.device("meta") if without_memory else device, dtype
    )
    return stand_in


def place_of(block: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Returns the device and the number type of a block's weights; CPU and float32 if it has none."""
    first = next((part for part in block.parameters() if part.is_floating_point()), None)
    return (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)
