"""The card of the task `ramps`, which is made up, and its settings. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from toolkit.base.settings import Positive
from toolkit.tasks.contract import TaskCard, TaskCosts, TaskFault, TaskSettings


class Ramps(TaskSettings):
    """Which of `channels` channels rises fastest, by a net of `num_blocks` blocks."""

    type: Literal["ramps"] = "ramps"
    channels: Positive
    num_blocks: Positive = 3

    def faults(self) -> Iterator[TaskFault]:
        if self.channels < 2:
            yield ("channels",), "there must be two channels to compare"

    def card(self, card: TaskCard) -> TaskCard:
        return replace(card, num_blocks=self.num_blocks)


CARD = TaskCard(
    name="ramps",
    summary="which channel rises fastest",
    factory="toolkit.tasks.ramps.task:make_ramps_task",
    num_blocks=None,
    criteria=("task_metric", "loss"),
    metric="accuracy",
    kinds=("mlp",),
    costs=TaskCosts(start_s=1.0, evaluate_s=1.0, score_pass_s=1.0, recover_step_s=1.0, prune_s=1.0, forward_s=0.0),
    settings=Ramps,
)
