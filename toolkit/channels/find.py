"""Finds all groups of a model that can be cut: each is tried on a copy, and refused with a reason if it fails."""

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
    """Returns the groups of `propose_on` whose cut by half leaves a model that computes the right thing.

    The model is left unchanged.

    blocks: names of the residual blocks.
    protected: patterns (see `toolkit.channels.patterns`) of layers that keep their outputs.
    others: passes to check beside eval mode on `inputs`; see `find_paths`.
    """
    paths = (Path(inputs), *others)
    proposed = propose_on(model, paths, blocks, protected)
    refused = dict(proposed.refused)
    candidates = join_shared(model, proposed.groups, refused)
    trials_so_far = _Settled(model, paths)
    groups = list(_without(candidates, lambda group: trials_so_far.settle(group, group.kind == "attention"), refused))
    # Groups that need each other are mostly neighbours, so every second group is tried too.
    if any(chosen and _fault(model, chosen, paths) is not None for chosen in (groups, groups[::2], groups[1::2])):
        faults: dict[str, str] = {}
        settled = list(_without(groups, lambda group: trials_so_far.settle(group, group.kind != "attention"), faults))
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
    """Returns the structure without the groups that have a layer among these modules, with the reason for each."""
    refused: dict[str, str] = {}  # before the other reasons: messages name the first few
    for group in structure.groups:
        layer = next((slot.module for slot in group.slots if slot.module in reasons), None)
        if layer is not None:
            refused[group.name] = reasons[layer] if layer == group.name else f"{layer}: {reasons[layer]}"
    refused |= structure.refused
    return Structure(tuple(group for group in structure.groups if group.name not in refused), refused)


