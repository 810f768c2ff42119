"""What every stand-in answers. To add one: a file with its arguments and its module, and its place in the registry.

A stand-in is known by its type and plain arguments, which a saved model keeps; its weights are kept like all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.settings import Settings
from toolkit.hooks.tensors import stream_in
from toolkit.stand_ins.output import OutputStructure


class StandInArguments(Settings):
    """Base of the arguments of every stand-in: plain data, which may come from a file of anybody's.

    type: the name of the stand-in in the registry; a subclass narrows it to one literal, its default.
    structure: how the block that stood there hands back its tensor.
    """

    type: str
    structure: OutputStructure = OutputStructure()


class StandIn(nn.Module, ABC):
    """Stands where a residual block was: `carry` takes the stream on, whatever else the block was given and returned.

    The output has the block's own structure: its stream, what the block was given and hands on, and None for every
    other entry. The stream is the first floating-point tensor that comes in. The plain attributes of
    the block and its submodules can still be read (nn.TransformerEncoder reads `layers[0].self_attn.batch_first`).

    arguments: what the stand-in was made from. Width that is cut later shows in the weights, as in any other module.
    device, dtype: of its weights, if it has any.
    """

    def __init__(self, block: nn.Module, arguments: StandInArguments, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.arguments = arguments
        self.remains = _plain_attributes(block)
        self.training = block.training

    @abstractmethod
    def carry(self, stream: Tensor) -> Tensor:
        """Returns the stream behind the stand-in, in the shape of the stream before it."""

    @abstractmethod
    def macs(self, shape: Sequence[int]) -> int:
        """Returns the multiply-adds that `carry` takes for a stream of this shape, batch included."""

    def fault(self) -> str | None:
        """Returns in which way the weights are not what the arguments, and what was cut since, make of them."""
        return None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        stream = stream_in((args, kwargs))
        assert stream is not None
        return self.arguments.structure.wrap(self.carry(stream), args, kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)  # the stand-in's own layers come before what is left of the block
        except AttributeError:
            remains = self.__dict__.get("remains")
            if not hasattr(remains, name):
                raise
            return getattr(remains, name)


def _plain_attributes(module: nn.Module) -> SimpleNamespace:
    kept = (bool, int, float, str, tuple, type(None))
    values = {name: value for name, value in vars(module).items() if name[0] != "_" and isinstance(value, kept)}
    return SimpleNamespace(**values, **{name: _plain_attributes(child) for name, child in module.named_children()})
