"""Joins the groups of a model that has several ways to run: each way shows the groups of the layers that it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from toolkit.blocks.dropped import stand_ins_of
from toolkit.channels.calls import used_parameters
from toolkit.channels.groups import ChannelGroup, Slot, Structure
from toolkit.channels.layers import input_weights, is_leaf, mixes_channels, output_weights, own_parameters
from toolkit.channels.propose import propose_groups
from toolkit.hooks.paths import Path, called
from toolkit.stand_ins.contract import StandIn

DYNAMIC = "is a dynamic layer of the stage va_red, whose channels stay: cut channels before that stage"


@dataclass(frozen=True)
class _Way:
    """Holds the modules that one way to run the model calls, and the groups that this way shows."""

    path: Path
    ran: frozenset[str]
    structure: Structure


def propose_on(
    model: nn.Module, paths: Sequence[Path], blocks: Sequence[str], protected: Sequence[str] = ()
) -> Structure:
    """Returns the groups of `propose_groups`, joined over all ways to run the model.

    A group is refused if two ways disagree, or if a layer that no way runs may read or write its channels.
    """
    ways: list[_Way] = []
    orders: set[tuple[str, ...]] = set()
    for path in paths:
        order = tuple(called(model, path))
        if order not in orders:  # what differs between ways of one order is left to the proof of a cut
            orders.add(order)
            ways.append(_Way(path, frozenset(order), propose_groups(model, path, blocks, protected)))
    structure = ways[0].structure if len(ways) == 1 else _united(ways)
    return _apart_from_dynamic(model, _apart_from_unused(model, structure, _never_run(model, ways)))


def _apart_from_dynamic(model: nn.Module, structure: Structure) -> Structure:
    """Returns the structure without the channels of dynamic layers, whose maps and gates are made for all of them."""
    layers = [name for name, module in stand_ins_of(model).items() if module.replaces == "layer"]
    if not layers:
        return structure

    def is_inside(name: str) -> bool:
        return any(name == layer or name.startswith(f"{layer}.") for layer in layers)

    def reason_of(reason: str) -> str:
        """Returns a reason that names a part of a dynamic layer with the layer and what it is instead."""
        layer = next((layer for layer in layers if f" {layer}." in reason), None)
        return reason if layer is None else f"is read by {layer}, which {DYNAMIC}"

    groups = [group for group in structure.groups if not any(is_inside(slot.module) for slot in group.slots)]
    refused = {name: reason_of(reason) for name, reason in structure.refused.items() if not is_inside(name)}
    return Structure(tuple(groups), refused | dict.fromkeys(layers, DYNAMIC))


def _united(ways: Sequence[_Way]) -> Structure:
    refused: dict[str, str] = {}
    for way in ways:
        refused = {name: f"{reason} {way.path.words}" for name, reason in way.structure.refused.items()} | refused
    groups: list[ChannelGroup] = []
    for group in (group for way in ways for group in way.structure.groups):
        new: ChannelGroup | None = group
        for old in [old for old in groups if _overlap(old, group)]:
            groups.remove(old)
            if new is not None and _joined(old, new) is None:
                refused[old.name] = "its channels have other places in another way to run the model"
            new = None if new is None else _joined(old, new)
        if new is not None:
            groups.append(new)
    groups_left = []
    for group in groups:
        fault = next(_missing(group, ways), None)
        if fault is None:
            groups_left.append(group)
            refused.pop(group.name, None)
        else:
            refused[group.name] = fault
    return Structure(tuple(groups_left), refused)


def _same_place(one: Slot, other: Slot) -> bool:
    """Says whether two slots are of the same dimension of the same tensor, and have an index in common."""
    keys = [(slot.module, slot.role, slot.dim, slot.tensor) for slot in (one, other)]
    return keys[0] == keys[1] and not _indices(one).isdisjoint(_indices(other))


def _indices(slot: Slot) -> set[int]:
    return {index for unit in slot.places for index in unit}


def _overlap(one: ChannelGroup, other: ChannelGroup) -> bool:
    return any(_same_place(slot, part) for slot in one.slots for part in other.slots)


def _joined(one: ChannelGroup, other: ChannelGroup) -> ChannelGroup | None:
    """Returns one group with the slots of both, or None if they number the units of a common slot differently."""
    is_like = one.num_units == other.num_units and (one.kind == "attention") == (other.kind == "attention")
    pairs = [(slot, part) for slot in one.slots for part in other.slots if _same_place(slot, part)]
    if not is_like or one.owner != other.owner or any(slot.places != part.places for slot, part in pairs):
        return None
    more = [part for part in other.slots if part not in one.slots]
    order = {"out": 0, "through": 1, "tensor": 1, "in": 2}
    slots = tuple(sorted((*more, *one.slots), key=lambda slot: order[slot.role]))  # keeps the last reader of `one`
    kind = one.kind if one.kind == other.kind else "embedding"
    return replace(one, kind=kind, slots=slots)


def _missing(group: ChannelGroup, ways: Sequence[_Way]) -> Iterator[str]:
    """Yields why a layer of the group cannot be cut on a way that runs it."""
    for way in ways:
        slots = [slot for way_group in way.structure.groups for slot in way_group.slots]
        for slot in group.slots:
            is_layer = slot.role in ("out", "in") and slot.module in way.ran
            if is_layer and not any(_same_place(slot, other) for other in slots):
                reasons = way.structure.refused
                why = reasons.get(slot.module) or reasons.get(group.name) or "its channels cannot be told apart"
                yield f"{why} {way.path.words}"


def _never_run(model: nn.Module, ways: Sequence[_Way]) -> dict[str, nn.Module]:
    """Returns the layers and leaves that no way calls or computes with."""
    ran = {name for way in ways for name in way.ran}
    stand_ins = [name for name, module in model.named_modules() if isinstance(module, StandIn)]
    never_run = {
        name: module
        for name, module in model.named_modules()
        if name not in ran and (mixes_channels(module) or (is_leaf(module) and own_parameters(module)))
        if not any(name.startswith(f"{place}.") for place in stand_ins)
    }
    if never_run:
        used: set[int] = set()
        for way in ways:
            with way.path.taken(model), torch.no_grad():
                used |= used_parameters(model, way.path)
        never_run = {name: module for name, module in never_run.items() if not _uses(module, used)}
    return never_run


def _uses(module: nn.Module, used: set[int]) -> bool:
    return any(id(parameter) in used for parameter in own_parameters(module).values())


def _apart_from_unused(model: nn.Module, structure: Structure, unused: dict[str, nn.Module]) -> Structure:
    refused, groups = dict(structure.refused), []
    for name in unused:
        refused.setdefault(name, "is run by no example inputs; give some that do (other_inputs of the task)")
    for group in structure.groups:
        near = _common_parent(group)
        sizes = {size for slot in group.slots for size in _sizes(model.get_submodule(slot.module))} | {group.width}
        possible_readers = (name for name, module in unused.items() if name.startswith(near) and sizes & _sizes(module))
        reader = next(possible_readers, None)
        if reader is None:
            groups.append(group)
        else:
            refused[group.name] = (
                f"{reader}, which is run by no example inputs, may read or write its channels; give inputs that run it "
                "(other_inputs of the task)"
            )
    return Structure(tuple(groups), refused)


def _common_parent(group: ChannelGroup) -> str:
    """Returns the name of the innermost module around all layers of the group with a dot behind it, or ""."""
    parents = [slot.module.split(".")[:-1] for slot in group.slots]
    shared = []
    for parts in zip(*_of_equal_length(parents), strict=True):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def _of_equal_length(names: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    shortest = min(map(len, names))
    return [name[:shortest] for name in names]


def _sizes(module: nn.Module) -> set[int]:
    """Returns the numbers of channels that a layer reads and writes, or the sizes of the parameters of another leaf."""
    if mixes_channels(module):
        return {len(output_weights(module)), len(input_weights(module))}
    return {size for parameter in own_parameters(module).values() for size in parameter.shape if size > 1}
