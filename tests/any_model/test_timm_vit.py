"""Block dropping, unchanged, on a timm vision transformer, with its closed-form repair."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from tests.helpers.family_checks import assert_each_block_can_go, assert_reloads, run_drop
from toolkit import BlockDrop, ClassificationTask

BLOCKS = ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5"]
BLOCKS += ["blocks.6", "blocks.7", "blocks.8", "blocks.9", "blocks.10", "blocks.11"]


def build() -> nn.Module:
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64, num_classes=10)
    return model


@pytest.fixture(scope="module")
def task() -> ClassificationTask:
    torch.manual_seed(0)
    data = [(torch.randn(count, 3, 64, 64), torch.randint(10, (count,))) for count in (24, 8, 8)]
    return ClassificationTask(build, build(), train=data[0], validation=data[1], test=data[2], name="images")


def test_blocks(task: ClassificationTask) -> None:
    assert_each_block_can_go(task.load_baseline(), task.example_inputs(1), BLOCKS)


def test_reload(task: ClassificationTask, tmp_path: Path) -> None:
    assert_reloads(task.load_baseline(), build, task.example_inputs(2), ["blocks.0", "blocks.11"], tmp_path / "saved")


@pytest.mark.slow
def test_run_with_repair(task: ClassificationTask, tmp_path: Path) -> None:
    record = run_drop(task, BlockDrop(num_blocks=1, criterion="block_mse"), tmp_path / "run")
    assert record.steps[-1].detail["blocks"] == BLOCKS
    only = record.steps[-1].detail["rounds"][0]
    place = BLOCKS.index(only["dropped"])
    assert place > 0
    assert only["repair"]["layer"] == f"blocks.{place - 1}.mlp.fc2"
    assert only["repair"]["calibration_error"]["after"] < only["repair"]["calibration_error"]["before"]
