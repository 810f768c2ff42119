"""Holds a control after ReplaceMe (arXiv 2505.02819), which folds a linear map into the layer before dropped blocks.

For each run of dropped blocks it fits one C x C map T of the output of the last convolution before the run, its
BatchNorm included. It minimises || x + m T - y ||^2 + ridge || T ||^2, where x is the shortcut, m is that output, and y
is the dense stream after the dropped blocks. There is no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.tasks.cifar10.model import CifarBlock

RIDGE = 1e-3  # share of the mean diagonal of the normal equations


def refit_replace_me(
    model: nn.Module, dense: nn.Module, dropped: Sequence[str], batches: Callable[[], Iterable[Inputs]]
) -> None:
    """Refits the layer before each run of dropped blocks to the stream that `dense` has behind the run, in place.

    model: the dense model without the dropped blocks, which is changed.
    batches: returns the inputs to fit on; it is called once for each run.
    """
    for run in _runs(dense, dropped):
        before = _block_before(dense, run[0])
        conv, norm = (f"{before}.conv2", f"{before}.bn2") if before else ("conv1", "bn1")
        gram: Tensor | float = 0.0
        cross: Tensor | float = 0.0
        for inputs in batches():
            added, shortcut = _added(model, before, norm, inputs)
            end = ActivationPoint(run[-1], "output")
            goal = _rows(capture(dense, inputs, [end])[end])
            gram, cross = gram + added.T @ added, cross + added.T @ (goal - shortcut)
        assert isinstance(gram, Tensor)
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        fold(model.get_submodule(conv), model.get_submodule(norm), torch.linalg.solve(gram + ridge, cross))


@torch.no_grad()
def fold(conv: nn.Module, norm: nn.Module, mixing: Tensor) -> None:
    """Folds a linear map of the outputs of `norm` into the convolution and its BatchNorm, in place.

    mixing: the map, which is multiplied from the right to rows of C channels: [C, C].
    """
    weight, bias = conv.get_parameter("weight"), norm.get_parameter("bias")
    mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    deviation = (variance + float(norm.eps)).sqrt()  # type: ignore[arg-type]  # every BatchNorm has it
    scale = norm.get_parameter("weight").double() / deviation
    offset = bias.double() - scale * mean
    flat = weight.double().flatten(1)
    weight.copy_((mixing.T @ (scale[:, None] * flat)).reshape(weight.shape))
    bias.copy_(mixing.T @ offset)
    norm.get_parameter("weight").copy_(deviation)
    norm.get_buffer("running_mean").zero_()


@torch.no_grad()
def _added(model: nn.Module, before: str, norm: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Returns what a block adds to the stream, and the shortcut that it is added to (0 for the stem): [places, C]."""
    points = [ActivationPoint(norm, "output"), *([ActivationPoint(before, "input")] if before else [])]
    seen = capture(model, inputs, points)
    added = _rows(seen[points[0]])
    if not before:
        return added, torch.zeros_like(added)
    block = model.get_submodule(before)
    assert isinstance(block, CifarBlock)
    return added, _rows(block.shortcut(seen[points[1]]))


def _rows(images: Tensor) -> Tensor:
    return images.movedim(1, -1).flatten(0, -2).double()


def _blocks(dense: nn.Module) -> list[str]:
    return [name for name, module in dense.named_modules() if isinstance(module, CifarBlock)]


def _block_before(dense: nn.Module, block: str) -> str:
    """Returns the block before the first one of a run, or an empty text if that is the stem."""
    blocks = _blocks(dense)
    return blocks[blocks.index(block) - 1] if blocks.index(block) else ""


def _runs(dense: nn.Module, dropped: Sequence[str]) -> list[list[str]]:
    """Returns the runs of dropped blocks that follow each other without a gap, in order."""
    runs: list[list[str]] = []
    gap = True
    for block in _blocks(dense):
        if block not in dropped:
            gap = True
            continue
        if gap:
            runs.append([])
        runs[-1].append(block)
        gap = False
    return runs
