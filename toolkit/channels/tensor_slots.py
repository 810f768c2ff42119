"""Parameters and buffers beside the layers that share a group's channels: scales, positions, tables of heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from toolkit.channels.groups import ChannelGroup, Places, Slot, Structure
from toolkit.channels.layers import is_leaf, mixes_channels
from toolkit.channels.layout import candidate_layouts, random_units, spread_units
from toolkit.channels.replay import Replay, Source


def tensor_slots(model: nn.Module, replay: Replay, groups: list[ChannelGroup], refused: dict[str, str]) -> Structure:
    """The groups with the tensors that belong to them; a group that a tensor mixes up is refused."""
    found = {group.name: group for group in groups}
    for module, name, tensor in _own_tensors(model, replay):
        for dim, size in enumerate(tensor.shape):
            touched = _touched(replay, Source(module, name, dim), size, found)
            for group in touched:
                slot = _slot(replay, Source(module, name, dim), size, group)
                if slot is not None:
                    found[group.name] = replace(group, slots=(*group.slots, slot))
    return Structure(tuple(found.values()), refused)


def _own_tensors(model: nn.Module, replay: Replay) -> Iterator[tuple[str, str, Tensor]]:
    """Floating-point parameters and buffers of modules that are no layers and lie in no opaque module."""
    for name, module in model.named_modules():
        if mixes_channels(module) or name in replay.leaves or (is_leaf(module) and name in replay.order):
            continue
        if any(name == top or name.startswith(f"{top}.") for top in replay.opaque):
            continue
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        yield from ((name, leaf, tensor) for leaf, tensor in own if tensor.is_floating_point() and tensor.numel() > 1)


def _touched(replay: Replay, source: Source, size: int, groups: dict[str, ChannelGroup]) -> list[ChannelGroup]:
    """Groups whose units this dimension could hold, and whose readers change when the tensor does."""
    could = [group for group in groups.values() if size > 1 and size % group.num_units == 0]
    if not could:
        return []
    found = replay.respond({source: torch.ones(size, dtype=torch.bool)})
    return [group for group in could if set(group.consumers) & set(found.read)]


def _slot(replay: Replay, source: Source, size: int, group: ChannelGroup) -> Slot | None:
    for places in candidate_layouts(size, group.num_units):
        if all(_fits(replay, source, size, places, group, seed) for seed in range(2)):
            return Slot(source.module, "tensor", places, dim=source.dim, tensor=source.tensor)
    return None


def _fits(replay: Replay, source: Source, size: int, places: Places, group: ChannelGroup, seed: int) -> bool:
    """Whether a change of some units of the tensor reaches the group's readers in just those units."""
    units = random_units(group.num_units, seed)
    found = replay.respond({source: spread_units(places, units, size)})
    readers = {slot.module: slot.places for slot in group.slots if slot.role == "in"}
    changed = found.read.keys() & readers.keys()
    if not changed:
        return False
    return all(
        not bool((found.read[name] & ~spread_units(readers[name], units, len(found.read[name]))).any())
        and bool(found.read[name].any())
        for name in changed
    )
