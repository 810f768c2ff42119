"""Finds the order in which a forward pass calls the modules of a model."""

from __future__ import annotations

import torch
from torch import nn

from toolkit.hooks.held import attributes_kept
from toolkit.hooks.points import Inputs


def execution_order(model: nn.Module, inputs: Inputs) -> list[str]:
    """Returns the names of the modules that one forward pass calls, in the order in which their calls begin."""
    order: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _, __, n=name: order.append(n))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad(), attributes_kept(model):
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return order
