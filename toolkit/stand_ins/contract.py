"""States what every stand-in must offer. A new one takes a file for its arguments and module, and a registry entry.

A saved model keeps the type and the plain arguments of a stand-in, and its weights like those of any module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from toolkit.base.settings import Settings
from toolkit.hooks.tensors import stream_in
from toolkit.stand_ins.output import OutputStructure
from toolkit.stand_ins.plain import plain_attributes_of


class StandInArguments(Settings):
    """Is the base of the arguments of stand-ins: plain data, which may come from an untrusted file.

    type: the name of the stand-in in the registry; a subclass narrows it to one literal, its default.
    structure: how the replaced block returns its tensor.
    """

    type: str
    structure: OutputStructure = OutputStructure()


class StandIn(nn.Module, ABC):
    """Replaces a residual block or a layer, whatever it was given and returned; `carry` computes the stream behind it.

    The output has the structure of the block's: it holds the stream, what the block was given and returned unchanged,
    and None for every other entry. The stream is the first floating-point tensor among the inputs. The plain attributes
    of the block and its submodules can still be read (nn.TransformerEncoder reads `layers[0].self_attn.batch_first`).

    replaces: what it stands for: a block that was dropped, or a layer that is still there in another form.
    block: the block or layer that is replaced.
    arguments: what the stand-in is made from; channels that are cut later show in the weights alone.
    device, dtype: device and number type of its weights, if it has any.
    """

    replaces: ClassVar[Literal["block", "layer"]] = "block"

    def __init__(self, block: nn.Module, arguments: StandInArguments, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.arguments = arguments
        self.remains = plain_attributes_of(block)
        self.training = block.training

    @abstractmethod
    def carry(self, stream: Tensor) -> Tensor:
        """Returns the stream behind the stand-in; that of a block has the shape of the stream before it."""

    @abstractmethod
    def macs(self, shape: Sequence[int]) -> int:
        """Returns the multiply-adds that `carry` takes for a stream of this shape, batch included."""

    @abstractmethod
    def plain_form(self) -> tuple[str, dict[str, Any]]:
        """Returns the name of the class in `toolkit.stand_ins.plain` that computes the same, and its arguments.

        Raises:
            ExportError: there is none; the message says why not, and what to do instead.
        """

    def fault(self) -> str | None:
        """Returns in words what is wrong with the shapes of the weights; None if they agree with one another."""
        return None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the stream behind the stand-in in the structure of the block's output."""
        stream = stream_in((args, kwargs))
        assert stream is not None
        return self.arguments.structure.wrap(self.carry(stream), args, kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)  # the stand-in's own layers come before the attributes of the block
        except AttributeError:
            remains = self.__dict__.get("remains")
            if not hasattr(remains, name):
                raise
            return getattr(remains, name)
