"""Find the groups of channels that can be cut together, by changing channels and watching where the change arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from toolkit.base.files import bytes_sha256
from toolkit.blocks.dropped import dropped_blocks
from toolkit.channels.changes import Mask
from toolkit.channels.groups import ChannelGroup, Kind, Places, Slot, Structure
from toolkit.channels.heads import attributes_of, head_counts
from toolkit.channels.layers import is_conv, num_outputs
from toolkit.channels.layout import candidate_layouts, granules, random_units, spread_units
from toolkit.channels.patterns import matches_any
from toolkit.channels.replay import Replay, Response, Source, replaying
from toolkit.channels.tensor_slots import tensor_slots
from toolkit.hooks.paths import Path

_PROBES = 2


@dataclass
class _Cluster:
    """Layers whose outputs reach the same channels of the same readers."""

    producers: list[str] = field(default_factory=list)
    read: dict[str, Tensor] = field(default_factory=dict)  # layer -> indices of its inputs
    through: dict[str, dict[int, Mask]] = field(default_factory=dict)
    reason: str = ""


class _NotSeparableError(Exception):
    """Why the channels of a cluster cannot be removed one by one."""


def propose_groups(model: nn.Module, path: Path, blocks: Sequence[str], protected: Sequence[str] = ()) -> Structure:
    """Groups by what one forward pass computes; a cut has not been tried yet. `blocks` as `find_blocks` names them.

    Layers that match a `protected` pattern keep their outputs, and so do those that reach the model's outputs. The
    inner channels of a stand-in stay; the stream's channels in it are cut with the stream.
    """
    stand_ins = dropped_blocks(model)
    with replaying(model, path) as replay:
        clusters, refused = _clusters(model, replay, protected)
        groups = []
        for cluster in clusters:
            try:
                if cluster.reason:
                    raise _NotSeparableError(cluster.reason)
                homes = _homes(cluster, stand_ins)
                if len(homes) == 1 and "" not in homes:
                    raise _NotSeparableError("is the rank of what stands in a dropped block's place")
                groups.append(_describe(model, replay, cluster, [*blocks, *stand_ins]))
            except _NotSeparableError as reason:
                refused[cluster.producers[0]] = str(reason)
        return tensor_slots(model, replay, groups, refused)


def _clusters(model: nn.Module, replay: Replay, protected: Sequence[str]) -> tuple[list[_Cluster], dict[str, str]]:
    """Join the layers that write to the same inputs of a reader; why the others can never be cut."""
    clusters: list[_Cluster] = []
    refused: dict[str, str] = {f"{name}": "computes with layers that it does not call" for name in replay.opaque}
    for name in replay.layers:
        everything = torch.ones(num_outputs(model.get_submodule(name)), dtype=torch.bool)
        found = replay.respond({Source(name): everything})
        if found.outputs_changed or not found.read:
            refused[name] = "is an output of the model" if found.outputs_changed else "no layer reads it"
            if not found.read:
                continue
        new = _Cluster([name], {layer: mask.nonzero()[:, 0] for layer, mask in found.read.items()}, found.through)
        new.reason = _reason_against(name, found, protected)
        refused.pop(name, None)
        for old in [cluster for cluster in clusters if _overlap(cluster, new)]:
            clusters.remove(old)
            new = _joined(old, new)
        clusters.append(new)
    return clusters, refused


def _reason_against(name: str, found: Response, protected: Sequence[str]) -> str:
    if found.outputs_changed:
        return "is an output of the model"
    if found.opaque:
        return f"is read by {sorted(found.opaque)[0]}, which computes with layers that it does not call"
    return f"{name} is protected" if matches_any(name, protected) else ""


def _overlap(one: _Cluster, other: _Cluster) -> bool:
    shared = one.read.keys() & other.read.keys()
    return any(bool(torch.isin(one.read[layer], other.read[layer]).any()) for layer in shared)


def _joined(one: _Cluster, other: _Cluster) -> _Cluster:
    """What one of them changes counts: a gate's change cannot be seen where what it gates is zero."""
    read = dict(one.read)
    for layer, indices in other.read.items():
        read[layer] = _union(indices, read.get(layer))
    reason = one.reason or other.reason
    return _Cluster(one.producers + other.producers, read, one.through | other.through, reason)


def _union(one: Tensor, other: Tensor | None) -> Tensor:
    return one if other is None else torch.tensor(sorted({*one.tolist(), *other.tolist()}))


