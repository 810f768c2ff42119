"""Bypasses and folds on every kind of residual block: never above the plain drop, exact where there is an answer."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.block_nets import KINDS, LAYERS, POST_ACTIVATION, WIDTH, BlockNet, block_net, net_inputs
from toolkit.base.errors import StageError
from toolkit.blocks.drop import block_end, drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair import bypass
from toolkit.repair.bypass import BypassSite, FittedBypass, fit_bypasses
from toolkit.repair.fit import install
from toolkit.repair.stream import bypass_arguments
from toolkit.stages.block_drop import repairs
from toolkit.stages.block_drop.repairs import BlockRepair, repair_blocks
from toolkit.stages.block_drop.settings import RepairKind
from toolkit.stages.context import StageContext
from toolkit.tasks.classification import ClassificationTask

SPLITS = ("train", "validation", "test")

BLOCKS = [f"blocks.{index}" for index in range(3)]


def site_of(net: nn.Module, block: str, kind: str, rank: int | None = None) -> BypassSite:
    inputs = net_inputs(kind, 0)[0]
    find_blocks(net, inputs)
    end = block_end(net, block)
    arguments = bypass_arguments(net, block, inputs, structure=end.structure, behind=end.behind, rank=rank)
    assert arguments is not None
    return BypassSite(block, ActivationPoint(block, "output"), arguments)


def fitted(net: nn.Module, block: str, kind: str, rank: int | None = None) -> FittedBypass:
    (found,) = fit_bypasses(net, net, [site_of(net, block, kind, rank)], net_inputs(kind, 1), net_inputs(kind, 2))
    return found


def error_without(net: nn.Module, block: str, data: Iterable[tuple[Tensor, ...]], repair: BlockRepair) -> float:
    """Relative squared error of the stream behind the block when it is gone, in float64, by running the short net."""
    batches = list(data)
    dense, short = copy.deepcopy(net).double(), copy.deepcopy(net)
    find_blocks(short, batches[0])
    if repair.fold is not None:
        install(short, repair.fold)
    drop_block(short, block, None if repair.bypass is None else copy.deepcopy(repair.bypass.module))
    short, point = short.double(), ActivationPoint(block, "output")
    error = scale = 0.0
    for (inputs,) in batches:
        wanted, found = (capture(one, (inputs.double(),), {point})[point] for one in (dense, short))
        error += float((found - wanted).square().sum())
        scale += float(wanted.square().sum())
    return error / scale


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_and_what_stands_behind_the_sum_are_told(kind: str) -> None:
    arguments = site_of(block_net(kind), "blocks.1", kind).arguments
    assert arguments.layer == LAYERS.get(kind, "conv2d")
    assert (arguments.channels, arguments.rank) == (WIDTH, None)
    assert arguments.behind == ("relu" if kind in POST_ACTIVATION else "nothing")
    assert arguments.structure.kind == ("tuple" if kind == "transformer" else "tensor")


def test_a_square_stream_with_channels_last_is_not_taken_for_channels_first() -> None:
    """All of its three inner dimensions are as long: the shape alone says nothing."""
    net = nn.Sequential(KINDS["channels last"](), KINDS["channels last"]()).eval()
    inputs = (torch.randn(2, WIDTH, WIDTH, WIDTH),)
    assert find_blocks(net, inputs) == ["0", "1"]
    end = block_end(net, "1")
    found = bypass_arguments(net, "1", inputs, structure=end.structure, behind=end.behind)
    assert found is not None and found.layer == "linear"


def data_of(kind: str, seed: int = 1) -> tuple[Tensor, Tensor]:
    inputs = torch.cat([part for (part,) in net_inputs(kind, seed)])
    return inputs, torch.arange(len(inputs)) % 5


def task_of(kind: str) -> ClassificationTask:
    data = {split: data_of(kind, seed) for seed, split in enumerate(SPLITS, 1)}
    return ClassificationTask(lambda: BlockNet(kind), block_net(kind), **data, fixed_examples=20)


def repaired(kind: str, way: RepairKind, like: StageContext, **options: Any) -> dict[str, BlockRepair]:
    task = task_of(kind)
    net = task.load_baseline()
    find_blocks(net, task.example_inputs(1))
    context = replace(like, dense=net)
    return repair_blocks(net, copy.deepcopy(net), BLOCKS, task, context, way, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_no_repair_is_above_the_plain_drop_and_both_not_above_either(kind: str, tiny_context: StageContext) -> None:
    ways: tuple[RepairKind, ...] = ("fold", "bypass", "fold_and_bypass")
    found = {way: repaired(kind, way, tiny_context) for way in ways}
    task = task_of(kind)
    net, data = task.load_baseline(), [batch.inputs for batch in task.batches("calibration", 16)]
    for block in BLOCKS:
        plain = error_without(net, block, data, BlockRepair())
        errors = {way: error_without(net, block, data, found[way][block]) for way in ways}
        assert max(errors.values()) <= plain * (1 + 1e-9)
        assert errors["bypass"] < plain
        assert errors["fold_and_bypass"] <= min(errors["fold"], errors["bypass"]) * (1 + 1e-4)
        for way, error in errors.items():
            recorded = found[way][block].calibration_error
            if recorded is not None:
                assert recorded == pytest.approx((plain, error), rel=1e-2)
    assert any(found["fold"][block].fold is not None for block in BLOCKS)
    assert all(found["bypass"][block].fold is None for block in BLOCKS)


@pytest.mark.parametrize("kind", ["basic", "transformer"])
def test_more_rank_is_not_worse_and_full_rank_is_the_full_map(kind: str) -> None:
    net = block_net(kind)
    data = net_inputs(kind, 1)
    plain = error_without(net, "blocks.1", data, BlockRepair())
    found = [fitted(net, "blocks.1", kind, rank) for rank in (1, 2, 4, WIDTH, None)]
    errors = [error_without(net, "blocks.1", data, BlockRepair(bypass=one)) for one in found]
    assert all(
        one.calibration_error == pytest.approx((plain, error), rel=1e-2)
        for one, error in zip(found, errors, strict=True)
    )
    assert plain > errors[0] > errors[1] > errors[2] >= errors[3] * (1 - 1e-3)
    assert errors[3] == pytest.approx(errors[4], rel=0.02)


class Exact(nn.Module):
    """act(x + D x + c), D of the given rank."""

    def __init__(self, acts: bool, linear: bool, rank: int) -> None:
        super().__init__()
        self.acts = acts
        self.map = nn.Linear(WIDTH, WIDTH) if linear else nn.Conv2d(WIDTH, WIDTH, 1)
        weight = torch.randn(WIDTH, rank) @ torch.randn(rank, WIDTH) / WIDTH
        self.map.weight.data = weight.reshape(self.map.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        total = x + self.map(x)
        return F.relu(total) if self.acts else total


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", ["basic", "pre-activation", "channels last"])
def test_a_linear_block_is_replaced_exactly(kind: str, rank: int | None) -> None:
    net = block_net(kind)
    torch.manual_seed(1)
    net.blocks[1] = Exact(kind == "basic", kind == "channels last", rank or WIDTH)
    exact = BlockRepair(bypass=fitted(net.eval(), "blocks.1", kind, rank))
    for seed, repair, least, most in ((1, BlockRepair(), 0.1, 9), (1, exact, 0, 1e-4), (2, exact, 0, 1e-4)):
        assert least <= error_without(net, "blocks.1", net_inputs(kind, seed), repair) < most


def test_what_a_block_gone_behind_it_did_is_made_up_for_too(tiny_context: StageContext) -> None:
    """With nothing in the place of the next block the goal lies behind that; with a bypass there it does not."""
    task = task_of("basic")
    for stand_in, goal in ((None, "blocks.1"), ("bypass", "blocks.0")):
        net = task.load_baseline()
        find_blocks(net, task.example_inputs(1))
        module = fitted(net, "blocks.1", "basic").module if stand_in else None
        drop_block(net, "blocks.1", module)
        context = replace(tiny_context, dense=task.load_baseline())
        repair = repair_blocks(net, context.dense, ["blocks.0"], task, context, "bypass")["blocks.0"]
        assert repair.bypass is not None and repair.bypass.site.goal == ActivationPoint(goal, "output")


def test_the_models_are_left_as_they_were(tiny_context: StageContext) -> None:
    net = block_net("basic")
    before, modules = copy.deepcopy(net.state_dict()), list(net.modules())
    fitted(net, "blocks.1", "basic", 2)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert list(net.modules()) == modules
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in modules)


def test_a_cut_to_a_rank_that_makes_things_worse_becomes_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the fit of what writes the stream cannot make up for a reading that is wrong, nothing is added."""
    net = block_net("basic")

    def wrong(*args: Any) -> Any:
        found = real(*args)
        if args[0].arguments.rank is None:
            return found
        for parameter in found.module.parameters():
            parameter.data.fill_(5.0)
        return replace(found, calibration_error=(99.0, 98.0), holdout_error=(99.0, 98.0))

    real = bypass._fit
    monkeypatch.setattr(bypass, "_fit", wrong)
    found = fitted(net, "blocks.1", "basic", 2)
    assert found.calibration_error[0] == found.calibration_error[1] < 1
    assert found.holdout_error is not None and found.holdout_error[0] == found.holdout_error[1] < 1
    assert not any(bool(parameter.any()) for parameter in found.module.parameters())


