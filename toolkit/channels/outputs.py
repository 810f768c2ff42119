"""Finds the layers whose channels are those of the model's outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.channels.layers import num_outputs
from toolkit.channels.replay import Source, replaying
from toolkit.hooks.paths import Path


def output_layers(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Returns the layers that mix channels and whose outputs reach the model's outputs before another layer reads them.

    Layers that are called more than once are left out. The model is left unchanged.
    """
    with replaying(model, Path(inputs)) as replay:
        masks = {name: torch.ones(num_outputs(model.get_submodule(name)), dtype=torch.bool) for name in replay.layers}
        return tuple(name for name, mask in masks.items() if replay.respond({Source(name): mask}).outputs_changed)
