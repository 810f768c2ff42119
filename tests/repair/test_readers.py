"""Streams with several readers: a repair for one of them must not spoil what the others read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.details import as_json
from tests.helpers.tiny_task import CHANNELS, CLASSES, TinyTask
from toolkit.hooks.order import execution_order
from toolkit.repair.readers import in_line, reads_alone
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.context import StageContext

WIDTH = 8


class Half(nn.Module):
    """x + 2 mlp(norm(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + 2.0 * self.narrow(F.gelu(self.wide(self.norm(x))))


class Towers(nn.Module):
    """Two branches that read one stem; the second runs right behind the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(CHANNELS, WIDTH), nn.Linear(2 * WIDTH, CLASSES)
        self.left, self.right = (nn.ModuleList(Half() for _ in range(3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        left = right = self.stem(x)
        for block in self.left:
            left = block(left)
        for block in self.right:
            right = block(right)
        return self.head(torch.cat([left, right], dim=-1))


class Tapped(nn.Module):
    """conv2 is read by a BatchNorm and by the sum behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(CHANNELS, 16, 3, padding=1), nn.Conv1d(16, WIDTH, 3, padding=1, bias=False)
        self.norm, self.conv3 = nn.BatchNorm1d(WIDTH), nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.conv2(F.relu(self.conv1(x.mT)))
        return self.head((stream + self.conv3(F.relu(self.norm(stream)))).mT)


def with_dense(net: nn.Module, context: StageContext) -> StageContext:
    return replace(context, dense=net.eval())


def error(dense: nn.Module, model: nn.Module, task: TinyTask) -> float:
    """Relative squared error of the outputs on data that no repair has seen."""
    (batch,) = task.batches("test", 96)
    with torch.no_grad():
        wanted, found = dense(*batch.inputs), model(*batch.inputs)
    return float((found - wanted).square().sum() / wanted.square().sum())


def towers(context: StageContext) -> tuple[nn.Module, StageContext]:
    torch.manual_seed(0)
    net = Towers()
    return net, with_dense(net, context)


def copied(net: nn.Module) -> nn.Module:
    new = type(net)()
    new.load_state_dict(net.state_dict())
    return new.eval()


def test_only_what_reads_the_stream_alone_continues_it(tiny_context: StageContext, tiny_task: TinyTask) -> None:
    net, context = towers(tiny_context)
    inputs = context.example_inputs(tiny_task)
    order = execution_order(net, inputs)
    blocks = [f"{side}.{place}" for side in ("left", "right") for place in range(3)]
    assert in_line(net, blocks, inputs, order) == {"left.1", "left.2", "right.1", "right.2"}
    assert not reads_alone(net, "left.0", "stem", inputs)
    assert reads_alone(net, "left.1", "left.0", inputs)


@pytest.mark.parametrize("repair", ["fold", "bypass", "fold_and_bypass"])
def test_blocks_of_another_branch_are_no_goal_of_a_dropped_block(
    repair: str, tiny_context: StageContext, tiny_task: TinyTask
) -> None:
    net, context = towers(tiny_context)
    gone = BlockDrop(blocks=("right.0",), repair="none")
    model, _ = as_json(apply_block_drop)(copied(net), tiny_task, gone, context)
    errors = {}
    for kind in ("none", repair):
        drop = BlockDrop.model_validate({"blocks": ("left.2",), "repair": kind})
        start, _ = as_json(apply_block_drop)(copied(net), tiny_task, gone, context)
        after, _ = as_json(apply_block_drop)(start, tiny_task, drop, context)
        errors[kind] = error(net, after, tiny_task)
    assert errors[repair] < errors["none"]
    assert errors[repair] < 1.2 * error(net, model, tiny_task)


def test_blocks_of_another_branch_are_no_goal_of_a_narrow_layer(
    tiny_context: StageContext, tiny_task: TinyTask
) -> None:
    net, context = towers(tiny_context)
    errors = {}
    for repair in ("none", "closed_form"):
        gone = BlockDrop(blocks=("right.0",), repair="none")
        model, _ = as_json(apply_block_drop)(copied(net), tiny_task, gone, context)
        narrow = ChannelPrune.model_validate({"widths": {"left.2.wide": 16}, "repair": repair})
        model, _ = as_json(apply_channel_prune)(model, tiny_task, narrow, context)
        errors[repair] = error(net, model, tiny_task)
    assert errors["closed_form"] <= errors["none"]


def test_a_stream_that_others_read_too_is_not_folded_into(tiny_context: StageContext, tiny_task: TinyTask) -> None:
    """The stem feeds both branches; a bypass in the block's place spoils neither."""
    net, context = towers(tiny_context)
    errors = {}
    for repair in ("none", "fold", "fold_and_bypass"):
        drop = BlockDrop.model_validate({"blocks": ("right.0",), "repair": repair})
        model, _ = as_json(apply_block_drop)(copied(net), tiny_task, drop, context)
        errors[repair] = error(net, model, tiny_task)
    assert errors["fold"] == errors["none"]
    assert errors["fold_and_bypass"] < 0.5 * errors["none"]


def test_a_norm_is_fitted_with_its_layer_only_where_it_reads_it_alone(
    tiny_context: StageContext, tiny_task: TinyTask
) -> None:
    torch.manual_seed(0)
    net = Tapped().train()
    for batch in [*tiny_task.batches("calibration", 16)] * 8:
        net(*batch.inputs)
    context = with_dense(net, tiny_context)
    errors = {}
    for repair in ("none", "closed_form"):
        narrow = ChannelPrune.model_validate({"widths": {"conv1": 8}, "repair": repair})
        model, _ = as_json(apply_channel_prune)(copied(net), tiny_task, narrow, context)
        errors[repair] = error(net, model, tiny_task)
    assert errors["closed_form"] < errors["none"]
