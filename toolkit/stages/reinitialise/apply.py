"""A control: forget all weights, keep the architecture."""

from __future__ import annotations

import torch
from torch import nn

from toolkit.base.errors import StageError
from toolkit.stages.context import StageContext
from toolkit.stages.reinitialise.detail import ReinitialiseDetail
from toolkit.stages.reinitialise.settings import Reinitialise
from toolkit.tasks.task import Task


@torch.no_grad()
def apply_reinitialise(
    model: nn.Module, task: Task, config: Reinitialise, context: StageContext
) -> tuple[nn.Module, ReinitialiseDetail]:
    """Give every layer the weights that a new, untrained model has there (drawn with the stage's seed).

    Raises:
        StageError: a layer is narrower than in the unmodified model, so its weights cannot be drawn.
    """
    torch.manual_seed(context.seed)
    fresh = task.build_model().state_dict()
    own = model.state_dict()
    other = [name for name, value in own.items() if name not in fresh or fresh[name].shape != value.shape]
    if other:
        raise StageError(f"{other[0]} is not as in the unmodified model; reinitialise goes after block drops alone")
    for name, value in own.items():
        value.copy_(fresh[name])
    return model, ReinitialiseDetail(reinitialised=len(own))
