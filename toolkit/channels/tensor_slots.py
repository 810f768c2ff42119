"""Finds parameters and buffers outside of layers that share a group's channels: scales, positions, tables of heads."""

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
    """Returns the groups with slots for the tensors whose units they share.

    The proof of a cut finds tensors for which no slot fits.
    """
    by_name = {group.name: group for group in groups}
    for module, name, tensor in _own_tensors(model, replay):
        for dim, size in enumerate(tensor.shape):
            touched = _touched(replay, Source(module, name, dim), size, by_name)
            for group in touched:
                slot = _slot(replay, Source(module, name, dim), size, group)
                if slot is not None:
                    by_name[group.name] = replace(group, slots=(*group.slots, slot))
    return Structure(tuple(by_name.values()), refused)


def _own_tensors(model: nn.Module, replay: Replay) -> Iterator[tuple[str, str, Tensor]]:
    """Yields floating-point parameters and buffers of modules that are no layers and lie in no opaque module."""
    for name, module in model.named_modules():
        if mixes_channels(module) or name in replay.leaves or (is_leaf(module) and name in replay.order):
            continue
        if any(name == top or name.startswith(f"{top}.") for top in replay.opaque):
            continue
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        yield from (
            (name, leaf, tensor) for leaf, tensor in tensors if tensor.is_floating_point() and tensor.numel() > 1
        )


def _touched(replay: Replay, source: Source, size: int, groups: dict[str, ChannelGroup]) -> list[ChannelGroup]:
    """Returns the groups whose units could lie in this dimension, and whose readers change when the tensor does."""
    candidates = [group for group in groups.values() if size > 1 and size % group.num_units == 0]
    if not candidates:
        return []
    response = replay.respond({source: torch.ones(size, dtype=torch.bool)})
    return [group for group in candidates if set(group.consumers) & set(response.read)]


def _slot(replay: Replay, source: Source, size: int, group: ChannelGroup) -> Slot | None:
    for places in candidate_layouts(size, group.num_units):
        if all(_fits(replay, source, size, places, group, seed) for seed in range(2)):
            return Slot(source.module, "tensor", places, dim=source.dim, tensor=source.tensor)
    return None


def _fits(replay: Replay, source: Source, size: int, places: Places, group: ChannelGroup, seed: int) -> bool:
    """Says whether a change of some units of the tensor reaches the group's readers in just those units."""
    units = random_units(group.num_units, seed)
    response = replay.respond({source: spread_units(places, units, size)})
    readers = {slot.module: slot.places for slot in group.slots if slot.role == "in"}
    changed = response.read.keys() & readers.keys()
    if not changed:
        return False
    return all(
        not bool((response.read[name] & ~spread_units(readers[name], units, len(response.read[name]))).any())
        and bool(response.read[name].any())
        for name in changed
    )
