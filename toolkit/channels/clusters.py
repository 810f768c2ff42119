"""Finds layers whose outputs reach the same inputs of other layers, before their channels are matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toolkit.channels.changes import Mask
from toolkit.channels.layers import num_outputs
from toolkit.channels.patterns import matches_any
from toolkit.channels.replay import Replay, Response, Source

OPAQUE = "computes with layers that it does not call"


@dataclass
class Cluster:
    """Holds layers that write to the same inputs of other layers.

    producers: names of the layers that write.
    read: for each layer that reads, the indices of its inputs that the producers reach.
    through: for each leaf on the way, the channels that the producers reach, by dimension.
    reason: why none of the producers can be cut; empty if nothing is known against it.
    """

    producers: list[str] = field(default_factory=list)
    read: dict[str, Tensor] = field(default_factory=dict)
    through: dict[str, dict[int, Mask]] = field(default_factory=dict)
    reason: str = ""


def find_clusters(model: nn.Module, replay: Replay, protected: Sequence[str]) -> tuple[list[Cluster], dict[str, str]]:
    """Returns the clusters of all layers, and by name why other layers can never be cut."""
    clusters: list[Cluster] = []
    refused = dict.fromkeys(replay.opaque, OPAQUE)
    for name in replay.layers:
        response = reached(model, replay, name)
        if not response.read:
            refused[name] = "is an output of the model" if response.outputs_changed else "no layer reads it"
            if response.opaque and not response.outputs_changed:
                refused[name] = _read_by(response)
            continue
        new = Cluster([name], _indices(response), response.through, _reason_against(name, response, protected))
        for old in [cluster for cluster in clusters if _overlap(cluster, new)]:
            clusters.remove(old)
            new = _joined(old, new)
        clusters.append(new)
    return clusters, refused


def reached(model: nn.Module, replay: Replay, name: str, channels: Sequence[int] | None = None) -> Response:
    """Returns what changes when the outputs of a layer change: those of the given channels, or all."""
    chosen = torch.ones(num_outputs(model.get_submodule(name)), dtype=torch.bool)
    if channels is not None:
        chosen[:] = False
        chosen[list(channels)] = True
    return replay.respond({Source(name): chosen})


def _indices(response: Response) -> dict[str, Tensor]:
    return {layer: mask.nonzero()[:, 0] for layer, mask in response.read.items()}


def _reason_against(name: str, response: Response, protected: Sequence[str]) -> str:
    if response.outputs_changed:
        return "is an output of the model"
    if response.opaque:
        return _read_by(response)
    return f"{name} is protected" if matches_any(name, protected) else ""


def _read_by(response: Response) -> str:
    return f"is read by {sorted(response.opaque)[0]}, which {OPAQUE}"


def _overlap(one: Cluster, other: Cluster) -> bool:
    shared = one.read.keys() & other.read.keys()
    return any(bool(torch.isin(one.read[layer], other.read[layer]).any()) for layer in shared)


def _joined(one: Cluster, other: Cluster) -> Cluster:
    """Returns the union of two clusters with a common reader.

    All inputs that either of them reaches count, because a gate has no visible effect where its input is zero.
    """
    read = dict(one.read)
    for layer, indices in other.read.items():
        read[layer] = _union(indices, read.get(layer))
    reason = one.reason or other.reason
    return Cluster(one.producers + other.producers, read, one.through | other.through, reason)


def _union(one: Tensor, other: Tensor | None) -> Tensor:
    return one if other is None else torch.tensor(sorted({*one.tolist(), *other.tolist()}))
