"""Holds the card of the task zoo. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard

CARD = TaskCard(
    name="zoo",
    summary="any model of torchvision, timm or transformers on made-up inputs, compared with itself",
    factory="toolkit.tasks.agreement.task:make_zoo_task",
    num_blocks=None,
    criteria=("task_metric", "loss", "block_mse", "random"),
    metric="agreement",
    kinds=None,
    costs=None,
    takes_model=True,
    has_labels=False,
)
