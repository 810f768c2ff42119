"""Finds groups of channels that can be cut together: changes channels and watches where the change arrives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from toolkit.base.files import bytes_sha256
from toolkit.blocks.dropped import dropped_blocks
from toolkit.channels.clusters import Cluster, find_clusters
from toolkit.channels.groups import ChannelGroup, Kind, Slot, Structure
from toolkit.channels.heads import HeadCount, head_counts
from toolkit.channels.layers import is_conv, num_outputs
from toolkit.channels.layout import granule_of, granules
from toolkit.channels.places import learnt_slots
from toolkit.channels.replay import Replay, replaying
from toolkit.channels.tensor_slots import tensor_slots
from toolkit.channels.units import MOST_LAYERS, block_slots, unit_slots
from toolkit.hooks.paths import Path

_UNITS: dict[Kind, str] = {"attention": "heads", "mlp": "channels", "conv": "channels", "embedding": "channels"}


class _NotSeparableError(Exception):
    """Says why the channels of a cluster cannot be removed one by one."""


def propose_groups(model: nn.Module, path: Path, blocks: Sequence[str], protected: Sequence[str] = ()) -> Structure:
    """Returns the groups that one forward pass shows; their cuts have not been tried yet.

    Layers keep their outputs if they match a `protected` pattern or reach the outputs of the model. The inner channels
    of a stand-in stay; its channels of the residual stream are cut with the stream.

    blocks: names of the residual blocks.
    """
    stand_ins = dropped_blocks(model)
    with replaying(model, path) as replay:
        clusters, refused = find_clusters(model, replay, protected)
        groups = []
        for cluster in clusters:
            try:
                if cluster.reason:
                    raise _NotSeparableError(cluster.reason)
                homes = _homes(cluster, stand_ins)
                if len(homes) == 1 and "" not in homes:
                    raise _NotSeparableError("is the rank of what stands in a dropped block's place")
                group, shared = _describe(model, replay, cluster, [*blocks, *stand_ins])
                groups.append(group)
                refused |= dict.fromkeys(shared, f"all {_UNITS[group.kind]} of {group.name} share its channels")
            except _NotSeparableError as reason:
                refused[cluster.producers[0]] = str(reason)
        return tensor_slots(model, replay, groups, refused)


def _describe(
    model: nn.Module, replay: Replay, cluster: Cluster, blocks: Sequence[str]
) -> tuple[ChannelGroup, Sequence[str]]:
    """Returns the group of a cluster, and the names of the layers whose channels all of its units share.

    Units are single channels if that works, else granules of grouped convolutions and group norms, else attention
    heads.

    Raises:
        _NotSeparableError: a change of some units changes others, whatever the units.
    """
    names = tuple(cluster.producers)
    sizes = [num_outputs(model.get_submodule(name)) for name in names]
    width = min([*map(len, cluster.read.values()), *sizes])
    modules = [model.get_submodule(name) for name in (*names, *cluster.through)]
    kind = _kind(model, cluster, blocks)
    for granule in granules([model.get_submodule(name) for name in cluster.through], width):
        slots = unit_slots(model, replay, cluster, width // granule)
        if slots is not None:
            return _group(model, kind, slots, width // granule, modules), ()
        learnt = learnt_slots(model, replay, cluster, granule)
        if learnt is not None:
            return _group(model, kind, *learnt, modules), ()
    counts = list[HeadCount]()
    for count in head_counts(model, replay, cluster, width):
        counts.append(count)
        slots = unit_slots(model, replay, cluster, count.number)
        if slots is not None:
            return _attention(_group(model, "attention", slots, count.number, modules), count), ()
    for count in counts if len(names) <= MOST_LAYERS else ():
        slots_and_shared = block_slots(model, replay, cluster, count.number)
        if slots_and_shared is not None:
            granule = math.lcm(*(granule_of(model.get_submodule(leaf)) for leaf in cluster.through))
            read = [slot for slot in slots_and_shared[0] if slot.role == "in"]
            one_channel = all(slot.size == count.number * granule for slot in read)
            group = _group(model, kind if one_channel else "attention", slots_and_shared[0], count.number, modules)
            return group if one_channel else _attention(group, count), slots_and_shared[1]
    raise _NotSeparableError("a change of some of its channels reaches all of them")


def _attention(group: ChannelGroup, count: HeadCount) -> ChannelGroup:
    return replace(group, name=count.owner or group.name, owner=count.owner)


def _kind(model: nn.Module, cluster: Cluster, blocks: Sequence[str]) -> Kind:
    if len(_homes(cluster, blocks)) > 1:
        return "embedding"
    layers = [*cluster.producers, *cluster.read]
    return "conv" if any(is_conv(model.get_submodule(layer)) for layer in layers) else "mlp"


def _homes(cluster: Cluster, places: Sequence[str]) -> set[str]:
    """Returns the places among `places` that hold the layers of the cluster; "" stands for a layer in none of them."""
    layers = [*cluster.producers, *cluster.read]
    return {next((place for place in places if layer.startswith(f"{place}.")), "") for layer in layers}


def _group(
    model: nn.Module, kind: Kind, slots: tuple[Slot, ...], num_units: int, modules: Sequence[nn.Module]
) -> ChannelGroup:
    shapes = [(type(module).__name__, [tuple(p.shape) for p in module.parameters(recurse=False)]) for module in modules]
    signature = bytes_sha256([repr((kind, num_units, shapes)).encode()])[:12]
    return ChannelGroup(slots[0].module, kind, slots, num_units, signature=signature)
