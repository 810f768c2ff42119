"""Holds the card of the task images. Nothing here imports torch."""

from __future__ import annotations

from toolkit.tasks.contract import TaskCard
from toolkit.tasks.images.settings import ACCURACY, NAME, ImageSettings

CARD = TaskCard(
    name=NAME,
    summary="classification: pictures of your own (folder, list, npz, torchvision) by a model of timm or torchvision",
    factory="toolkit.tasks.images.task:make_image_task",
    num_blocks=None,
    criteria=("task_metric", "loss", "block_mse", "random"),
    metric=ACCURACY,
    kinds=None,
    costs=None,
    settings=ImageSettings,
    look="toolkit.tasks.images.look:look_at_files",
)
