"""A detector whose blocks return (stream, mask) is given back by a training that ruins it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.detector_net import DetectorTask, LocalAttention
from toolkit import Align, Recover
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.stages.context import StageContext
from toolkit.stages.registry import STAGES
from toolkit.tasks.task import Batch

RATE: dict[str, Any] = {
    **{"max_steps": 2, "validate_every": 2, "batch_size": 4},
    **{"learning_rate": 1.0, "warmup_steps": 0},
}


class OwnAnswers(DetectorTask):
    """The labels are the answers of the detector without its second block, so that nothing is better than these."""

    examples = 16
    answers: nn.Module | None = None

    def build_model(self) -> nn.Module:
        model = super().build_model()
        for module in model.modules():
            if isinstance(module, LocalAttention):
                module.hidden = -1e4  # with -inf no gradient is finite where nothing is in a window
        return model

    def cut(self) -> nn.Module:
        model = self.load_baseline()
        assert "stem.1" in find_blocks(model, self.example_inputs(1))
        drop_block(model, "stem.1")
        return model

    def _batch(self, batch_size: int, seed: int) -> Batch:
        self.answers = self.answers or self.cut()
        batch = super()._batch(batch_size, seed)
        with torch.no_grad():
            return Batch(batch.inputs, self.answers(*batch.inputs).argmax(-1))


@pytest.mark.parametrize("stage", [Recover(**RATE), Align(**RATE, trainable="full")], ids=["recover", "align"])
def test_a_rate_of_one_gives_the_detector_back(stage: Recover | Align, tiny_context: StageContext) -> None:
    task = OwnAnswers()
    context = replace(tiny_context, dense=task.load_baseline())
    before = task.cut().state_dict()
    model, detail = STAGES[stage.type](task.cut(), task, stage, context)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert detail.kept_as_it_came()
