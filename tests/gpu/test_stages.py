"""Every stage on CUDA against the CPU, on a trained net, with TF32 off: the same scores, multiply-adds and metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.cuda_task import run_on
from toolkit.record.run import StepRecord
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover
from toolkit.stages.reinitialise.settings import Reinitialise
from toolkit.stages.settings import Stage
from toolkit.stages.torch_pruning.settings import TorchPruning

CLOSE = 1e-3

KEEP = Keep(mlp=0.5)

CASES: dict[str, tuple[Stage, ...]] = {
    **{
        f"block_drop {criterion}": (BlockDrop.model_validate({"num_blocks": 2, "criterion": criterion}),)
        for criterion in ("loss", "task_metric", "block_mse")
    },
    **{
        f"block_drop {repair}": (BlockDrop.model_validate({"num_blocks": 1, "criterion": "loss", "repair": repair}),)
        for repair in ("bypass", "fold_and_bypass", "none")
    },
    **{
        f"channel_prune {importance}": (ChannelPrune.model_validate({"keep": KEEP, "importance": importance}),)
        for importance in ("activation", "l1", "l2", "taylor", "newton", "wanda", "obs")
    },
    "channel_prune heads": (ChannelPrune(keep=Keep(heads=0.5)),),
    "channel_prune all_layers": (
        BlockDrop(num_blocks=1, criterion="loss"),
        ChannelPrune(keep=KEEP, repair="all_layers"),
    ),
    "recover": (BlockDrop(num_blocks=1, criterion="loss"), Recover(max_steps=3, warmup_steps=0)),
    "align": (BlockDrop(num_blocks=1, criterion="loss"), Align(max_steps=3)),
    "reinitialise": (Reinitialise(),),
    "torch_pruning": (TorchPruning(macs_ratio=0.7),),
}


@pytest.mark.parametrize("stages", CASES.values(), ids=CASES.keys())
def test_cuda_finds_what_the_cpu_finds(stages: tuple[Stage, ...], tmp_path: Path) -> None:
    assert torch.cuda.is_available()
    steps = [run_on(device, tmp_path / device, *stages).steps for device in ("cuda", "cpu")]
    for cuda, cpu in zip(*steps, strict=True):
        assert cuda.measurement.macs.total == cpu.measurement.macs.total
        assert scores_of(cuda) == pytest.approx(scores_of(cpu), rel=CLOSE, abs=CLOSE)
        values = [step.measurement.quality_on("test") for step in (cuda, cpu)]
        assert values[0] is not None and values[1] is not None
        assert values[0].value == pytest.approx(values[1].value, abs=CLOSE)


def scores_of(step: StepRecord) -> dict[str, float]:
    """Returns every score and error in what a stage recorded, by its place."""
    found: dict[str, float] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                walk(part, f"{place}.{name}")
        elif isinstance(value, list):
            for number, part in enumerate(value):
                walk(part, f"{place}.{number}")
        elif isinstance(value, float):
            found[place] = value

    walk({name: part for name, part in step.detail.items() if name != "seconds"}, step.stage)
    return found
