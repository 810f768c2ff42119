"""On a trained CNN: what closed-form repair adds to estimating BatchNorm statistics again, at half of the channels."""

from __future__ import annotations

import copy
import functools
import itertools
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.details import as_json
from tests.helpers.slow import cases
from toolkit.measure.macs import count_macs
from toolkit.repair.batch_norm import reestimate_batch_norms
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.tasks.classification import ClassificationTask


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class DigitsNet(nn.Module):
    """Three residual blocks of two convolutions: [B, 1, 8, 8] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


@functools.cache
def trained_task(seed: int) -> ClassificationTask:
    torch.manual_seed(seed)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    parts = [(images[part], labels[part]) for part in order.split([1097, 300, 400])]
    net = DigitsNet().train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(150):
        rows = torch.randint(1097, (64,))
        optimiser.zero_grad()
        F.cross_entropy(net(parts[0][0][rows]), parts[0][1][rows]).backward()
        optimiser.step()
    reestimate_batch_norms(net, [(parts[0][0],)])  # 150 steps leave statistics of weights that are long gone
    return ClassificationTask(DigitsNet, net, train=parts[0], validation=parts[1], test=parts[2], fixed_examples=300)


def context_of(task: ClassificationTask, like: StageContext) -> StageContext:
    dense = task.load_baseline()

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    return replace(like, dense=dense, dense_macs=macs(dense), count_macs=macs)


def accuracy(task: ClassificationTask, like: StageContext, **settings: str) -> tuple[float, list[dict[str, object]]]:
    """On the test images, half of the channels inside every block gone."""
    config = ChannelPrune.model_validate({"keep": Keep(conv=0.5), "importance": "l1", **settings})
    model, detail = as_json(apply_channel_prune)(task.load_baseline(), task, config, context_of(task, like))
    assert model.blocks[0].conv1.out_channels == 8
    return task.evaluate(model, "test").value, detail["repairs"]


@pytest.mark.parametrize("seeds", cases((1, 3), in_suite=(1,)))
def test_repair_adds_to_new_batch_norm_statistics(seeds: int, tiny_context: StageContext) -> None:
    """Mean over seeds on 400 test images; README shows the figures of 3."""
    raw, renewed, repaired = [], [], []
    for seed in range(seeds):
        task = trained_task(seed)
        raw.append(accuracy(task, tiny_context, repair="none", batch_norm="keep")[0])
        renewed.append(accuracy(task, tiny_context, repair="none")[0])
        value, repairs = accuracy(task, tiny_context)
        repaired.append(value)
        assert [one["layer"] for one in repairs] == [f"blocks.{i}.conv2" for i in range(3)]
        for one in repairs:
            assert one["calibration_error"]["after"] < one["calibration_error"]["before"]
            assert one["holdout_error"]["after"] < one["holdout_error"]["before"]
    print(f"cut {raw}, + statistics {renewed}, + repair {repaired}")
    assert sum(repaired) / seeds > sum(renewed) / seeds + 0.05
    assert all(after > before for after, before in zip(repaired, renewed, strict=True))


def test_repair_of_a_random_cnn_is_never_above_the_unrepaired_error(tiny_context: StageContext) -> None:
    task = trained_task(0)
    torch.manual_seed(5)
    net = DigitsNet().eval()
    context = replace(context_of(task, tiny_context), dense=copy.deepcopy(net))
    config = ChannelPrune(keep=Keep(conv=0.5, embedding=0.5), importance="random")
    _, detail = as_json(apply_channel_prune)(net, task, config, context)
    assert len(detail["repairs"]) == 3 + 3 + 1
    for one in detail["repairs"]:
        assert one["calibration_error"]["after"] <= one["calibration_error"]["before"]


IMPORTANCES = ("activation", "l1", "l2", "taylor", "bn_gamma", "newton", "wanda", "obs", "random")
ALLOCATIONS = ("uniform", "global", "isomorphic")
IN_SUITE = {*((name, "uniform") for name in IMPORTANCES), *(("taylor", name) for name in ALLOCATIONS)}


@pytest.mark.parametrize("pair", cases(itertools.product(IMPORTANCES, ALLOCATIONS), in_suite=IN_SUITE), ids="-".join)
def test_half_of_the_multiply_adds_by_every_importance(pair: tuple[str, str], tiny_context: StageContext) -> None:
    (importance, allocation), digits = pair, trained_task(0)
    config = ChannelPrune.model_validate(
        {"macs_ratio": 0.5, "importance": importance, "allocation": allocation, "round_to": 1, "repair": "none"}
    )
    context = context_of(digits, tiny_context)
    model, detail = as_json(apply_channel_prune)(digits.load_baseline(), digits, config, context)
    assert abs(context.macs_ratio(model) - 0.5) <= 0.02
    kept = [entry["kept"] for entry in detail["groups"] if entry["kind"] == "conv"]
    assert len(kept) == 3 and min(kept) >= 1
    if allocation == "uniform":
        assert len(set(kept)) == 1
