"""The stand-in `nothing`: the block is gone, and the stream passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from torch import Tensor

from toolkit.stand_ins.contract import StandIn, StandInArguments


class NothingArguments(StandInArguments):
    type: Literal["nothing"] = "nothing"


@final
class Nothing(StandIn):
    """Hands the stream on as it is; no parameters, no work."""

    def carry(self, stream: Tensor) -> Tensor:
        return stream

    def macs(self, shape: Sequence[int]) -> int:
        return 0
