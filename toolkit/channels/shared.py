"""Joins groups whose layers share a tensor, such as tied weights, so that they are cut as one or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from toolkit.channels.groups import ChannelGroup, Places, Slot
from toolkit.channels.layers import holders_of, is_transposed

Key = tuple[int, int]  # the id of a tensor that has several holders, and a dimension of it


def join_shared(model: nn.Module, groups: Sequence[ChannelGroup], refused: dict[str, str]) -> list[ChannelGroup]:
    """Returns the groups after those that cut the same dimension of one tensor were joined.

    A group is refused if another module with the tensor is in no group, numbers its units differently, or belongs to
    attention, whose forward code knows only the heads of its own module.
    """
    holders = holders_of(model)
    remaining = list(groups)
    while True:
        pair = next(_pairs(model, remaining, holders), None)
        if pair is None:
            break
        one, other, name = pair
        remaining = [group for group in remaining if group not in (one, other)]
        joined = None if other is None else _joined(one, other)
        if joined is not None and _agree(model, joined, holders):
            remaining.append(joined)
            continue
        for group in (one, other):
            if group is not None:
                refused[group.name] = f"shares a tensor with {name}, where the same channels cannot be cut"
    order = {group.name: place for place, group in enumerate(groups)}
    return sorted(remaining, key=lambda group: order[group.name])


def _pairs(
    model: nn.Module, groups: Sequence[ChannelGroup], holders: dict[int, list[tuple[str, str]]]
) -> Iterator[tuple[ChannelGroup, ChannelGroup | None, str]]:
    """Yields (group, other group, name of a tensor) where both groups would have to be cut together.

    The tensor is one of the group that is held in another place too; the other group is that of this place, or None.
    """
    owners: dict[tuple[str, str, int], ChannelGroup] = {}
    for group in groups:
        owners |= {(slot.module, leaf, dim): group for slot in group.slots for leaf, dim in tensors_of(model, slot)}
    for group in groups:
        for slot in group.slots:
            for leaf, dim in tensors_of(model, slot):
                tensor = getattr(model.get_submodule(slot.module), leaf)
                own = [(slot.module, leaf)] if slot.role == "tensor" else []  # two groups may both have it
                for name, other in (*own, *holders.get(id(tensor), ())):
                    owner = owners.get((name, other, dim))
                    if owner is not group:
                        yield group, owner, f"{name}.{other}" if name else other


def _joined(one: ChannelGroup, other: ChannelGroup) -> ChannelGroup | None:
    if one.num_units != other.num_units or "attention" in (one.kind, other.kind):
        return None
    kind = one.kind if one.kind == other.kind else "embedding"
    slots = dict.fromkeys((*one.slots, *other.slots))
    outs, ways, ends = ([slot for slot in slots if part(slot)] for part in _ORDER)
    return replace(one, kind=kind, slots=(*outs, *ways, *ends))


_ORDER = (
    lambda slot: slot.role == "out",
    lambda slot: slot.role in ("through", "tensor"),
    lambda slot: slot.role == "in",
)


def _agree(model: nn.Module, group: ChannelGroup, holders: dict[int, list[tuple[str, str]]]) -> bool:
    """Says whether all slots of a shared tensor have the same places."""
    places: dict[Key, Places] = {}
    for slot in group.slots:
        for leaf, dim in tensors_of(model, slot):
            tensor = getattr(model.get_submodule(slot.module), leaf)
            if id(tensor) in holders and places.setdefault((id(tensor), dim), slot.places) != slot.places:
                return False
    return True


def tensors_of(model: nn.Module, slot: Slot) -> list[tuple[str, int]]:
    """Returns the tensors of a slot's module that a cut makes smaller, each with the dimension."""
    module = model.get_submodule(slot.module)
    if slot.role == "tensor":
        return [(slot.tensor, slot.dim)]
    names = {name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)}
    if slot.role == "through":
        return [(name, 0) for name in sorted(names)]
    is_second = (slot.role == "out") == (isinstance(module, nn.Embedding) or is_transposed(module))
    tensors = [("weight", 1 if is_second else 0)] if "weight" in names else []
    if slot.role == "out" and "bias" in names:
        tensors.append(("bias", 0))
    return tensors
