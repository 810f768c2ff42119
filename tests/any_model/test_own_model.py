"""Block dropping, unchanged, on a user's own module in a plain Python file, through the API."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.family_checks import assert_each_block_can_go, assert_reloads, run_drop
from tests.helpers.own_model import Sensor
from toolkit import BlockDrop, ClassificationTask

BLOCKS = ["near", "think", "wide.five", "wide.nine", "late"]


@pytest.fixture(scope="module")
def task() -> ClassificationTask:
    torch.manual_seed(0)
    data = [
        (torch.randn(count, 3, 20), torch.randint(8, 21, (count,)), torch.randint(4, (count,)))
        for count in (96, 32, 32)
    ]
    return ClassificationTask(Sensor, Sensor(), train=data[0], validation=data[1], test=data[2], name="sensor")


def test_blocks(task: ClassificationTask) -> None:
    assert_each_block_can_go(task.load_baseline(), task.example_inputs(2), BLOCKS)


def test_reload(task: ClassificationTask, tmp_path: Path) -> None:
    blocks = ["near", "wide.five", "wide.nine"]
    assert_reloads(task.load_baseline(), Sensor, task.example_inputs(2), blocks, tmp_path / "saved")


@pytest.mark.parametrize("criterion", ["task_metric", "loss", "block_mse", "random"])
def test_run(task: ClassificationTask, tmp_path: Path, criterion: str) -> None:
    config = BlockDrop.model_validate({"num_blocks": 3, "criterion": criterion, "repair": "none"})
    record = run_drop(task, config, tmp_path / "run")
    assert record.steps[-1].detail["blocks"] == BLOCKS
