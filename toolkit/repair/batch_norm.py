"""BatchNorm statistics after a cut: estimated again on calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.site import Site


def batch_norms(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Returns those that keep running statistics, by name."""
    kind = nn.modules.batchnorm._BatchNorm
    named = model.named_modules()
    return {name: one for name, one in named if isinstance(one, kind) and one.running_mean is not None}


@torch.no_grad()
def reestimate_batch_norms(model: nn.Module, batches: Iterable[Inputs], names: Sequence[str] | None = None) -> int:
    """Replaces running means and variances by their plain averages over the batches; returns the number of layers.

    names: the layers that are estimated again, in execution order, each of which runs once; the passes end behind the
        last of them. None: all layers.

    Everything but BatchNorm stays in eval mode. A layer that sees one value per channel keeps what it has.
    """
    there = batch_norms(model)
    norms = [there[name] for name in (there if names is None else names)]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    old = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
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
            for norm, momentum, before in zip(norms, momenta, old, strict=True):
                norm.momentum = momentum
                if id(norm) in too_few or not norm.num_batches_tracked:
                    norm.load_state_dict(before, strict=False)
    return sum(id(norm) not in too_few for norm in norms)


def norms_to_reestimate(
    model: nn.Module, order: Sequence[str], first: str | None, sites: Sequence[Site]
) -> list[list[str]]:
    """Returns which BatchNorms to estimate again before each site is fitted, and, as the last list, after all are.

    A repair aims at the unmodified model, so statistics are taken when everything before them is as it will stay. Those
    before `first`, the first layer that a cut has changed, hold as they are (None: all do); those that are fitted with
    a layer are that layer's. All lists are in execution order.
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
    """torch refuses to normalise one value per channel: such a layer runs in eval mode, and is noted."""

    def before(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() == args[0].shape[1]:
            norm.training = False
            too_few.add(id(norm))

    return before
