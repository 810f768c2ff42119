"""All groups of a model that can be cut, each tried out on a copy: what fails is refused with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from toolkit.channels.cut import KeptUnits, cut, parts_of
from toolkit.channels.groups import ChannelGroup, Patch, Role, Slot, Structure
from toolkit.channels.patches import around, follows_by_name, trials, with_dims
from toolkit.channels.proof import TOLERANCE, cut_error
from toolkit.channels.shared import join_shared
from toolkit.channels.union import propose_on
from toolkit.hooks.copies import copy_model
from toolkit.hooks.paths import Path


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
    proposed = propose_on(model, paths, blocks, protected)  # groups that need each other mostly are neighbours
    refused = dict(proposed.refused)
    found = join_shared(model, proposed.groups, refused)
    known = _Settled(model, paths)
    groups = list(_without(found, lambda group: known.settle(group, group.kind == "attention"), refused))
    if any(chosen and _fault(model, chosen, paths) is not None for chosen in (groups, groups[::2], groups[1::2])):
        faults: dict[str, str] = {}
        settled = list(_without(groups, lambda group: known.settle(group, group.kind != "attention"), faults))
        joined = list(_joined(model, [group for group in groups if group.name in faults], paths))
        refused |= {name: fault for name, fault in faults.items() if name not in _names(joined)}
        order = {group.name: place for place, group in enumerate(groups)}
        groups = sorted([*settled, *joined], key=lambda group: order[group.name])
    together: list[ChannelGroup] = []
    if groups and _fault(model, groups, paths) is not None:
        for group in groups:
            fault = _fault(model, [*together, group], paths)
            if fault is None:
                together.append(group)
            else:
                refused[group.name] = f"{fault} (together with the channels that are cut before it)"
        groups = together
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
    """Half of the units stay, in no regular pattern: forward code that shuffles channels may pass with every second."""
    generator = torch.Generator().manual_seed(group.num_units)
    chosen = torch.randperm(group.num_units, generator=generator)[: (group.num_units + 1) // 2]
    return KeptUnits(group, tuple(sorted(chosen.tolist())))


def all_but_one_of(group: ChannelGroup) -> KeptUnits:
    """All units but the second one stay: forward code may halve a number that it reads and so be right for half."""
    return KeptUnits(group, tuple(unit for unit in range(group.num_units) if unit != 1))


def half_dims_of(group: ChannelGroup) -> KeptUnits:
    """Half of the channels of every head stay, others in each: rotary pairs may pass where every second one stays."""
    generator = torch.Generator().manual_seed(group.head_dim)
    count = (group.head_dim + 1) // 2
    chosen = (torch.randperm(group.head_dim, generator=generator)[:count] for _ in range(group.num_units))
    return KeptUnits(group, tuple(range(group.num_units)), tuple(tuple(sorted(one.tolist())) for one in chosen))


def _without(
    groups: Sequence[ChannelGroup],
    settle: Callable[[ChannelGroup], tuple[ChannelGroup | None, str]],
    refused: dict[str, str],
) -> Iterator[ChannelGroup]:
    """The groups as they are settled; why the others cannot be cut is noted in `refused`."""
    for group in groups:
        settled, fault = settle(group)
        if settled is None:
            refused[group.name] = fault
        else:
            yield settled


def _joined(model: nn.Module, failed: Sequence[ChannelGroup], paths: Sequence[Path]) -> Iterator[ChannelGroup]:
    """Groups that can be cut together where none of them can be cut alone, as two layers whose outputs are stacked."""
    sets: dict[tuple[str, int, str], list[ChannelGroup]] = {}
    for group in failed:
        sets.setdefault((group.name.rpartition(".")[0], group.num_units, group.kind), []).append(group)
    for alike in (found for found in sets.values() if len(found) > 1):
        slots: dict[tuple[str, Role, int, str], Slot] = {}
        for slot in (slot for group in alike for slot in group.slots):
            key = slot.module, slot.role, slot.dim, slot.tensor
            both = zip(slots[key].places, slot.places, strict=True) if key in slots else ()
            slots[key] = replace(slot, places=tuple((*one, *other) for one, other in both) or slot.places)
        ordered = sorted(slots.values(), key=lambda slot: (slot.role != "out", slot.role == "in"))
        signature = " ".join(group.signature for group in alike)
        whole = replace(alike[0], slots=tuple(ordered), signature=signature)
        if _fault(model, [whole], paths) is None:
            yield whole


def _names(groups: Sequence[ChannelGroup]) -> set[str]:
    """The layers that write to one of the groups."""
    return {name for group in groups for name in group.producers}


@dataclass
class _Settled:
    """Groups with those attributes that have to be patched, found once for layers and modules that are alike."""

    model: nn.Module
    paths: Sequence[Path]
    known: dict[object, tuple[ChannelGroup | None, str]] = field(default_factory=dict)

    def settle(self, group: ChannelGroup, is_open: bool) -> tuple[ChannelGroup | None, str]:
        """Returns the group, or None and why it cannot be cut; one that is not `is_open` as it is."""
        if not is_open:
            return group, ""
        choices = list(trials(self.model, group))
        places = around(self.model, group)
        kinds = tuple(type(self.model.get_submodule(place)) for place in places)
        layers = tuple(type(self.model.get_submodule(slot.module)) for slot in group.slots)
        key = (group.signature, kinds, layers, tuple(_renamed(chosen, places) for chosen in choices))
        if key not in self.known:
            found, fault = self._try_out(group, choices)
            self.known[key] = found and replace(found, patches=_renamed(found.patches, places)), fault
        pattern, fault = self.known[key]
        if pattern is None:
            return None, fault
        patches = tuple(replace(patch, module=places[int(patch.module)]) for patch in pattern.patches)
        return replace(group, patches=patches, dims_are_free=pattern.dims_are_free), ""

    def _try_out(self, group: ChannelGroup, choices: Sequence[tuple[Patch, ...]]) -> tuple[ChannelGroup | None, str]:
        first = ""
        for chosen in choices:
            trial = replace(group, patches=chosen)
            fault = _fault(self.model, [trial], self.paths)
            if fault is None and chosen:
                trial = self._with_needed(trial)
                fault = _fault_of(self.model, [all_but_one_of(trial)], self.paths)
            if fault is not None:
                first = first or fault
                continue
            if group.kind != "attention" or group.head_dim < 2:
                return trial, ""
            narrow = with_dims(self.model, trial)
            is_free = _fault_of(self.model, [half_dims_of(narrow)], self.paths) is None
            return replace(narrow if is_free else trial, dims_are_free=is_free), ""
        return None, first

    def _with_needed(self, group: ChannelGroup) -> ChannelGroup:
        """The group less the attributes without which it can be cut as well: what nothing reads keeps its value."""
        for patch in group.patches:
            fewer = replace(group, patches=tuple(one for one in group.patches if one is not patch))
            if not follows_by_name(self.model, group, patch) and _fault(self.model, [fewer], self.paths) is None:
                group = fewer
        return group


def _renamed(patches: Sequence[Patch], places: Sequence[str]) -> tuple[Patch, ...]:
    """The patches with the number of each module among `places` for its name."""
    return tuple(replace(patch, module=str(places.index(patch.module))) for patch in patches)


def _fault(model: nn.Module, groups: Sequence[ChannelGroup], paths: Sequence[Path]) -> str | None:
    return _fault_of(model, [half_of(group) for group in groups], paths)


def _fault_of(model: nn.Module, choices: Sequence[KeptUnits], paths: Sequence[Path]) -> str | None:
    """Why this cut would go wrong; None if a copy of the model computes what it should."""
    narrow = copy_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what layers remark on a trial that fails is no news to the user
        try:
            cut(narrow, choices)
            error = cut_error(model, narrow, parts_of(choices), paths[0].inputs, paths[1:])
        except (ValueError, RuntimeError, IndexError, AssertionError, AttributeError) as fault:
            return f"it cannot be cut: {fault}"
    return None if error <= TOLERANCE else f"cut in half it computes something else (off by {error:.2g})"
