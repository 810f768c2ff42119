"""Holds a control after GRAIL (arXiv 2602.23795), which refits a layer that reads cut channels to its dense output.

It minimises || W h + b - y ||^2 + ridge || W ||^2, where h are the channels that are left, in the network with the
layers before already refitted, and y is the output of the layer in the dense network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.layers import rows_of
from toolkit.tasks.cifar10.model import CifarBlock

RIDGE = 1e-3  # share of the mean diagonal of the normal equations


@torch.no_grad()
def refit_grail(model: nn.Module, dense: nn.Module, batches: Callable[[], Iterable[Inputs]]) -> None:
    """Refits conv2 of each block whose conv1 is narrower than in `dense` to the output of conv2 in `dense`.

    It changes `model` in place, block by block, on the activations behind the blocks that are refitted already. The
    bias goes into the running mean of bn2.

    batches: returns the inputs to fit on; it is called once for each refitted block.
    """
    for name, block in model.named_modules():
        if not isinstance(block, CifarBlock) or _is_as_wide(block, dense.get_submodule(name)):
            continue
        reads, gives = ActivationPoint(f"{name}.conv2", "input"), ActivationPoint(f"{name}.conv2", "output")
        gram: Tensor | float = 0.0
        cross: Tensor | float = 0.0
        for inputs in batches():
            goal = capture(dense, inputs, [gives])[gives]
            rows = rows_of(block.conv2, capture(model, inputs, [reads])[reads], goal.shape, with_offset=True)
            read = rows.inputs.double()
            gram, cross = gram + read.T @ read, cross + read.T @ rows.pick(goal).double()
        assert isinstance(gram, Tensor)
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        ridge[-1, -1] = 0.0  # the bias is free
        solution = torch.linalg.solve(gram + ridge, cross)
        block.conv2.weight.copy_(solution[:-1].T.reshape(block.conv2.weight.shape))
        mean = block.bn2.running_mean
        assert mean is not None
        mean.sub_(solution[-1])  # the BatchNorm behind the layer carries its bias


def _is_as_wide(block: CifarBlock, dense_block: nn.Module) -> bool:
    return block.conv1.weight.shape == dense_block.get_parameter("conv1.weight").shape
