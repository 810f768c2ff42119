"""How much each channel of a group matters; only the order within a group is used."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from toolkit.errors import StageError
from toolkit.stages.channel_groups import ChannelGroup
from toolkit.stages.repair import Inputs, Point, capture, linear_layer


def activation_energy(model: nn.Module, groups: list[ChannelGroup], batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """Mean square of each channel as the consumers read it, over the calibration data: [width] per group."""
    points = {Point(group.consumers[0], "input") for group in groups}
    energy: dict[str, Tensor] = {}
    rows = 0
    for inputs in batches:
        seen = capture(model, inputs, points)
        for group in groups:
            value = seen[Point(group.consumers[0], "input")].flatten(0, -2).double().square().sum(0)
            energy[group.name] = energy.get(group.name, torch.zeros_like(value)) + value
        rows += 1
    if rows == 0:
        raise StageError("importance 'activation' needs calibration data, and the task's split is empty")
    return energy


@torch.no_grad()
def weight_norm(model: nn.Module, group: ChannelGroup, power: int) -> Tensor:
    """L1 (power 1) or squared L2 (power 2) norm of all weights that belong to each channel: [width]."""
    total = torch.zeros(group.width, dtype=torch.float64, device=next(model.parameters()).device)
    for name in group.producers:
        total += linear_layer(model, name).weight.double().abs().pow(power).sum(1)
    for name in group.consumers:
        total += linear_layer(model, name).weight.double().abs().pow(power).sum(0)
    return total


def score_channels(
    model: nn.Module, groups: list[ChannelGroup], importance: str, batches: Iterable[Inputs], seed: int
) -> dict[str, Tensor]:
    """Scores [width] of each group by name, higher is more important.

    `importance`: "activation", "l1", "l2" or "random" (a permutation fixed by the seed and the group's name).
    """
    if importance == "activation":
        return activation_energy(model, groups, batches)
    if importance in ("l1", "l2"):
        return {group.name: weight_norm(model, group, int(importance[1])) for group in groups}
    if importance == "random":
        return {group.name: _random(group, seed) for group in groups}
    raise StageError(f"importance {importance!r} is unknown; choose activation, l1, l2 or random")


def _random(group: ChannelGroup, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {group.name}".encode()))
    return torch.rand(group.width, generator=generator, dtype=torch.float64)


def choose_channels(group: ChannelGroup, scores: Tensor, num_heads: int, head_dim: int) -> list[int]:
    """The `num_heads` best heads, and in each of them its `head_dim` best channels, as sorted indices.

    A group of kind "mlp" counts as one head.
    """
    by_head = scores.detach().cpu().reshape(group.num_heads, group.head_dim)
    heads = by_head.sum(1).topk(num_heads).indices.sort().values
    return [
        int(head) * group.head_dim + int(channel)
        for head in heads
        for channel in by_head[head].topk(head_dim).indices.sort().values
    ]
