"""Importance `obs`: the score is the error that a refit leaves, and the order is worth it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_task import TinyTask
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.channels.groups import ChannelGroup, Slot
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.stages.channel_prune.elimination import DAMPING, eliminated, elimination_scores
from toolkit.stages.channel_prune.importance import obs, wanda


def refitted_error(rows: Tensor, weights: Tensor, kept: list[int]) -> float:
    """The squared error of the best fit of X W on some columns of X."""
    target = rows @ weights
    solution = torch.linalg.lstsq(rows[:, kept], target).solution
    return float((target - rows[:, kept] @ solution).square().sum())


@pytest.mark.parametrize("size", [1, 2])
def test_scores_are_the_errors_that_refits_leave(size: int) -> None:
    torch.manual_seed(0)
    rows = torch.randn(200, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    weights = torch.randn(8, 3, dtype=torch.float64)
    parts = torch.arange(8).reshape(-1, size)
    scores = eliminated(torch.linalg.inv(rows.T @ rows), weights, parts)
    order = scores.argsort()
    for gone in range(1, len(parts)):
        kept = parts[order[gone:]].flatten().tolist()
        assert float(scores[order[gone - 1]]) == pytest.approx(refitted_error(rows, weights, kept), rel=1e-6)
    first = min(
        refitted_error(rows, weights, [place for part in others for place in part])
        for others in itertools.combinations(parts.tolist(), len(parts) - 1)
    )
    assert float(scores.min()) == pytest.approx(first, rel=1e-6)


def test_a_channel_that_others_make_up_for_goes_first() -> None:
    """By activation times weights it is the most important one."""
    torch.manual_seed(1)
    rows = torch.randn(500, 4)
    rows[:, 3] = 3 * rows[:, 0] + 3 * rows[:, 1]
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    places = tuple((place,) for place in range(4))
    group = ChannelGroup("hidden", "mlp", (Slot("0", "in", places, dim=1),), num_units=4)
    net = nn.Sequential(layer)
    assert wanda(net, [group], [(rows,)])["hidden"].flatten().argmax() == 3
    scores = obs(net, [group], [(rows,)])["hidden"].flatten()
    assert scores[2] > scores.sort().values[1] and scores.min() < 1e-2 * scores.max()
    assert 0 < DAMPING < 1


def test_heads_go_as_wholes(tiny_task: TinyTask) -> None:
    model = tiny_task.load_baseline()
    inputs = tiny_task.example_inputs(2)
    groups = find_groups(model, inputs, find_blocks(model, inputs), tiny_task.protected).groups
    batches = [batch.inputs for batch in tiny_task.batches("calibration", 16)]
    scores = elimination_scores(model, groups, batches)
    assert set(scores) == {group.name for group in groups}
    for group in groups:
        assert scores[group.name].shape == (group.num_units, group.head_dim)
        assert bool(scores[group.name].isfinite().all()) and float(scores[group.name].min()) >= 0
    head = next(group for group in groups if group.kind == "attention")
    seen = torch.cat(
        [
            capture(model, one, [ActivationPoint(head.reader.module, "input")])[
                ActivationPoint(head.reader.module, "input")
            ].flatten(0, -2)
            for one in batches
        ]
    ).double()
    rows = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
    layer = model.get_submodule(head.reader.module)
    weights = torch.cat([layer.weight.detach().double().T, rows.new_zeros(1, len(layer.weight))])
    least = scores[head.name].sum(1).argmin()
    kept = [place for place in range(rows.shape[1]) if place not in head.reader.places[int(least)]]
    assert float(scores[head.name].sum(1).min()) == pytest.approx(refitted_error(rows, weights, kept), rel=0.05)
