"""Finds attributes in which forward code keeps numbers of heads and widths, so that a cut can update them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from toolkit.channels.groups import ChannelGroup, Patch
from toolkit.channels.heads import speaks_of_heads
from toolkit.channels.layers import NORMS

_INNER_NAMES = ("head", "attn", "inner", "qk", "value")  # words in names of attributes with the width of all heads

_OTHER_COUNTS = ("group", "rep", "num", "n_")  # words in names of other counts that may follow a cut

MOST_TRIALS = 24


def trials(model: nn.Module, group: ChannelGroup) -> Iterator[tuple[Patch, ...]]:
    """Yields sets of attributes that may have to follow a cut of the group, likely sets first; the caller tries them.

    For attention these are numbers of heads with inner widths, then the numbers of heads alone, then more widths. For
    other groups the first set is empty. A number of heads may equal a number of channels: the name of the attribute
    decides.
    """
    heads, inner, widths, others = _candidates(model, group)
    if group.kind == "attention":
        likely = [heads + inner, heads, (), heads + inner + widths, heads + inner + widths + others]
        single = [(*heads, patch) for patch in (*others, *inner, *widths)]
        single += [(patch,) for patch in (*heads, *inner, *widths)]
    else:
        likely = [(), inner + widths, inner + widths + others]
        single = [(patch,) for patch in (*inner, *widths, *others, *heads)]
    tried = [
        tuple({(patch.module, patch.attribute): patch for patch in reversed(chosen)}.values())
        for chosen in likely + single
    ]
    yield from list(dict.fromkeys(tuple(sorted(patches, key=str)) for patches in tried))[:MOST_TRIALS]


def follows_by_name(model: nn.Module, group: ChannelGroup, patch: Patch) -> bool:
    """Says whether an attention's attribute is told of a cut even where no pass reads it.

    Its name speaks of heads or of their width, and code that was not run, such as that for cached keys, may read it.
    """
    is_inner = any(word in patch.attribute for word in _INNER_NAMES)
    is_inner &= (patch.module, patch.attribute) not in _widths_of_one_head(model, group)
    return group.kind == "attention" and (is_inner or speaks_of_heads(patch.attribute))


def with_dims(model: nn.Module, group: ChannelGroup) -> ChannelGroup:
    """Returns the group with the attributes that hold the width of one head added to its patches.

    They follow a cut of channels within heads.
    """
    taken = {(patch.module, patch.attribute) for patch in group.patches}
    dims = [
        Patch(name, attribute, "channels", value=value)
        for name, attribute, value in _numbers(model, group)
        if isinstance(value, int) and value == group.head_dim > 1 and ("head" in attribute or "size" in attribute)
        if (name, attribute) not in taken and not speaks_of_heads(attribute)
    ]
    return replace(group, patches=(*group.patches, *dims))


def _candidates(model: nn.Module, group: ChannelGroup) -> tuple[tuple[Patch, ...], ...]:
    """Returns patches for numbers of heads, inner widths, other widths, and other counts of units, in this order."""
    units = group.num_units
    sizes = {slot.size for slot in group.slots}
    heads, inner, widths, others = list[Patch](), list[Patch](), list[Patch](), list[Patch]()
    for name, attribute, value in _numbers(model, group):
        if isinstance(value, int):
            if value < units or value % units:
                continue
            is_width = any(size % value == 0 for size in sizes)
            if speaks_of_heads(attribute):
                heads.append(Patch(name, attribute, "units", value=value))
                continue
            if is_width and not (value == group.head_dim and "dim" in attribute and "head" in attribute):
                patches = inner if any(word in attribute for word in _INNER_NAMES) else widths
                patches.append(Patch(name, attribute, "width", value=value))
            if any(word in attribute for word in _OTHER_COUNTS):
                others.append(Patch(name, attribute, "units", value=value))
        else:
            places = tuple(place for place, entry in enumerate(value) if entry >= units and entry % units == 0)
            if places:
                widths.append(Patch(name, attribute, "width", places))
            if len(places) > 1:
                others += [Patch(name, attribute, "width", (place,)) for place in places]
    return tuple(heads), tuple(inner), tuple(widths), tuple(others)


def _widths_of_one_head(model: nn.Module, group: ChannelGroup) -> set[tuple[str, str]]:
    """Returns the modules and attributes that hold the channels of one head, which a cut of heads does not change.

    A unit has more channels than a head where several heads share a key head: the number of heads tells.
    """
    numbers = [(name, attribute, value) for name, attribute, value in _numbers(model, group) if isinstance(value, int)]
    counts = {value for _, attribute, value in numbers if speaks_of_heads(attribute) and value > 1}
    return {
        (name, attribute)
        for name, attribute, value in numbers
        if not speaks_of_heads(attribute) and any(value * count == group.width for count in counts)
    }


def _numbers(model: nn.Module, group: ChannelGroup) -> Iterator[tuple[str, str, int | Sequence[int]]]:
    """Yields the integers, and the tuples and lists of integers, in attributes of the modules of `around`."""
    for name in around(model, group):
        for attribute, value in vars(model.get_submodule(name)).items():
            if attribute.startswith("_"):
                continue
            if type(value) is int or (
                isinstance(value, (tuple, list)) and 0 < len(value) <= 16 and all(type(entry) is int for entry in value)
            ):
                yield name, attribute, value


def around(model: nn.Module, group: ChannelGroup) -> list[str]:
    """Returns the modules whose attributes may follow a cut: those around the group's layers.

    Their children without parameters, such as nn.Unflatten, are included. Groups of the same form get the same order.
    """
    names: dict[str, None] = {}
    for slot in group.slots:
        name = slot.module
        for _ in range(2):
            if name:
                name = name.rpartition(".")[0]
                names[name] = None
    for name in list(names):
        for child, module in model.get_submodule(name).named_children():
            if not any(True for _ in module.parameters()) and not isinstance(module, (nn.Dropout, *NORMS)):
                names[f"{name}.{child}" if name else child] = None
    return list(names)
