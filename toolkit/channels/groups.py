"""Describes what can be cut: groups of channels that several layers share, as plain data."""

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
    """Says where the units of a group are along one dimension of a layer.

    role: `out` for the outputs of a layer, `in` for its inputs. `through` for a layer that works on each channel alone
        or on statistics of channels, such as norms, depthwise and grouped convolutions and scales. `tensor` for a
        parameter or buffer of a module that is no layer.
    places: the indices of each unit in the dimension.
    dim: for `through` the dimension of the layer's input that holds the channels, for `tensor` that of the tensor.
    tensor: the name of the parameter or buffer.
    shared: indices that belong to no unit and stay.
    """

    module: str
    role: Role
    places: Places
    dim: int = 0
    tensor: str = ""
    shared: tuple[int, ...] = ()

    @cached_property
    def size(self) -> int:
        """Returns the number of indices that belong to units."""
        return sum(map(len, self.places))


@dataclass(frozen=True)
class Patch:
    """Names an attribute of `module` that the forward code reads and that has to shrink with a cut.

    follows: whether the value is proportional to the number of units, to the channels of each unit, or to both.
    places: the entries that shrink, if the value is a tuple or list.
    value: the value when the group was found, if it is a number.
    """

    module: str
    attribute: str
    follows: Literal["units", "channels", "width"]
    places: tuple[int, ...] = ()
    value: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Describes units that can be removed one by one: channels, groups of a grouped convolution, or attention heads.

    A group of the kind `embedding` is the width of a residual stream, with all layers that read or write it. In
    attention the units are heads of `head_dim` channels. Where query heads share a key head, a unit is a key head with
    its query heads; where all query heads share one key head, it is a query head.
    """

    name: str
    kind: Kind
    slots: tuple[Slot, ...]
    num_units: int
    owner: str = ""
    patches: tuple[Patch, ...] = ()
    dims_are_free: bool = False  # channels within heads can be cut too
    signature: str = field(default="", compare=False)  # equal for groups whose layers have equal types and shapes

    @property
    def producers(self) -> tuple[str, ...]:
        """Returns the names of the layers whose outputs are cut."""
        return tuple(slot.module for slot in self.slots if slot.role == "out")

    @property
    def consumers(self) -> tuple[str, ...]:
        """Returns the names of the layers whose inputs are cut."""
        return tuple(slot.module for slot in self.slots if slot.role == "in")

    @property
    def reader(self) -> Slot:
        """Returns the inputs of the last layer that reads the group, where the importance of channels is measured."""
        return next(slot for slot in reversed(self.slots) if slot.role == "in")

    @cached_property
    def width(self) -> int:
        """Returns the number of channels at the inputs of the layers that read the group."""
        return self.reader.size

    @property
    def head_dim(self) -> int:
        """Returns the number of channels in each unit."""
        return self.width // self.num_units


@dataclass(frozen=True)
class Structure:
    """Holds all groups of a model in execution order.

    refused: why other channels cannot be cut, by the name of a layer or group.
    """

    groups: tuple[ChannelGroup, ...]
    refused: dict[str, str]

    def of_kind(self, kind: Kind) -> tuple[ChannelGroup, ...]:
        """Returns the groups of one kind."""
        return tuple(group for group in self.groups if group.kind == kind)


def still_there(groups: Iterable[ChannelGroup], model: nn.Module) -> list[ChannelGroup]:
    """Returns groups as they are after blocks were dropped, without those that no layer writes or reads any more.

    A linear bypass in the place of a block reads and writes the residual stream as the block did.
    """
    stand_ins = stand_ins_of(model)
    names = (name for name, _ in model.named_modules())
    present = {name for name in names if not any(name == place or name.startswith(f"{place}.") for place in stand_ins)}
    bypasses = {name: module for name, module in stand_ins.items() if isinstance(module, LinearBypass)}
    remaining = []
    for group in groups:
        placed = {place: slot for place, slot in enumerate(group.slots) if slot.module in present}
        if group.kind == "embedding":
            for name, bypass in bypasses.items():
                placed |= _slots_of(group, name, bypass)
        remaining.append(replace(group, slots=tuple(placed[place] for place in sorted(placed))))
    return [group for group in remaining if group.producers and group.consumers]


def _slots_of(group: ChannelGroup, block: str, bypass: LinearBypass) -> dict[int, Slot]:
    """Returns the slots of a bypass in the residual stream, by the positions of the block's own slots in the group."""
    of_block = {place: slot for place, slot in enumerate(group.slots) if slot.module.startswith(f"{block}.")}
    layers: dict[Role, str] = {"out": f"{block}.{bypass.last}", "in": f"{block}.{bypass.first}"}
    slots: dict[int, Slot] = {}
    for role, layer in layers.items():
        same_role = {place: slot for place, slot in of_block.items() if slot.role == role}
        whole = [slot.places for slot in of_block.values() if slot.size == bypass.arguments.channels]
        if same_role and whole:
            slots[min(same_role)] = Slot(layer, role, whole[0])
    return slots
