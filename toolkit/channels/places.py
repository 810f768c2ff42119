"""Learns channel by channel where the channels of a layer are, for forward code that permutes or splits unevenly.

The channels of a layer are numbered in binary. For each bit, the channels with the bit set are changed, then those
without. Each input of a reader thus learns the number of its channel, in 2 log2(n) passes for n channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from toolkit.channels.clusters import Cluster
from toolkit.channels.groups import Role, Slot
from toolkit.channels.layers import num_outputs
from toolkit.channels.replay import Replay, Response, Source
from toolkit.channels.units import in_order

Node = tuple[str, Role, int, int]  # module, role, dimension, index there


def learnt_slots(
    model: nn.Module, replay: Replay, cluster: Cluster, granule: int = 1
) -> tuple[tuple[Slot, ...], int] | None:
    """Returns the slots of the cluster and the number of units, or None if an input holds a mixture of channels.

    A channel and all places that it reaches stay together. Where channels differ, as those of the parts of a split that
    go different ways, each unit gets the same share of every sort, because forward code that splits expects fixed
    shares.

    granule: number of neighbouring channels that go together.
    """
    links = list(_links(model, replay, cluster, granule))
    if not links or any(link is None for link in links):
        return None
    parts = _connected([link for link in links if link is not None])
    sorts: dict[tuple[tuple[str, Role, int, int], ...], list[list[Node]]] = {}
    for part in parts:
        sorts.setdefault(_sort_of(part), []).append(part)
    num_units = math.gcd(*map(len, sorts.values()))
    if num_units < 2:
        return None
    units: list[list[Node]] = [[] for _ in range(num_units)]
    for alike in sorts.values():
        each = len(alike) // num_units
        for place, part in enumerate(alike):
            units[place // each] += part
    slots = [
        Slot(
            module,
            role,
            tuple(tuple(sorted(node[3] for node in unit if node[:3] == (module, role, dim))) for unit in units),
            dim=dim,
        )
        for module, role, dim in dict.fromkeys(node[:3] for part in parts for node in part)
    ]
    return in_order(replay, slots), num_units


def _sort_of(part: list[Node]) -> tuple[tuple[str, Role, int, int], ...]:
    """Returns the number of places in each layer, which tells channels of different sorts apart."""
    counts: dict[tuple[str, Role, int], int] = {}
    for node in part:
        counts[node[:3]] = counts.get(node[:3], 0) + 1
    return tuple(sorted((*where, count) for where, count in counts.items()))


def _links(
    model: nn.Module, replay: Replay, cluster: Cluster, granule: int
) -> Iterator[tuple[list[Node], list[Node]] | None]:
    """Yields the channels of a layer that go together with the places that they reach, or None for a mixture."""
    for name in cluster.producers:
        size = num_outputs(model.get_submodule(name))
        if size % granule:
            yield None
            return
        codes = _codes(replay, name, size, granule)
        if codes is None:
            yield None
            return
        for number in range(size // granule):
            channels: list[Node] = [(name, "out", 0, number * granule + i) for i in range(granule)]
            yield channels, [node for node, code in codes.items() if code == number]


def _codes(replay: Replay, name: str, size: int, granule: int) -> dict[Node, int] | None:
    """Returns the number of the channels that reach each place, or None if channels of two numbers reach one place."""
    numbers = torch.arange(size) // granule
    seen: dict[Node, int] = {}
    for bit in range(max(1, (size // granule - 1).bit_length())):
        has_bit = (numbers >> bit) % 2 == 1
        with_it, without = (_nodes(replay.respond({Source(name): chosen})) for chosen in (has_bit, ~has_bit))
        mixed = {node[:3] for node in with_it & without}
        if any(role == "in" for _, role, _ in mixed):
            return None
        for node in with_it | without:
            if node[:3] not in mixed:
                seen[node] = seen.get(node, 0) | (1 << bit if node in with_it else 0)
            else:
                seen.pop(node, None)
    leaves = {node[0] for node in seen if node[1] == "through"}
    dims = {leaf: max(node[2] for node in seen if node[0] == leaf and node[1] == "through") for leaf in leaves}
    return {node: code for node, code in seen.items() if node[1] == "in" or node[2] == dims[node[0]]}


def _nodes(response: Response) -> set[Node]:
    """Returns all changed places of readers and leaves."""
    nodes: set[Node] = {(layer, "in", 0, int(i)) for layer, mask in response.read.items() for i in mask.nonzero()[:, 0]}
    for leaf, masks in response.through.items():
        nodes |= {(leaf, "through", dim, int(i)) for dim, mask in masks.items() for i in mask.nonzero()[:, 0]}
    return nodes


def _connected(links: list[tuple[list[Node], list[Node]]]) -> list[list[Node]]:
    """Joins links with a common place; each part is sorted, and parts are in the order of their first channels."""
    home: dict[Node, int] = {}
    parts: dict[int, list[Node]] = {}
    for number, (channels, places) in enumerate(links):
        nodes = [*channels, *places]
        old_numbers = {home[node] for node in nodes if node in home}
        parts[number] = list(
            dict.fromkeys([node for old_number in sorted(old_numbers) for node in parts.pop(old_number)] + nodes)
        )
        home.update(dict.fromkeys(parts[number], number))
    complete = [part for part in parts.values() if any(node[1] != "out" for node in part)]
    first = {node: place for place, node in enumerate(node for channels, _ in links for node in channels)}
    return sorted(complete, key=lambda part: min(first[node] for node in part if node in first))
