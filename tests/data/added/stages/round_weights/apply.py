"""Round all weights: a made-up stage."""

from __future__ import annotations

import torch
from torch import nn

from toolkit.stages.context import StageContext
from toolkit.stages.round_weights.settings import RoundWeights, RoundWeightsDetail
from toolkit.tasks.task import Task


@torch.no_grad()
def apply_round_weights(
    model: nn.Module, task: Task, config: RoundWeights, context: StageContext
) -> tuple[nn.Module, RoundWeightsDetail]:
    """Changes `model` in place."""
    weights = list(model.parameters())
    for weight in weights:
        weight.copy_(weight.round(decimals=config.decimals))
    return model, RoundWeightsDetail(num_rounded=len(weights))
