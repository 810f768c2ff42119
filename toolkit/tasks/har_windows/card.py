"""Holds the cards of the tasks har-windows, one for each baseline. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard, TaskCosts, seeded_name

FAMILY = "har-windows"


def _card(seed: int) -> TaskCard:
    """Returns the card of the task with the baseline of one seed; neither data nor baselines ship."""
    return TaskCard(
        name=seeded_name(FAMILY, seed),
        summary=f"classification: activities in sensor windows of UCI HAPT (baseline of seed {seed})",
        factory=f"toolkit.tasks.har_windows.task:make_seed{seed}",
        num_blocks=2,
        criteria=("task_metric", "loss", "block_mse", "random"),
        metric="accuracy",
        kinds=("conv", "embedding"),
        costs=TaskCosts(
            start_s=3.0, evaluate_s=0.5, score_pass_s=0.2, recover_step_s=0.02, prune_s=1.0, forward_s=0.0005
        ),
    )


CARDS = tuple(map(_card, range(3)))
