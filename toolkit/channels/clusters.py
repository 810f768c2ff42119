"""Layers whose outputs reach the same channels of the same readers, before it is known which channels go together."""

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
    """`producers`: layers whose outputs reach the inputs `read` of layers, by their indices, through the leaves on the
    way. `reason`: why none of them can be cut; empty where nothing is known against it."""

    producers: list[str] = field(default_factory=list)
    read: dict[str, Tensor] = field(default_factory=dict)
    through: dict[str, dict[int, Mask]] = field(default_factory=dict)
    reason: str = ""


def find_clusters(model: nn.Module, replay: Replay, protected: Sequence[str]) -> tuple[list[Cluster], dict[str, str]]:
    """Joins the layers that write to the same inputs of a reader; and why the others can never be cut, by name."""
    clusters: list[Cluster] = []
    refused = dict.fromkeys(replay.opaque, OPAQUE)
    for name in replay.layers:
        found = reached(model, replay, name)
        if not found.read:
            refused[name] = "is an output of the model" if found.outputs_changed else "no layer reads it"
            if found.opaque and not found.outputs_changed:
                refused[name] = _read_by(found)
            continue
        new = Cluster([name], _indices(found), found.through, _reason_against(name, found, protected))
        for old in [cluster for cluster in clusters if _overlap(cluster, new)]:
            clusters.remove(old)
            new = _joined(old, new)
        clusters.append(new)
    return clusters, refused


def reached(model: nn.Module, replay: Replay, name: str, channels: Sequence[int] | None = None) -> Response:
    """What changes when outputs of a layer do: those of the given channels, or all."""
    chosen = torch.ones(num_outputs(model.get_submodule(name)), dtype=torch.bool)
    if channels is not None:
        chosen[:] = False
        chosen[list(channels)] = True
    return replay.respond({Source(name): chosen})


def _indices(found: Response) -> dict[str, Tensor]:
    return {layer: mask.nonzero()[:, 0] for layer, mask in found.read.items()}


def _reason_against(name: str, found: Response, protected: Sequence[str]) -> str:
    if found.outputs_changed:
        return "is an output of the model"
    if found.opaque:
        return _read_by(found)
    return f"{name} is protected" if matches_any(name, protected) else ""


def _read_by(found: Response) -> str:
    return f"is read by {sorted(found.opaque)[0]}, which {OPAQUE}"


def _overlap(one: Cluster, other: Cluster) -> bool:
    shared = one.read.keys() & other.read.keys()
    return any(bool(torch.isin(one.read[layer], other.read[layer]).any()) for layer in shared)


def _joined(one: Cluster, other: Cluster) -> Cluster:
    """What one of them changes counts: a gate's change cannot be seen where what it gates is zero."""
    read = dict(one.read)
    for layer, indices in other.read.items():
        read[layer] = _union(indices, read.get(layer))
    reason = one.reason or other.reason
    return Cluster(one.producers + other.producers, read, one.through | other.through, reason)


def _union(one: Tensor, other: Tensor | None) -> Tensor:
    return one if other is None else torch.tensor(sorted({*one.tolist(), *other.tolist()}))
