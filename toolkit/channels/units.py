"""Finds where the units of a cluster are in every layer: tries layouts, and changes some units at random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from toolkit.channels.clusters import Cluster
from toolkit.channels.groups import Places, Slot
from toolkit.channels.layers import num_outputs
from toolkit.channels.layout import candidate_layouts, random_units, spread_units
from toolkit.channels.replay import Replay, Response, Source

_PROBES = 2

_MOST_BLOCKS = 128  # blocks of outputs of a layer that are changed one by one

MOST_LAYERS = 8  # layers of a cluster that are examined in detail: each takes passes of the model

_MOST_LAYOUTS = 8  # layouts that are tried for the outputs of a layer: each takes passes of the model


def unit_slots(model: nn.Module, replay: Replay, cluster: Cluster, num_units: int) -> tuple[Slot, ...] | None:
    """Returns the slots of a cluster with `num_units` units, or None if a change of some units reaches other units."""
    if num_units < 2:
        return None
    read = {layer: list(_layouts_at(indices.tolist(), num_units)) for layer, indices in cluster.read.items()}
    sizes = {name: num_outputs(model.get_submodule(name)) for name in cluster.producers}
    layouts = {name: list(candidate_layouts(size, num_units))[:_MOST_LAYOUTS] for name, size in sizes.items()}
    if not all(read.values()) or not all(layouts.values()):
        return None
    outs = {name: candidates[0] for name, candidates in layouts.items()}
    responses = _fits(replay, outs, sizes, read)
    if responses is None and max(map(len, layouts.values())) > 1:  # not all contiguous: try one layer at a time
        outs = {
            name: next(
                (p for p in candidates if _fits(replay, {name: p}, sizes, dict(read), alone=True) is not None), ()
            )
            for name, candidates in layouts.items()
        }
        responses = _fits(replay, outs, sizes, read) if all(outs.values()) else None
    if responses is None and 1 < len(layouts) <= MOST_LAYERS:
        outs, responses = _in_one_layout(replay, layouts, sizes, read)
    through = None if responses is None else _through(responses, num_units)
    if through is None or cluster.through.keys() != through.keys():
        return None
    slots = [Slot(name, "out", places) for name, places in outs.items()]
    slots += [slot for slot in through.values() if slot is not None]
    slots += [Slot(layer, "in", places[0]) for layer, places in read.items()]
    return in_order(replay, slots)


def _in_one_layout(
    replay: Replay, layouts: dict[str, list[Places]], sizes: dict[str, int], read: dict[str, list[Places]]
) -> tuple[dict[str, Places], list[tuple[Response, list[int]]] | None]:
    """Returns the layouts of all layers that agree on the units of the first reader, and the responses to them.

    This finds interleaved heads. A layer alone may fit several layouts: two heads in a row fit queries as well as every
    fourth head does.
    """
    reader = next(iter(read))
    for places in list(read[reader]):
        read_here = read | {reader: [places]}
        outs = {
            name: next(
                (p for p in candidates if _fits(replay, {name: p}, sizes, dict(read_here), alone=True) is not None), ()
            )
            for name, candidates in layouts.items()
        }
        responses = _fits(replay, outs, sizes, read_here) if all(outs.values()) else None
        if responses is not None:
            read.update(read_here)
            return outs, responses
    return {}, None


def block_slots(
    model: nn.Module, replay: Replay, cluster: Cluster, num_units: int
) -> tuple[tuple[Slot, ...], list[str]] | None:
    """Returns slots as `unit_slots` does, and the layers that all units share; outputs are changed block by block.

    It covers a layer that makes queries, keys and values of which there are not as many heads each, and keys and values
    that all heads share, as in multi-query attention. Query heads can then be removed; what they share stays.
    """
    sizes = {name: num_outputs(model.get_submodule(name)) for name in cluster.producers}
    if num_units < 2 or any(len(indices) % num_units for indices in cluster.read.values()):
        return None
    read = {layer: [next(_layouts_at(indices.tolist(), num_units))] for layer, indices in cluster.read.items()}
    homes = {name: _homes_of(replay, name, sizes[name], num_units, read) for name in sizes}
    if any(home is None for home in homes.values()):
        return None
    homes_known = {name: home for name, home in homes.items() if home is not None}
    outs = {
        name: tuple(tuple(i for i, unit in enumerate(home) if unit == wanted) for wanted in range(num_units))
        for name, home in homes_known.items()
        if any(unit is not None for unit in home)
    }
    responses = _fits(replay, outs, sizes, read) if outs and all(map(all, outs.values())) else None
    through = None if responses is None else _through(responses, num_units)
    if through is None:
        return None
    slots = [
        Slot(name, "out", places, shared=tuple(i for i, unit in enumerate(homes_known[name]) if unit is None))
        for name, places in outs.items()
    ]
    slots += [slot for slot in through.values() if slot is not None]
    slots += [Slot(layer, "in", places[0]) for layer, places in read.items()]
    return in_order(replay, slots), [name for name in cluster.producers if name not in outs]


def _homes_of(
    replay: Replay, name: str, size: int, num_units: int, read: dict[str, list[Places]]
) -> list[int | None] | None:
    """Returns the unit of each output of a layer, and None for an output that all units share.

    It returns None instead of a list if some but not all units share an output. Blocks of outputs are changed one at a
    time; shorter blocks are tried as long as all units seem to share some outputs.
    """
    per_unit = math.gcd(size, *(len(unit) for layouts in read.values() for unit in layouts[0]))
    best: list[int | None] | None = None
    for length in (n for n in range(per_unit, 0, -1) if per_unit % n == 0 and size // n <= _MOST_BLOCKS):
        homes = _homes_at(replay, name, size, num_units, read, length)
        if homes is not None and (best is None or homes.count(None) < best.count(None)):
            best = homes
        if best is not None and None not in best:
            break
    return best


def _homes_at(
    replay: Replay, name: str, size: int, num_units: int, read: dict[str, list[Places]], length: int
) -> list[int | None] | None:
    """Returns the units of the outputs of a layer as `_homes_of` does, for blocks of one length."""
    homes: list[int | None] = []
    for first in range(0, size, length):
        chosen = torch.zeros(size, dtype=torch.bool)
        chosen[first : first + length] = True
        units = _units_in(replay.respond({Source(name): chosen}), read)
        if len(units) not in (1, num_units):
            return None
        homes += [units.pop() if len(units) == 1 else None] * length
    return homes


def _units_in(response: Response, read: dict[str, list[Places]]) -> set[int]:
    """Returns the units of which a place changed."""
    return {
        unit
        for layer, mask in response.read.items()
        for unit, places in enumerate(read[layer][0] if layer in read else ())
        if bool(mask[list(places)].any())
    }


def in_order(replay: Replay, slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """Returns the slots sorted: outputs first, inputs last, each in execution order."""
    order = {name: place for place, name in enumerate(replay.order)}
    return tuple(sorted(slots, key=lambda slot: (slot.role != "out", slot.role == "in", order[slot.module])))


def _fits(
    replay: Replay,
    outs: dict[str, Places],
    sizes: dict[str, int],
    read: dict[str, list[Places]],
    *,
    alone: bool = False,
) -> list[tuple[Response, list[int]]] | None:
    """Returns the responses to changes of random units of all these layers, or None if they contradict the layouts.

    Each reader must change in just the changed units. Layouts that a response contradicts are removed from `read`,
    unless a reader has none left: then the result is None.

    alone: whether `outs` holds a single layer that need not reach all channels of its units.
    """
    remaining = dict(read)
    num_units = len(next(iter(outs.values())))
    responses = []
    for seed in range(_PROBES):
        units = random_units(num_units, seed)
        response = replay.respond({Source(name): spread_units(outs[name], units, sizes[name]) for name in outs})
        if response.outputs_changed or not response.read:
            return None
        for layer, mask in response.read.items():
            layouts = remaining.get(layer, [])
            masks = [(places, spread_units(places, units, len(mask))) for places in layouts]
            remaining[layer] = [
                p for p, expected in masks if torch.equal(mask & expected, mask if alone else expected | mask)
            ]
            if not remaining[layer]:
                return None
        responses.append((response, units))
    read.update(remaining)
    return responses


def _layouts_at(indices: Sequence[int], num_units: int) -> Iterator[Places]:
    """Yields the possible layouts of the units among these inputs of a layer."""
    for places in candidate_layouts(len(indices), num_units):
        yield tuple(tuple(indices[place] for place in unit) for unit in places)


def _through(responses: list[tuple[Response, list[int]]], num_units: int) -> dict[str, Slot | None] | None:
    """Returns the slot of each leaf on the way, or None instead of a mapping if a leaf does not tell units apart.

    The slot is None for a leaf that all units share, as heads share a norm of queries.
    """
    slots: dict[str, Slot | None] = {}
    for name in responses[0][0].through:
        slots[name] = next(_possible_slots(name, responses, num_units), None)
        if slots[name] is None and not _is_shared(name, responses):
            return None
    return slots


def _is_shared(name: str, responses: list[tuple[Response, list[int]]]) -> bool:
    masks = [mask for response, _ in responses for mask in response.through.get(name, {}).values()]
    return all(bool(mask.all()) for mask in masks)


def _possible_slots(name: str, responses: list[tuple[Response, list[int]]], num_units: int) -> Iterator[Slot]:
    masks = responses[0][0].through[name]
    for dim in sorted(masks, reverse=True):
        size = len(masks[dim])
        for places in candidate_layouts(size, num_units):
            if all(
                name in response.through and torch.equal(response.through[name][dim], spread_units(places, units, size))
                for response, units in responses
            ):
                yield Slot(name, "through", places, dim=dim)
