"""Block dropping, unchanged, on a torchvision ResNet: blocks that change the shape are no candidates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from tests.helpers.family_checks import assert_each_block_can_go, assert_reloads, run_drop
from toolkit import BlockDrop, ClassificationTask

BLOCKS = ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]


def build() -> nn.Module:
    return resnet18(num_classes=10)


@pytest.fixture(scope="module")
def task() -> ClassificationTask:
    torch.manual_seed(0)
    data = [(torch.randn(count, 3, 64, 64), torch.randint(10, (count,))) for count in (24, 8, 8)]
    return ClassificationTask(build, build(), train=data[0], validation=data[1], test=data[2], name="images")


def test_blocks(task: ClassificationTask) -> None:
    assert_each_block_can_go(task.load_baseline(), task.example_inputs(1), BLOCKS)


def test_reload(task: ClassificationTask, tmp_path: Path) -> None:
    assert_reloads(task.load_baseline(), build, task.example_inputs(2), ["layer1.1", "layer4.1"], tmp_path / "saved")


def test_run(task: ClassificationTask, tmp_path: Path) -> None:
    record = run_drop(task, BlockDrop(num_blocks=1, criterion="loss", repair="none"), tmp_path / "run")
    detail = record.steps[-1].detail
    assert detail["blocks"] == BLOCKS
    assert detail["dropped"][0] == min(detail["rounds"][0]["scores"], key=detail["rounds"][0]["scores"].__getitem__)
