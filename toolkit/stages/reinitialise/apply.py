"""Draws new weights for what is left of the architecture (a control)."""

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
    """Gives every layer the weights of a new, untrained model, drawn with the seed of the stage.

    Raises:
        StageError: a layer has another shape than in the unmodified model, so its weights cannot be drawn.
    """
    torch.manual_seed(context.seed)
    fresh = task.build_model().state_dict()
    state = model.state_dict()
    changed = [name for name, value in state.items() if name not in fresh or fresh[name].shape != value.shape]
    if changed:
        raise StageError(f"{changed[0]} is not as in the unmodified model; reinitialise can follow block drops only")
    for name, value in state.items():
        value.copy_(fresh[name])
    return model, ReinitialiseDetail(reinitialised=len(state))
