"""What can be cut: groups of channels that different layers share, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from torch import nn

from toolkit.blocks.dropped import stand_ins_of
from toolkit.stand_ins.linear_bypass import LinearBypass

Kind = Literal["mlp", "attention", "conv", "embedding"]

Role = Literal["out", "in", "through", "tensor"]

Places = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Slot:
    """Where a group's units lie along one dimension: `places[unit]` are its indices there.

    `out`: the outputs of a layer; `in`: the inputs of one. `through`: a layer that works on every channel alone, or
    on its statistics (norms, depthwise and grouped convolutions, scales), whose input has the channels at dimension
    `dim`. `tensor`: dimension `dim` of the parameter or buffer `tensor` that a module of other layers owns. `shared`:
    indices of no unit, which stay.
    """

    module: str
    role: Role
    places: Places
    dim: int = 0
    tensor: str = ""
    shared: tuple[int, ...] = ()

    @cached_property
    def size(self) -> int:
        return sum(map(len, self.places))


@dataclass(frozen=True)
class Patch:
    """An attribute of `module` that the forward code reads and that has to shrink with a cut.

    follows: the number of units, the channels of each (a head's), or both, as a width does. places: the entries of a
    tuple or list that shrink. value: a number as it was when the group was found.
    """

    module: str
    attribute: str
    follows: Literal["units", "channels", "width"]
    places: tuple[int, ...] = ()
    value: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Units that can be removed on their own: single channels, groups of a grouped convolution, attention heads.

    `embedding` is the width of a residual stream: of all layers between two changes of it. In attention the units are
    heads, of `head_dim` channels each; where query heads share a key head, a unit is a key head with its query heads,
    or one of the query heads where all share one key head.
    """

    name: str
    kind: Kind
    slots: tuple[Slot, ...]
    num_units: int
    owner: str = ""
    patches: tuple[Patch, ...] = ()
    dims_are_free: bool = False  # channels within heads can be cut too
    signature: str = field(default="", compare=False)  # equal for groups whose layers have the same types and shapes

    @property
    def producers(self) -> tuple[str, ...]:
        return tuple(slot.module for slot in self.slots if slot.role == "out")

    @property
    def consumers(self) -> tuple[str, ...]:
        return tuple(slot.module for slot in self.slots if slot.role == "in")

    @property
    def reader(self) -> Slot:
        """The inputs of the last layer that reads the group: what its channels are worth is measured there."""
        return next(slot for slot in reversed(self.slots) if slot.role == "in")

    @cached_property
    def width(self) -> int:
        """Channels as the layers that read them count them."""
        return self.reader.size

    @property
    def head_dim(self) -> int:
        return self.width // self.num_units


@dataclass(frozen=True)
class Structure:
    """All groups of a model in execution order; why others cannot be cut, by the name of a layer or group."""

    groups: tuple[ChannelGroup, ...]
    refused: dict[str, str]

    def of_kind(self, kind: Kind) -> tuple[ChannelGroup, ...]:
        return tuple(group for group in self.groups if group.kind == kind)


def still_there(groups: Iterable[ChannelGroup], model: nn.Module) -> list[ChannelGroup]:
    """Groups as they are in a model from which blocks were dropped since; without those that nobody reads any more.

    A bypass in the place of a block reads and writes the stream that the block did.
    """
    gone = stand_ins_of(model)
    names = (name for name, _ in model.named_modules())
    there = {name for name in names if not any(name == one or name.startswith(f"{one}.") for one in gone)}
    bypasses = {name: one for name, one in gone.items() if isinstance(one, LinearBypass)}
    left = []
    for one in groups:
        placed = {place: slot for place, slot in enumerate(one.slots) if slot.module in there}
        if one.kind == "embedding":
            for name, bypass in bypasses.items():
                placed |= _slots_of(one, name, bypass)
        left.append(replace(one, slots=tuple(placed[place] for place in sorted(placed))))
    return [one for one in left if one.producers and one.consumers]


def _slots_of(group: ChannelGroup, block: str, bypass: LinearBypass) -> dict[int, Slot]:
    """Slots of a bypass for the stream that the block read and wrote, in the places of the block's own."""
    own = {place: slot for place, slot in enumerate(group.slots) if slot.module.startswith(f"{block}.")}
    layers: dict[Role, str] = {"out": f"{block}.{bypass.last}", "in": f"{block}.{bypass.first}"}
    found: dict[int, Slot] = {}
    for role, layer in layers.items():
        same = {place: slot for place, slot in own.items() if slot.role == role}
        whole = [slot.places for slot in own.values() if slot.size == bypass.arguments.channels]
        if same and whole:
            found[min(same)] = Slot(layer, role, whole[0])
    return found
