"""Holds the card of the task tad-watch. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard, TaskCosts

CARD = TaskCard(
    name="tad-watch",
    summary="temporal action detection: exercises in spliced smartwatch recordings",
    factory="toolkit.tasks.tad.watch.task:make_watch_task",
    num_blocks=12,
    criteria=("task_metric", "loss", "block_mse", "random"),
    metric="average mAP",
    kinds=("mlp", "heads", "head_dim", "embedding"),
    costs=TaskCosts(start_s=5.0, evaluate_s=1.2, score_pass_s=0.4, recover_step_s=0.27, prune_s=6.0, forward_s=0.005),
)
