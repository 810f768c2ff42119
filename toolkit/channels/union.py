"""Groups of a model that has several ways to run: proposed on each way that runs other layers, and joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from toolkit.channels.calls import used_parameters
from toolkit.channels.groups import ChannelGroup, Slot, Structure
from toolkit.channels.layers import input_weights, is_leaf, mixes_channels, output_weights, own_parameters
from toolkit.channels.propose import propose_groups
from toolkit.hooks.paths import Path, called
from toolkit.stand_ins.contract import StandIn


@dataclass(frozen=True)
class _Found:
    """What one way has: the modules that it calls, and their groups."""

    path: Path
    ran: frozenset[str]
    structure: Structure


def propose_on(
    model: nn.Module, paths: Sequence[Path], blocks: Sequence[str], protected: Sequence[str] = ()
) -> Structure:
    """Returns the groups of `propose_groups`, with the layers of all ways that read or write a group's channels.

    A group is refused where ways disagree, or where a layer that no way runs may read or write its channels.
    """
    found: list[_Found] = []
    known: set[tuple[str, ...]] = set()
    for path in paths:
        order = tuple(called(model, path))
        if order not in known:  # else the same layers run in the same order: the proof of a cut sees what differs
            known.add(order)
            found.append(_Found(path, frozenset(order), propose_groups(model, path, blocks, protected)))
    structure = found[0].structure if len(found) == 1 else _united(found)
    return _apart_from_unused(model, structure, _never_run(model, found))


def _united(found: Sequence[_Found]) -> Structure:
    refused: dict[str, str] = {}
    for one in found:
        refused = {name: f"{reason} {one.path.words}" for name, reason in one.structure.refused.items()} | refused
    groups: list[ChannelGroup] = []
    for group in (group for one in found for group in one.structure.groups):
        new: ChannelGroup | None = group
        for old in [old for old in groups if _overlap(old, group)]:
            groups.remove(old)
            if new is not None and _joined(old, new) is None:
                refused[old.name] = "its channels lie elsewhere in another way to run the model"
            new = None if new is None else _joined(old, new)
        if new is not None:
            groups.append(new)
    kept = []
    for group in groups:
        fault = next(_missing(group, found), None)
        if fault is None:
            kept.append(group)
            refused.pop(group.name, None)
        else:
            refused[group.name] = fault
    return Structure(tuple(kept), refused)


def _same_place(one: Slot, other: Slot) -> bool:
    """Whether two slots are of the same dimension of the same tensor, and have an index in common."""
    keys = [(slot.module, slot.role, slot.dim, slot.tensor) for slot in (one, other)]
    return keys[0] == keys[1] and not _indices(one).isdisjoint(_indices(other))


def _indices(slot: Slot) -> set[int]:
    return {index for unit in slot.places for index in unit}


def _overlap(one: ChannelGroup, other: ChannelGroup) -> bool:
    return any(_same_place(slot, part) for slot in one.slots for part in other.slots)


def _joined(one: ChannelGroup, other: ChannelGroup) -> ChannelGroup | None:
    """One group with the slots of both; None if they number the units of a common slot differently."""
    is_like = one.num_units == other.num_units and (one.kind == "attention") == (other.kind == "attention")
    pairs = [(slot, part) for slot in one.slots for part in other.slots if _same_place(slot, part)]
    if not is_like or one.owner != other.owner or any(slot.places != part.places for slot, part in pairs):
        return None
    more = [part for part in other.slots if part not in one.slots]
    order = {"out": 0, "through": 1, "tensor": 1, "in": 2}
    slots = tuple(sorted((*more, *one.slots), key=lambda slot: order[slot.role]))  # the last reader is the first way's
    kind = one.kind if one.kind == other.kind else "embedding"
    return replace(one, kind=kind, slots=slots)


def _missing(group: ChannelGroup, found: Sequence[_Found]) -> Iterator[str]:
    """Yields why a layer of the group cannot be cut on a way that runs it."""
    for one in found:
        slots = [slot for own in one.structure.groups for slot in own.slots]
        for slot in group.slots:
            is_layer = slot.role in ("out", "in") and slot.module in one.ran
            if is_layer and not any(_same_place(slot, other) for other in slots):
                reasons = one.structure.refused
                why = reasons.get(slot.module) or reasons.get(group.name) or "its channels cannot be told apart"
                yield f"{why} {one.path.words}"


def _never_run(model: nn.Module, found: Sequence[_Found]) -> dict[str, nn.Module]:
    """Layers and leaves that no way calls or computes with."""
    ran = {name for one in found for name in one.ran}
    stand_ins = [name for name, module in model.named_modules() if isinstance(module, StandIn)]
    left = {
        name: module
        for name, module in model.named_modules()
        if name not in ran and (mixes_channels(module) or (is_leaf(module) and own_parameters(module)))
        if not any(name.startswith(f"{place}.") for place in stand_ins)
    }
    if left:
        used: set[int] = set()
        for one in found:
            with one.path.taken(model), torch.no_grad():
                used |= used_parameters(model, one.path.inputs)
        left = {name: module for name, module in left.items() if not _uses(module, used)}
    return left


def _uses(module: nn.Module, used: set[int]) -> bool:
    return any(id(parameter) in used for parameter in own_parameters(module).values())


def _apart_from_unused(model: nn.Module, structure: Structure, unused: dict[str, nn.Module]) -> Structure:
    refused, kept = dict(structure.refused), []
    for name in unused:
        refused.setdefault(name, "is run by no example inputs; give some that do (other_inputs of the task)")
    for group in structure.groups:
        near = _common_parent(group)
        sizes = {size for slot in group.slots for size in _sizes(model.get_submodule(slot.module))} | {group.width}
        own = (name for name, module in unused.items() if name.startswith(near) and sizes & _sizes(module))
        reader = next(own, None)
        if reader is None:
            kept.append(group)
        else:
            refused[group.name] = (
                f"{reader}, which is run by no example inputs, may read or write its channels; give inputs that run it "
                "(other_inputs of the task)"
            )
    return Structure(tuple(kept), refused)


def _common_parent(group: ChannelGroup) -> str:
    """The names of the innermost module with all layers of the group begin with this."""
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
    """The numbers of channels that a layer reads and writes; of other leaves those of their parameters."""
    if mixes_channels(module):
        return {len(output_weights(module)), len(input_weights(module))}
    return {size for parameter in own_parameters(module).values() for size in parameter.shape if size > 1}
