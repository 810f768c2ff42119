"""Every stage on CUDA against the CPU, on a trained net, with TF32 off: the same scores, multiply-adds and metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.conv_nets import conv_task
from tests.helpers.cuda_task import run_on
from toolkit.base.console import Console
from toolkit.hooks.copies import copy_model
from toolkit.measure.macs import count_macs
from toolkit.record.run import StepRecord
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.stages.recover.settings import Recover
from toolkit.stages.reinitialise.settings import Reinitialise
from toolkit.stages.settings import Stage
from toolkit.stages.torch_pruning.settings import TorchPruning
from toolkit.stages.va_red.apply import apply_va_red
from toolkit.stages.va_red.settings import VaRed

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


OF_CONVOLUTIONS = VaRed(scope="constant", macs_ratio=0.5)  # the detector of the other cases has none


def test_dynamic_convolutions_compute_the_same_on_cuda() -> None:
    assert torch.cuda.is_available()
    task = conv_task(3)
    models, details = [], []
    for device in ("cpu", "cuda"):
        dense = task.load_baseline().to(device)
        inputs = tuple(part.to(device) for part in task.example_inputs(1))
        context = StageContext(
            dense=copy_model(dense),
            dense_macs=count_macs(dense, inputs).total,
            count_macs=lambda model, given=inputs: count_macs(model, given).total,
            device=torch.device(device),
            seed=0,
            console=Console(),
        )
        model, detail = apply_va_red(dense, task, OF_CONVOLUTIONS, context)
        models.append(model)
        details.append(detail)
    assert details[0].macs_ratio.achieved == details[1].macs_ratio.achieved
    (inputs,) = task.example_inputs(8)
    with torch.no_grad():
        torch.testing.assert_close(models[1](inputs.cuda()).cpu(), models[0](inputs), rtol=CLOSE, atol=CLOSE)


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
