"""BatchNorm statistics after a cut: estimated again on calibration data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import Inputs


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Those that keep running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, kind) and module.running_mean is not None]


@torch.no_grad()
def reestimate_batch_norms(model: nn.Module, batches: Iterable[Inputs]) -> int:
    """Replace running means and variances by their plain averages over the batches; the number of layers changed.

    Everything but BatchNorm stays in eval mode. A layer that sees one value per channel keeps what it has.
    """
    norms = batch_norms(model)
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
                model(*inputs)
        finally:
            for handle in handles:
                handle.remove()
            for norm, momentum, before in zip(norms, momenta, old, strict=True):
                norm.momentum = momentum
                if id(norm) in too_few or not norm.num_batches_tracked:
                    norm.load_state_dict(before, strict=False)
    return sum(id(norm) not in too_few for norm in norms)


def _noting_small(too_few: set[int]):  # type: ignore[no-untyped-def]
    """torch refuses to normalise one value per channel: such a layer runs in eval mode, and is noted."""

    def before(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() == args[0].shape[1]:
            norm.training = False
            too_few.add(id(norm))

    return before
