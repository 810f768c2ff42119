"""Holds the cards of the tasks tad-hapt, one for each baseline. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard, TaskCosts, seeded_name


def _card(seed: int) -> TaskCard:
    """Returns the card of the task with the baseline of one seed; neither data nor baselines ship."""
    return TaskCard(
        name=seeded_name("tad-hapt", seed),
        summary=f"temporal action detection: activities and postural transitions of UCI HAPT (baseline of seed {seed})",
        factory=f"toolkit.tasks.tad.hapt.task:make_seed{seed}",
        num_blocks=12,
        criteria=("task_metric", "loss", "block_mse", "random"),
        metric="average mAP",
        kinds=("mlp", "heads", "head_dim", "embedding"),
        costs=TaskCosts(
            start_s=5.0, evaluate_s=3.0, score_pass_s=0.5, recover_step_s=0.27, prune_s=6.0, forward_s=0.005
        ),
    )


CARDS = tuple(map(_card, range(3)))
