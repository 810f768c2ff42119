"""Holds the card of the task moving-digits. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard, TaskCosts

CARD = TaskCard(
    name="moving-digits",
    summary="classification of clips: which digit is seen, and in which of eight ways it moves",
    factory="toolkit.tasks.moving_digits.task:make_moving_digits",
    num_blocks=3,
    criteria=("task_metric", "loss", "block_mse", "random"),
    metric="joint accuracy",
    kinds=("conv", "embedding"),
    costs=TaskCosts(start_s=3.0, evaluate_s=2.0, score_pass_s=1.0, recover_step_s=0.06, prune_s=6.0, forward_s=0.002),
)
