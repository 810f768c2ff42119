"""Where the units of a cluster lie in every layer: tried as rows and parts, seen by changing some units at random."""

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

_MOST_BLOCKS = 128  # of a layer's outputs that are looked at one by one

MOST_LAYERS = 8  # of an attention, that are looked at closely: each takes passes of the model

_MOST_LAYOUTS = 8  # of a layer's outputs that are tried: each takes passes of the model


def unit_slots(model: nn.Module, replay: Replay, cluster: Cluster, num_units: int) -> tuple[Slot, ...] | None:
    """Where the units lie in every layer, if a change of some of them always changes just them; None otherwise."""
    if num_units < 2:
        return None
    read = {layer: list(_layouts_at(indices.tolist(), num_units)) for layer, indices in cluster.read.items()}
    sizes = {name: num_outputs(model.get_submodule(name)) for name in cluster.producers}
    layouts = {name: list(candidate_layouts(size, num_units))[:_MOST_LAYOUTS] for name, size in sizes.items()}
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
    if found is None and 1 < len(layouts) <= MOST_LAYERS:
        outs, found = _in_one_layout(replay, layouts, sizes, read)
    through = None if found is None else _through(found, num_units)
    if through is None or cluster.through.keys() != through.keys():
        return None
    slots = [Slot(name, "out", places) for name, places in outs.items()]
    slots += [slot for slot in through.values() if slot is not None]
    slots += [Slot(layer, "in", places[0]) for layer, places in read.items()]
    return in_order(replay, slots)


def _in_one_layout(
    replay: Replay, layouts: dict[str, list[Places]], sizes: dict[str, int], read: dict[str, list[Places]]
) -> tuple[dict[str, Places], list[tuple[Response, list[int]]] | None]:
    """The layouts of all layers that agree on where the units lie in the first reader, as where heads take turns.

    Each layer alone may fit several: two heads in a row are as good for queries as every fourth one.
    """
    reader = next(iter(read))
    for places in list(read[reader]):
        own = read | {reader: [places]}
        outs = {
            name: next((p for p in could if _fits(replay, {name: p}, sizes, dict(own), alone=True) is not None), ())
            for name, could in layouts.items()
        }
        found = _fits(replay, outs, sizes, own) if all(outs.values()) else None
        if found is not None:
            read.update(own)
            return outs, found
    return {}, None


def block_slots(
    model: nn.Module, replay: Replay, cluster: Cluster, num_units: int
) -> tuple[tuple[Slot, ...], list[str]] | None:
    """As `unit_slots`, where each layer's outputs are looked at block by block; and the layers that all units share.

    One layer may make the queries, keys and values of heads of which there are not as many of each. All heads may share
    keys and values, as in multi-query attention: heads of the queries can go, what they share stays.
    """
    sizes = {name: num_outputs(model.get_submodule(name)) for name in cluster.producers}
    if num_units < 2 or any(len(indices) % num_units for indices in cluster.read.values()):
        return None
    read = {layer: [next(_layouts_at(indices.tolist(), num_units))] for layer, indices in cluster.read.items()}
    homes = {name: _homes_of(replay, name, sizes[name], num_units, read) for name in sizes}
    if any(home is None for home in homes.values()):
        return None
    known = {name: home for name, home in homes.items() if home is not None}
    outs = {
        name: tuple(tuple(i for i, unit in enumerate(home) if unit == one) for one in range(num_units))
        for name, home in known.items()
        if any(unit is not None for unit in home)
    }
    found = _fits(replay, outs, sizes, read) if outs and all(map(all, outs.values())) else None
    through = None if found is None else _through(found, num_units)
    if through is None:
        return None
    slots = [
        Slot(name, "out", places, shared=tuple(i for i, unit in enumerate(known[name]) if unit is None))
        for name, places in outs.items()
    ]
    slots += [slot for slot in through.values() if slot is not None]
    slots += [Slot(layer, "in", places[0]) for layer, places in read.items()]
    return in_order(replay, slots), [name for name in cluster.producers if name not in outs]


def _homes_of(
    replay: Replay, name: str, size: int, num_units: int, read: dict[str, list[Places]]
) -> list[int | None] | None:
    """The unit of each output of a layer, None where all units share it; None in all where some share one.

    Blocks of outputs are changed one at a time, finer ones as long as all units seem to share some.
    """
    per_unit = math.gcd(size, *(len(unit) for layouts in read.values() for unit in layouts[0]))
    best: list[int | None] | None = None
    for length in (one for one in range(per_unit, 0, -1) if per_unit % one == 0 and size // one <= _MOST_BLOCKS):
        homes = _homes_at(replay, name, size, num_units, read, length)
        if homes is not None and (best is None or homes.count(None) < best.count(None)):
            best = homes
        if best is not None and None not in best:
            break
    return best


def _homes_at(
    replay: Replay, name: str, size: int, num_units: int, read: dict[str, list[Places]], length: int
) -> list[int | None] | None:
    """As `_homes_of`, for blocks of one length."""
    homes: list[int | None] = []
    for first in range(0, size, length):
        chosen = torch.zeros(size, dtype=torch.bool)
        chosen[first : first + length] = True
        units = _units_in(replay.respond({Source(name): chosen}), read)
        if len(units) not in (1, num_units):
            return None
        homes += [units.pop() if len(units) == 1 else None] * length
    return homes


def _units_in(found: Response, read: dict[str, list[Places]]) -> set[int]:
    """The units of which a place changed."""
    return {
        unit
        for layer, mask in found.read.items()
        for unit, places in enumerate(read[layer][0] if layer in read else ())
        if bool(mask[list(places)].any())
    }


def in_order(replay: Replay, slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """Outputs first, inputs last, each in execution order."""
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


def _layouts_at(indices: Sequence[int], num_units: int) -> Iterator[Places]:
    """The layouts that units could have among these inputs of a layer."""
    for places in candidate_layouts(len(indices), num_units):
        yield tuple(tuple(indices[place] for place in unit) for unit in places)


def _through(found: list[tuple[Response, list[int]]], num_units: int) -> dict[str, Slot | None] | None:
    """Where the units lie in each leaf on the way, None where all units share the leaf, as heads do a norm of queries;
    None in all where they cannot be told apart in one."""
    slots: dict[str, Slot | None] = {}
    for name in found[0][0].through:
        slots[name] = next(_possible_slots(name, found, num_units), None)
        if slots[name] is None and not _is_shared(name, found):
            return None
    return slots


def _is_shared(name: str, found: list[tuple[Response, list[int]]]) -> bool:
    masks = [mask for response, _ in found for mask in response.through.get(name, {}).values()]
    return all(bool(mask.all()) for mask in masks)


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