@pytest.mark.parametrize(("way", "left"), [("bypass", None), ("fold_and_bypass", "fold")])
@pytest.mark.parametrize(
    "errors", [{"holdout_error": (0.1, 0.2)}, {"calibration_error": (0.1, 0.1)}], ids=["worse elsewhere", "no gain"]
)
def test_a_bypass_that_gains_nothing_is_not_made(
    way: RepairKind, left: str | None, errors: Any, tiny_context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = repairs.fit_bypasses
    monkeypatch.setattr(repairs, "fit_bypasses", lambda *args: [replace(one, **errors) for one in real(*args)])
    for repair in repaired("basic", way, tiny_context).values():
        assert repair.bypass is None
        assert (repair.detail() or {}).get("kind") == left


@pytest.mark.parametrize("way", ["bypass", "fold_and_bypass"])
def test_a_rank_above_the_channels_is_refused(way: RepairKind, tiny_context: StageContext) -> None:
    with pytest.raises(StageError, match=r"rank is 9, but the stream at blocks\.0 has 8 channels: at most 8"):
        repaired("basic", way, tiny_context, rank=9)


def test_streams_of_other_widths_are_refused() -> None:
    net, wide = block_net("basic"), block_net("basic")
    wide.blocks[1] = nn.Conv2d(WIDTH, WIDTH + 1, 1)
    wide.blocks[2], site = nn.Identity(), site_of(net, "blocks.1", "basic")
    with pytest.raises(StageError, match=r"no bypass for blocks\.1: the stream before it has shape \(16, 8, 7, 9\)"):
        fit_bypasses(net, wide, [site], net_inputs("basic", 1), net_inputs("basic", 2))
