"""A detector whose blocks return (stream, mask): compressed by a run, and given back by a training that ruins it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.helpers.detector_net import DetectorTask, LocalAttention
from toolkit import Align, BlockDrop, ChannelPrune, Keep, Measure, Recipe, Recover, load_model, run
from toolkit.base.console import Console
from toolkit.checkpoint.manifest import WEIGHTS_FILE
from toolkit.tasks.task import Batch


class OwnAnswers(DetectorTask):
    """The labels are the answers of the unmodified detector, so that nothing is better than that."""

    examples = 16

    def build_model(self) -> nn.Module:
        model = super().build_model()
        for module in model.modules():
            if isinstance(module, LocalAttention):
                module.hidden = -1e4  # with -inf no gradient is finite where nothing is in a window
        return model

    def _batch(self, batch_size: int, seed: int) -> Batch:
        batch = super()._batch(batch_size, seed)
        if not hasattr(self, "dense"):
            self.dense = self.load_baseline()
        with torch.no_grad():
            return Batch(batch.inputs, self.dense(*batch.inputs).argmax(-1))


def test_a_run_with_trainings_at_a_rate_of_one(tmp_path: Path, quiet: Console) -> None:
    steps: dict[str, Any] = {"max_steps": 2, "validate_every": 2, "batch_size": 4}
    rate = steps | {"learning_rate": 1.0, "warmup_steps": 0}
    stages = (
        BlockDrop(blocks=("stem.1",), repair="none"),
        ChannelPrune(keep=Keep(conv=0.5, heads=0.5), round_to=1, repair="none"),
        Recover(**rate),
        Align(**rate, trainable="full"),
    )
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    recipe = Recipe(name="r", task="detector", seed=0, device="cpu", stages=stages, measure=measure)
    task, out = OwnAnswers(), tmp_path / "run"
    record = run(recipe, task=task, out=out, console=quiet)

    model = load_model(out, task.build_model())
    assert [block.mlp[0].out_channels for place, block in enumerate(model.stem) if place != 1] == [16, 16]
    assert [block.attn.query.out_channels for block in model.branch] == [8, 8]
    weights = [(folder / WEIGHTS_FILE).read_bytes() for folder in sorted((out / "stages").iterdir())]
    assert len(weights) == 4
    assert weights[1] == weights[2] == weights[3] != weights[0]
    assert [step.detail["kept_step"] for step in record.steps[3:]] == [0, 0]
