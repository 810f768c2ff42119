"""Groups whose layers share a tensor: they are cut as one, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from toolkit.channels.groups import ChannelGroup, Places, Slot
from toolkit.channels.layers import holders_of, is_transposed

Key = tuple[int, int]  # the id of a tensor that has several holders, and a dimension of it


def join_shared(model: nn.Module, groups: Sequence[ChannelGroup], refused: dict[str, str]) -> list[ChannelGroup]:
    """Returns the groups, those that cut the same dimension of one tensor joined.

    A group is refused where another holder of a tensor has no group, numbers its units in another way, or is an
    attention's, whose forward code is told of one module's heads only.
    """
    holders = holders_of(model)
    left = list(groups)
    while True:
        pair = next(_pairs(model, left, holders), None)
        if pair is None:
            break
        one, other, name = pair
        left = [group for group in left if group not in (one, other)]
        joined = None if other is None else _joined(one, other)
        if joined is not None and _agree(model, joined, holders):
            left.append(joined)
            continue
        for group in (one, other):
            if group is not None:
                refused[group.name] = f"shares a tensor with {name}, where the same channels cannot be cut"
    order = {group.name: place for place, group in enumerate(groups)}
    return sorted(left, key=lambda group: order[group.name])


def _pairs(
    model: nn.Module, groups: Sequence[ChannelGroup], holders: dict[int, list[tuple[str, str]]]
) -> Iterator[tuple[ChannelGroup, ChannelGroup | None, str]]:
    """Yields a group, another one (None: there is none) and the module by which they have to be cut together."""
    owners: dict[tuple[str, str, int], ChannelGroup] = {}
    for group in groups:
        owners |= {(slot.module, leaf, dim): group for slot in group.slots for leaf, dim in tensors_of(model, slot)}
    for group in groups:
        for slot in group.slots:
            for leaf, dim in tensors_of(model, slot):
                tensor = getattr(model.get_submodule(slot.module), leaf)
                own = [(slot.module, leaf)] if slot.role == "tensor" else []  # two groups may both have it
                for name, other in (*own, *holders.get(id(tensor), ())):
                    found = owners.get((name, other, dim))
                    if found is not group:
                        yield group, found, f"{name}.{other}" if name else other


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
    """Whether all slots number the units of a shared tensor alike."""
    places: dict[Key, Places] = {}
    for slot in group.slots:
        for leaf, dim in tensors_of(model, slot):
            tensor = getattr(model.get_submodule(slot.module), leaf)
            if id(tensor) in holders and places.setdefault((id(tensor), dim), slot.places) != slot.places:
                return False
    return True


def tensors_of(model: nn.Module, slot: Slot) -> list[tuple[str, int]]:
    """Returns the tensors of a slot's module that become smaller with it, and along which dimension."""
    module = model.get_submodule(slot.module)
    if slot.role == "tensor":
        return [(slot.tensor, slot.dim)]
    own = {name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)}
    if slot.role == "through":
        return [(name, 0) for name in sorted(own)]
    is_second = (slot.role == "out") == (isinstance(module, nn.Embedding) or is_transposed(module))
    found = [("weight", 1 if is_second else 0)] if "weight" in own else []
    if slot.role == "out" and "bias" in own:
        found.append(("bias", 0))
    return found
