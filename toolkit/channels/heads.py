"""How many heads there may be: told by attributes of the modules around, or by how far a change of one channel goes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from toolkit.channels.clusters import Cluster, reached
from toolkit.channels.layers import num_outputs
from toolkit.channels.layout import granule_of
from toolkit.channels.replay import Replay
from toolkit.channels.units import MOST_LAYERS

_LARGEST_NUMBER_OF_HEADS = 256


@dataclass(frozen=True)
class HeadCount:
    """There may be `number` heads; `owner` is the module that says so, or the innermost one that holds all layers."""

    number: int
    owner: str


def head_counts(model: nn.Module, replay: Replay, cluster: Cluster, width: int) -> Iterator[HeadCount]:
    """Numbers of heads that divide `width`, those of attributes first. The caller tries them out."""
    layers = (*cluster.producers, *cluster.read)
    told = list(_told(model, layers, width))
    yield from told
    if len(cluster.producers) > MOST_LAYERS:
        return
    learnt = set(_learnt(model, replay, cluster)) - {count.number for count in told}
    yield from (HeadCount(number, _common_owner(layers)) for number in sorted(learnt, reverse=True))


def _common_owner(layers: tuple[str, ...]) -> str:
    paths = [layer.split(".")[:-1] for layer in layers]
    shared = 0
    while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return ".".join(paths[0][:shared])


def _told(model: nn.Module, layers: tuple[str, ...], width: int) -> Iterator[HeadCount]:
    """Of the modules around the layers, the innermost module first: attributes whose names speak of heads."""
    seen = set()
    for layer in layers:
        name = layer
        for _ in range(2):  # the module of the layer, and the one around it
            if not name:
                break
            name = name.rpartition(".")[0]
            if name in seen:
                continue
            seen.add(name)
            for attribute, value in vars(model.get_submodule(name)).items():
                is_number = type(value) is int and 1 < value <= min(width, _LARGEST_NUMBER_OF_HEADS)
                if is_number and speaks_of_heads(attribute) and width % value == 0:
                    yield HeadCount(value, name)


def speaks_of_heads(attribute: str) -> bool:
    return "head" in attribute and "dim" not in attribute and "size" not in attribute


def _learnt(model: nn.Module, replay: Replay, cluster: Cluster) -> Iterator[int]:
    """A channel of a query reaches its whole head: how often that fits into what is read is the number of heads.

    A channel of a value reaches less, that of a key which several heads share more. A unit holds whole groups of the
    norms and convolutions on the way.
    """
    granule = math.lcm(*(granule_of(model.get_submodule(leaf)) for leaf in cluster.through))
    for name in cluster.producers:
        size = num_outputs(model.get_submodule(name))
        for channel in dict.fromkeys((0, size // 2, size - 1)):
            found = reached(model, replay, name, [channel]).read
            for layer, mask in found.items():
                whole, part = len(cluster.read.get(layer, ())), math.lcm(int(mask.sum()), granule)
                if part and whole % part == 0 and 1 < whole // part <= _LARGEST_NUMBER_OF_HEADS:
                    yield whole // part