def _describe(model: nn.Module, replay: Replay, cluster: _Cluster, blocks: Sequence[str]) -> ChannelGroup:
    """Single channels as units if that works, else whole groups of convolutions and norms, else attention heads.

    Raises:
        _NotSeparableError: a change of some units changes others, whatever the units.
    """
    names = tuple(cluster.producers)
    sizes = [num_outputs(model.get_submodule(name)) for name in names]
    width = min([*map(len, cluster.read.values()), *sizes])
    modules = [model.get_submodule(name) for name in (*names, *cluster.through)]
    kind = _kind(model, cluster, blocks)
    for granule in granules([model.get_submodule(name) for name in cluster.through], width):
        slots = _slots(model, replay, cluster, width // granule)
        if slots is not None:
            return _group(model, kind, slots, width // granule, modules)
    for count in head_counts(model, (*names, *cluster.read), width):
        slots = _slots(model, replay, cluster, count.num_heads)
        if slots is not None:
            owner = model.get_submodule(count.owner)
            group = _group(model, "attention", slots, count.num_heads, modules)
            return replace(
                group,
                name=count.owner,
                owner=count.owner,
                head_attributes=attributes_of(owner, count.num_heads, ("head",)),
                dim_attributes=attributes_of(owner, width // count.num_heads, ("head", "size")),
                width_attributes=attributes_of(owner, width),
            )
    raise _NotSeparableError("a change of some of its channels reaches all of them")


def _kind(model: nn.Module, cluster: _Cluster, blocks: Sequence[str]) -> Kind:
    if len(_homes(cluster, blocks)) > 1:
        return "embedding"
    layers = [*cluster.producers, *cluster.read]
    return "conv" if any(is_conv(model.get_submodule(layer)) for layer in layers) else "mlp"


def _homes(cluster: _Cluster, places: Sequence[str]) -> set[str]:
    """The places that the cluster's layers are in; "" where one is in none."""
    layers = [*cluster.producers, *cluster.read]
    return {next((place for place in places if layer.startswith(f"{place}.")), "") for layer in layers}


def _group(
    model: nn.Module, kind: Kind, slots: tuple[Slot, ...], num_units: int, modules: Sequence[nn.Module]
) -> ChannelGroup:
    shapes = [(type(module).__name__, [tuple(p.shape) for p in module.parameters(recurse=False)]) for module in modules]
    signature = bytes_sha256([repr((kind, num_units, shapes)).encode()])[:12]
    return ChannelGroup(slots[0].module, kind, slots, num_units, signature=signature)


def _slots(model: nn.Module, replay: Replay, cluster: _Cluster, num_units: int) -> tuple[Slot, ...] | None:
    """Where the units lie in every layer, if a change of some of them always changes just them; None otherwise."""
    if num_units < 2:
        return None
    read = {layer: list(_layouts_at(indices.tolist(), num_units)) for layer, indices in cluster.read.items()}
    sizes = {name: num_outputs(model.get_submodule(name)) for name in cluster.producers}
    layouts = {name: list(candidate_layouts(size, num_units)) for name, size in sizes.items()}
    if not all(read.values()) or not all(layouts.values()):
        return None
    outs = {name: found[0] for name, found in layouts.items()}
    found = _fits(replay, outs, sizes, read)
    if found is None and max(map(len, layouts.values())) > 1:  # not all in a row: look at one layer at a time
        outs = {
            name: next((p for p in could if _fits(replay, {name: p}, sizes, dict(read), alone=True) is not None), ())
            for name, could in layouts.items()
        }
        found = _fits(replay, outs, sizes, read) if all(outs.values()) else None
    through = None if found is None else _through(found, num_units)
    if through is None or cluster.through.keys() != through.keys():
        return None
    slots = [Slot(name, "out", places) for name, places in outs.items()]
    slots += through.values()
    slots += [Slot(layer, "in", places[0]) for layer, places in read.items()]
    order = {name: place for place, name in enumerate(replay.order)}
    slots.sort(key=lambda slot: (slot.role != "out", slot.role == "in", order[slot.module]))
    return tuple(slots)


def _fits(
    replay: Replay,
    outs: dict[str, Places],
    sizes: dict[str, int],
    read: dict[str, list[Places]],
    *,
    alone: bool = False,
) -> list[tuple[Response, list[int]]] | None:
    """The responses to changes of random units of all these layers, if each reader changed in just those units.

    Of the layouts in `read` those that the responses contradict are taken out, if one is left for each reader. A layer
    `alone` need not reach all channels of the units.
    """
    left = dict(read)
    num_units = len(next(iter(outs.values())))
    responses = []
    for seed in range(_PROBES):
        units = random_units(num_units, seed)
        found = replay.respond({Source(name): spread_units(outs[name], units, sizes[name]) for name in outs})
        if found.outputs_changed or not found.read:
            return None
        for layer, mask in found.read.items():
            could = left.get(layer, [])
            spread = [(places, spread_units(places, units, len(mask))) for places in could]
            left[layer] = [p for p, all_of in spread if torch.equal(mask & all_of, mask if alone else all_of | mask)]
            if not left[layer]:
                return None
        responses.append((found, units))
    read.update(left)
    return responses


def _layouts_at(indices: list[int], num_units: int) -> Iterator[Places]:
    """The layouts that units could have among these inputs of a layer."""
    for places in candidate_layouts(len(indices), num_units):
        yield tuple(tuple(indices[place] for place in unit) for unit in places)


def _through(found: list[tuple[Response, list[int]]], num_units: int) -> dict[str, Slot] | None:
    """Where the units lie in each leaf on the way; None if they cannot be told apart in one."""
    slots = {name: next(_possible_slots(name, found, num_units), None) for name in found[0][0].through}
    known = {name: slot for name, slot in slots.items() if slot is not None}
    return known if len(known) == len(slots) else None


def _possible_slots(name: str, found: list[tuple[Response, list[int]]], num_units: int) -> Iterator[Slot]:
    masks = found[0][0].through[name]
    for dim in sorted(masks, reverse=True):
        size = len(masks[dim])
        for places in candidate_layouts(size, num_units):
            if all(
                name in response.through and torch.equal(response.through[name][dim], spread_units(places, units, size))
                for response, units in found
            ):
                yield Slot(name, "through", places, dim=dim)
