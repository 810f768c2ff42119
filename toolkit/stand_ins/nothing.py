"""Holds the stand-in `nothing`: the block is removed, and the stream passes unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final

from torch import Tensor

from toolkit.stand_ins.contract import StandIn, StandInArguments


class NothingArguments(StandInArguments):
    """Holds the arguments of the stand-in `nothing`."""

    type: Literal["nothing"] = "nothing"


@final
class Nothing(StandIn):
    """Passes the stream on unchanged; it has no parameters and takes no time."""

    def carry(self, stream: Tensor) -> Tensor:
        """Returns the stream itself."""
        return stream

    def macs(self, shape: Sequence[int]) -> int:
        """Returns 0."""
        return 0

    def plain_form(self) -> tuple[str, dict[str, Any]]:
        """Returns the class that hands the stream on; it takes no arguments."""
        return "Removed", {}