def half_of(group: ChannelGroup) -> KeptUnits:
    """Returns a cut that keeps half of the units, chosen at random with a fixed seed.

    Forward code that shuffles channels might pass with every second one.
    """
    generator = torch.Generator().manual_seed(group.num_units)
    chosen = torch.randperm(group.num_units, generator=generator)[: (group.num_units + 1) // 2]
    return KeptUnits(group, tuple(sorted(chosen.tolist())))


def all_but_one_of(group: ChannelGroup) -> KeptUnits:
    """Returns a cut that keeps all units but the second one.

    Forward code that halves a number which follows the cut may be right for half of the units and for no other number.
    """
    return KeptUnits(group, tuple(unit for unit in range(group.num_units) if unit != 1))


def half_dims_of(group: ChannelGroup) -> KeptUnits:
    """Returns a cut that keeps half of the channels of every head, and not the same ones in every head.

    Every second channel would not do: rotary pairs stay pairs then, and with other channels they do not.
    """
    generator = torch.Generator().manual_seed(group.head_dim)
    count = (group.head_dim + 1) // 2
    chosen = (torch.randperm(group.head_dim, generator=generator)[:count] for _ in range(group.num_units))
    return KeptUnits(group, tuple(range(group.num_units)), tuple(tuple(sorted(one.tolist())) for one in chosen))


def _without(
    groups: Sequence[ChannelGroup],
    settle: Callable[[ChannelGroup], tuple[ChannelGroup | None, str]],
    refused: dict[str, str],
) -> Iterator[ChannelGroup]:
    """Yields the groups that `settle` returns, and notes in `refused` why others cannot be cut."""
    for group in groups:
        settled, fault = settle(group)
        if settled is None:
            refused[group.name] = fault
        else:
            yield settled


def _joined(model: nn.Module, failed: Sequence[ChannelGroup], paths: Sequence[Path]) -> Iterator[ChannelGroup]:
    """Yields groups that can be cut together where none of them can be cut alone.

    This is the case for two layers whose outputs are stacked.
    """
    sets: dict[tuple[str, int, str], list[ChannelGroup]] = {}
    for group in failed:
        sets.setdefault((group.name.rpartition(".")[0], group.num_units, group.kind), []).append(group)
    for alike in (groups for groups in sets.values() if len(groups) > 1):
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
    """Returns the names of the layers that write to one of the groups."""
    return {name for group in groups for name in group.producers}


@dataclass
class _Settled:
    """Tries cuts of groups, and remembers the result for groups of the same layers and surrounding modules."""

    model: nn.Module
    paths: Sequence[Path]
    known: dict[object, tuple[ChannelGroup | None, str]] = field(default_factory=dict)

    def settle(self, group: ChannelGroup, is_open: bool) -> tuple[ChannelGroup | None, str]:
        """Returns the group with the attributes that a cut has to update, or None and why the group cannot be cut.

        A group that is not `is_open` is returned unchanged.
        """
        if not is_open:
            return group, ""
        choices = list(trials(self.model, group))
        places = around(self.model, group)
        kinds = tuple(type(self.model.get_submodule(place)) for place in places)
        layers = tuple(type(self.model.get_submodule(slot.module)) for slot in group.slots)
        key = (group.signature, kinds, layers, tuple(_renamed(chosen, places) for chosen in choices))
        if key not in self.known:
            settled, fault = self._try_out(group, choices)
            self.known[key] = settled and replace(settled, patches=_renamed(settled.patches, places)), fault
        pattern, fault = self.known[key]
        if pattern is None:
            return None, fault
        patches = tuple(replace(patch, module=places[int(patch.module)]) for patch in pattern.patches)
        return replace(group, patches=patches, dims_are_free=pattern.dims_are_free), ""

    def _try_out(self, group: ChannelGroup, choices: Sequence[tuple[Patch, ...]]) -> tuple[ChannelGroup | None, str]:
        first_fault = ""
        for chosen in choices:
            trial = replace(group, patches=chosen)
            fault = _fault(self.model, [trial], self.paths)
            if fault is None and chosen:
                trial = self._with_needed(trial)
                fault = _fault_of(self.model, [all_but_one_of(trial)], self.paths)
            if fault is not None:
                first_fault = first_fault or fault
                continue
            if group.kind != "attention" or group.head_dim < 2:
                return trial, ""
            narrow = with_dims(self.model, trial)
            is_free = _fault_of(self.model, [half_dims_of(narrow)], self.paths) is None
            return replace(narrow if is_free else trial, dims_are_free=is_free), ""
        return None, first_fault

    def _with_needed(self, group: ChannelGroup) -> ChannelGroup:
        """Returns the group less the attributes without which it can be cut as well.

        What no pass reads keeps its value, unless it is an attention's and named for its heads.
        """
        for patch in group.patches:
            fewer = replace(group, patches=tuple(one for one in group.patches if one is not patch))
            if not follows_by_name(self.model, group, patch) and _fault(self.model, [fewer], self.paths) is None:
                group = fewer
        return group


def _renamed(patches: Sequence[Patch], places: Sequence[str]) -> tuple[Patch, ...]:
    """Returns the patches with the index of each module in `places` instead of its name."""
    return tuple(replace(patch, module=str(places.index(patch.module))) for patch in patches)


def _fault(model: nn.Module, groups: Sequence[ChannelGroup], paths: Sequence[Path]) -> str | None:
    return _fault_of(model, [half_of(group) for group in groups], paths)


def _fault_of(model: nn.Module, choices: Sequence[KeptUnits], paths: Sequence[Path]) -> str | None:
    """Returns why this cut would go wrong, or None if a cut copy of the model computes the right thing."""
    narrow = copy_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what layers remark on a trial that fails is no news to the user
        try:
            cut(narrow, choices)
            error = cut_error(model, narrow, parts_of(choices), paths[0].inputs, paths[1:])
        except (ValueError, RuntimeError, IndexError, AssertionError, AttributeError) as fault:
            return f"it cannot be cut: {fault}"
    return None if error <= TOLERANCE else f"cut in half it computes something else (off by {error:.2g})"
