"""Finds possible numbers of heads, from attributes of modules, or from how far a change of one channel reaches."""

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
    """Holds a number of heads that an attention may have.

    owner: the name of the module whose attribute holds the number; without such an attribute, of the innermost module
        that contains all layers that write or read the heads.
    """

    number: int
    owner: str


def head_counts(model: nn.Module, replay: Replay, cluster: Cluster, width: int) -> Iterator[HeadCount]:
    """Yields possible numbers of heads that divide `width`, those from attributes first; the caller tries them."""
    layers = (*cluster.producers, *cluster.read)
    from_attributes = list(_told(model, layers, width))
    yield from from_attributes
    if len(cluster.producers) > MOST_LAYERS:
        return
    from_changes = set(_learnt(model, replay, cluster)) - {count.number for count in from_attributes}
    yield from (HeadCount(number, _common_owner(layers)) for number in sorted(from_changes, reverse=True))


def _common_owner(layers: tuple[str, ...]) -> str:
    paths = [layer.split(".")[:-1] for layer in layers]
    shared = 0
    while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return ".".join(paths[0][:shared])


def _told(model: nn.Module, layers: tuple[str, ...], width: int) -> Iterator[HeadCount]:
    """Yields the numbers in attributes whose names contain "head", of the modules around the layers.

    Inner modules come first.
    """
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
    """Says whether the name of an attribute suggests a number of heads, not the size of one."""
    return "head" in attribute and "dim" not in attribute and "size" not in attribute


def _learnt(model: nn.Module, replay: Replay, cluster: Cluster) -> Iterator[int]:
    """Yields how often the inputs that a change of one channel reaches fit into all that the cluster reaches.

    A channel of a query reaches its whole head, so that this is the number of heads. A channel of a value reaches less,
    and a channel of a key that several heads share reaches more. A unit holds whole groups of the norms and
    convolutions on the way.
    """
    granule = math.lcm(*(granule_of(model.get_submodule(leaf)) for leaf in cluster.through))
    for name in cluster.producers:
        size = num_outputs(model.get_submodule(name))
        for channel in dict.fromkeys((0, size // 2, size - 1)):
            read = reached(model, replay, name, [channel]).read
            for layer, mask in read.items():
                whole, part = len(cluster.read.get(layer, ())), math.lcm(int(mask.sum()), granule)
                if part and whole % part == 0 and 1 < whole // part <= _LARGEST_NUMBER_OF_HEADS:
                    yield whole // part
