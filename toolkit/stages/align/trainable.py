"""Which parameters are trained: normalisation, and what lies before the first and after the last block."""

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
    """Names of parameters outside all blocks: those that act before the first one, and those after the last one.

    What lies between two blocks is in neither.
    """

    embedding: frozenset[str]
    head: frozenset[str]


def norm_parameters(model: nn.Module) -> set[str]:
    """Scales and shifts of normalisation layers: modules that are called a norm, with nothing but vectors."""
    found = set()
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(prefix, recurse=False))
        if "norm" in type(module).__name__.lower() and all(parameter.ndim <= 1 for parameter in own.values()):
            found |= set(own)
    return found


def outside_parameters(model: nn.Module, blocks: Sequence[str], inputs: tuple[Tensor, ...]) -> Outside:
    """Told apart by what they act on, not by name: a parameter held by the model itself has no place in the order.

    All floating-point parameters must require gradients. `blocks` are in execution order.
    """
    own = {n: p for n, p in model.named_parameters() if not any(n.startswith(f"{block}.") for block in blocks)}
    with evaluating(model), torch.enable_grad():
        entering, leaving, outputs = _run(model, blocks[0], blocks[-1], inputs)
        before, through, anywhere = (_acting_on(tensors, own) for tensors in (entering, leaving, outputs))
    return Outside(frozenset(before), frozenset(anywhere - through))


def _run(
    model: nn.Module, first: str, last: str, inputs: tuple[Tensor, ...]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What goes into the first block, comes out of the last one, and out of the model."""
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
    """Every floating-point parameter requires gradients; afterwards each has its own flag again.

    Gives the names of the parameters that were frozen, which are not to be trained.
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
