"""All groups of a model that can be cut, each tried out on a copy: what fails is refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from toolkit.channels.cut import KeptUnits, cut, parts_of
from toolkit.channels.groups import ChannelGroup, Structure
from toolkit.channels.proof import TOLERANCE, cut_error
from toolkit.channels.shared import join_shared
from toolkit.channels.union import propose_on
from toolkit.hooks.copies import copy_model
from toolkit.hooks.paths import Path

_INNER_NAMES = ("head", "attn", "inner", "qk", "value")  # words in the names of what holds the width of all heads


def find_groups(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    blocks: Sequence[str],
    protected: Sequence[str] = (),
    others: Sequence[Path] = (),
) -> Structure:
    """The groups of `propose_on` that compute the right thing when half of their units are gone.

    `protected` are patterns (see `toolkit.channels.patterns`) of layers that keep their outputs. `others`: more ways
    to run the model than in eval mode on the inputs (see `find_paths`). The model is left as it was.
    """
    paths = (Path(inputs), *others)
    proposed = propose_on(model, paths, blocks, protected)
    refused = dict(proposed.refused)
    groups = list(_settled(model, join_shared(model, proposed.groups, refused), paths, refused))
    if groups and _fault(model, groups, paths) is not None:
        faults = {group.name: _fault(model, [group], paths) for group in groups}
        refused |= {name: fault for name, fault in faults.items() if fault is not None}
        groups = [group for group in groups if faults[group.name] is None]
    return Structure(tuple(groups), refused)


def without_modules(structure: Structure, reasons: Mapping[str, str]) -> Structure:
    """Returns the structure less the groups that have a layer among these modules, with the reason for each."""
    refused = dict(structure.refused)
    for group in structure.groups:
        layer = next((slot.module for slot in group.slots if slot.module in reasons), None)
        if layer is not None:
            refused[group.name] = f"{layer}: {reasons[layer]}"
    return Structure(tuple(group for group in structure.groups if group.name not in refused), refused)


def half_of(group: ChannelGroup) -> KeptUnits:
    """Every second unit stays."""
    return KeptUnits(group, tuple(range(0, group.num_units, 2)))


def half_dims_of(group: ChannelGroup) -> KeptUnits:
    """Every second channel of every head stays."""
    inner = tuple(range(0, group.head_dim, 2))
    return KeptUnits(group, tuple(range(group.num_units)), (inner,) * group.num_units)


def _settled(
    model: nn.Module, groups: Sequence[ChannelGroup], paths: Sequence[Path], refused: dict[str, str]
) -> Iterator[ChannelGroup]:
    """Attention groups with those attributes that have to be patched, found once for each class of owner."""
    known: dict[tuple[type, tuple[str, ...]], tuple[ChannelGroup | None, str]] = {}
    for group in groups:
        if group.kind != "attention":
            yield group
            continue
        key = (type(model.get_submodule(group.owner)), group.width_attributes)
        if key not in known:
            known[key] = _settle(model, group, paths)
        pattern, fault = known[key]
        if pattern is None:
            refused[group.name] = fault
        else:
            yield replace(group, width_attributes=pattern.width_attributes, dims_are_free=pattern.dims_are_free)


def _settle(model: nn.Module, group: ChannelGroup, paths: Sequence[Path]) -> tuple[ChannelGroup | None, str]:
    names = group.width_attributes
    likely = tuple(name for name in names if any(word in name for word in _INNER_NAMES))
    first = ""
    for chosen in dict.fromkeys([likely, (), names, *((name,) for name in names)]):
        trial = replace(group, width_attributes=chosen)
        fault = _fault(model, [trial], paths)
        if fault is None:
            dims = group.head_dim > 1 and _fault_of(model, [half_dims_of(trial)], paths) is None
            return replace(trial, dims_are_free=dims), ""
        first = first or fault
    return None, first


def _fault(model: nn.Module, groups: Sequence[ChannelGroup], paths: Sequence[Path]) -> str | None:
    return _fault_of(model, [half_of(group) for group in groups], paths)


def _fault_of(model: nn.Module, choices: Sequence[KeptUnits], paths: Sequence[Path]) -> str | None:
    """Why this cut would go wrong; None if a copy of the model computes what it should."""
    narrow = copy_model(model)
    try:
        cut(narrow, choices)
        error = cut_error(model, narrow, parts_of(choices), paths[0].inputs, paths[1:])
    except (ValueError, RuntimeError, IndexError, AssertionError, AttributeError) as fault:
        return f"it cannot be cut: {fault}"
    return None if error <= TOLERANCE else f"cut in half it computes something else (off by {error:.2g})"
