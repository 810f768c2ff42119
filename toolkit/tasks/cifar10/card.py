"""Holds the cards of the tasks cifar10-resnetN, one for each pretrained network. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard, TaskCosts

DEPTHS = (20, 32, 44)

NUM_IMAGES = 2000  # in the validation split


def task_of(depth: int) -> str:
    """Returns the name of the task for the network with `depth` layers."""
    return f"cifar10-resnet{depth}"


def _card(depth: int) -> TaskCard:
    """Returns the card for a depth; two of the blocks change the stream's shape, so they can never be dropped."""
    image_s = 0.00004 * depth
    return TaskCard(
        name=task_of(depth),
        summary=f"classification of CIFAR-10 images by a pretrained ResNet-{depth}",
        factory=f"toolkit.tasks.cifar10.task:make_resnet{depth}",
        num_blocks=(depth - 2) // 2 - 2,
        criteria=("task_metric", "loss", "block_mse", "random"),
        metric="accuracy",
        kinds=("conv",),
        costs=TaskCosts(
            start_s=2.0,
            evaluate_s=NUM_IMAGES * image_s,
            score_pass_s=512 * image_s,
            recover_step_s=16 * 4 * image_s,
            prune_s=2 * 512 * image_s,
            forward_s=image_s,
        ),
    )


CARDS = tuple(map(_card, DEPTHS))
