"""Estimates BatchNorm statistics again on calibration data after a cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.site import Site


def batch_norms(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Returns the BatchNorm layers that keep running statistics, by name."""
    kind = nn.modules.batchnorm._BatchNorm
    named = model.named_modules()
    return {name: norm for name, norm in named if isinstance(norm, kind) and norm.running_mean is not None}


@torch.no_grad()
def reestimate_batch_norms(model: nn.Module, batches: Iterable[Inputs], names: Sequence[str] | None = None) -> int:
    """Replaces running means and variances by their plain averages over the batches.

    Everything but BatchNorm stays in eval mode. A layer that sees one value per channel keeps its statistics.

    names: the layers to estimate again, in execution order, each of which runs once; the passes end behind the last of
        them. None stands for all layers.

    Returns the number of layers whose statistics were replaced.
    """
    all_norms = batch_norms(model)
    norms = [all_norms[name] for name in (all_norms if names is None else names)]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    old_statistics = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    too_few: set[int] = set()
    handles = [norm.register_forward_pre_hook(_noting_small(too_few)) for norm in norms]
    with evaluating(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average
                norm.training = True
            for inputs in batches:
                if names is None:
                    model(*inputs)
                else:
                    capture(model, inputs, [ActivationPoint(names[-1], "output")])
        finally:
            for handle in handles:
                handle.remove()
            for norm, momentum, statistics in zip(norms, momenta, old_statistics, strict=True):
                norm.momentum = momentum
                if id(norm) in too_few or not norm.num_batches_tracked:
                    norm.load_state_dict(statistics, strict=False)
    return sum(id(norm) not in too_few for norm in norms)


def norms_to_reestimate(
    model: nn.Module, order: Sequence[str], first: str | None, sites: Sequence[Site]
) -> list[list[str]]:
    """Returns the BatchNorms to estimate again before each site is fitted, and, as the last list, after the last site.

    A repair aims at the unmodified model, so statistics are estimated once everything before them is final. A BatchNorm
    that is fitted together with a layer is left out. All lists are in execution order.

    order: the modules of the model in execution order.
    first: the first layer that a cut has changed; BatchNorms before it keep their statistics. None keeps all.
    """
    start = len(order) if first is None else order.index(first)
    fitted = {site.joint.norm for site in sites}
    norms = [name for name in batch_norms(model) if order.count(name) == 1 and name not in fitted]
    places = sorted(place for place in map(order.index, norms) if place > start)
    ends = [*(order.index(site.layer) for site in sites), len(order)]
    lists: list[list[str]] = [[] for _ in ends]
    for place in places:
        lists[next(number for number, end in enumerate(ends) if place < end)].append(order[place])
    return lists


def _noting_small(too_few: set[int]):  # type: ignore[no-untyped-def]
    """Returns a hook that puts a layer with one value per channel into eval mode, as torch requires, and notes it."""

    def before(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() == args[0].shape[1]:
            norm.training = False
            too_few.add(id(norm))

    return before
