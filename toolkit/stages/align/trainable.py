"""Finds the parameters to train: those of norms, and those before the first and after the last block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, watched
from toolkit.hooks.tensors import tensors_in


@dataclass(frozen=True)
class Outside:
    """Holds the names of parameters outside of all blocks: `embedding` before the first block, `head` after the last.

    Parameters between two blocks are in neither.
    """

    embedding: frozenset[str]
    head: frozenset[str]


def norm_parameters(model: nn.Module) -> set[str]:
    """Returns the names of the scales and shifts of normalisation layers.

    A module counts if its class name contains "norm" and its parameters are vectors.
    """
    names = set()
    for prefix, module in model.named_modules():
        parameters = dict(module.named_parameters(prefix, recurse=False))
        if "norm" in type(module).__name__.lower() and all(parameter.ndim <= 1 for parameter in parameters.values()):
            names |= set(parameters)
    return names


def outside_parameters(model: nn.Module, blocks: Sequence[str], inputs: tuple[Tensor, ...]) -> Outside:
    """Returns the parameters outside of all blocks by what they act on.

    Names and order of modules do not tell this for a parameter of the model itself. All floating-point parameters must
    require gradients.

    blocks: names of the blocks in execution order.
    """
    outside = {n: p for n, p in model.named_parameters() if not any(n.startswith(f"{block}.") for block in blocks)}
    with evaluating(model), torch.enable_grad():
        entering, leaving, outputs = _run(model, blocks[0], blocks[-1], inputs)
        before_first, before_last, anywhere = (_acting_on(tensors, outside) for tensors in (entering, leaving, outputs))
    return Outside(frozenset(before_first), frozenset(anywhere - before_last))


def _run(
    model: nn.Module, first: str, last: str, inputs: tuple[Tensor, ...]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Returns the tensors that enter the first block, those that leave the last block, and the outputs of the model."""
    entering, leaving = ActivationPoint(first, "input"), ActivationPoint(last, "output")
    seen: dict[ActivationPoint, list[Tensor]] = {entering: [], leaving: []}
    with watched(model, seen, lambda point, value: seen[point].append(value), live=True):
        outputs = tensors_in(model(*inputs))
    return seen[entering], seen[leaving], outputs


def _acting_on(tensors: Iterable[Tensor], parameters: dict[str, nn.Parameter]) -> set[str]:
    reached = [tensor.float().sum() for tensor in tensors if tensor.requires_grad]
    if not reached or not parameters:
        return set()
    total = torch.stack(reached).sum()
    slopes = torch.autograd.grad(total, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name for name, slope in zip(parameters, slopes, strict=True) if slope is not None}


@contextmanager
def flags_kept(model: nn.Module) -> Iterator[frozenset[str]]:
    """Makes every floating-point parameter require gradients, and restores all flags when the `with` ends.

    It yields the names of the parameters that were frozen, which are not to be trained.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    frozen = frozenset(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(parameter.is_floating_point())
        yield frozen
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
