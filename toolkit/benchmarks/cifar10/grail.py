"""A control after GRAIL (arXiv 2602.23795): the layer that reads cut channels is refitted to its own dense output.

min || W h + b - y ||^2 + ridge || W ||^2, where h are the channels that are left in the network cut so far and y is
the layer's output in the dense network. The ridge pulls towards 0, and the bias is fitted too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.layers import rows_of
from toolkit.tasks.cifar10.model import CifarBlock

RIDGE = 1e-3  # of the mean diagonal of the normal equations


@torch.no_grad()
def refit_grail(model: nn.Module, dense: nn.Module, batches: Callable[[], Iterable[Inputs]]) -> None:
    """Refits, in place and in order, the second convolution of each block whose first one was made narrower."""
    for name, block in model.named_modules():
        if not isinstance(block, CifarBlock) or _is_as_wide(block, dense.get_submodule(name)):
            continue
        reads, gives = ActivationPoint(f"{name}.conv2", "input"), ActivationPoint(f"{name}.conv2", "output")
        gram: Tensor | float = 0.0
        cross: Tensor | float = 0.0
        for inputs in batches():
            goal = capture(dense, inputs, [gives])[gives]
            rows = rows_of(block.conv2, capture(model, inputs, [reads])[reads], goal.shape, with_offset=True)
            own = rows.inputs.double()
            gram, cross = gram + own.T @ own, cross + own.T @ rows.pick(goal).double()
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
