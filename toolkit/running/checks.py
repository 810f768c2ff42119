"""Checks a stage's result: the model still runs, its outputs are sound, and something has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.modes import evaluating
from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import tensors_in


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of all parameters and buffers, by name."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def check_outputs(
    model: nn.Module,
    dense: nn.Module,
    inputs: Callable[[int], tuple[Tensor, ...]],
    smallest_batch: int = 1,
    others: Sequence[Path] = (),
) -> None:
    """Checks that the model is in eval mode and gives finite outputs of the dense model's shapes at two batch sizes.

    inputs: gives the inputs for a number of examples.
    smallest_batch: the smaller of the two batch sizes, 1 for most models; the other is one more.
    others: more ways to run the dense model, on which the outputs must have its shapes too.

    Raises:
        StageError: a check fails.
    """
    if model.training:
        raise StageError("the stage left the model in training mode")
    for batch_size in (smallest_batch, smallest_batch + 1):
        tensors = inputs(batch_size)
        with evaluating(model, dense):
            new, old = tensors_in(model(*tensors)), tensors_in(dense(*tensors))
        if not old:
            raise StageError("the dense model's outputs hold no tensor, so nothing can be checked")
        if [part.shape for part in new] != [part.shape for part in old]:
            raise StageError(f"the outputs changed shape: {[tuple(part.shape) for part in new]}")
        if not all(bool(part.isfinite().all()) for part in new):
            raise StageError("the outputs are not finite numbers")
    for path in others:
        with path.taken(model, dense):
            old = path.run(dense)
            try:
                new = path.run(model)
            except Exception as error:  # the user's code may raise anything
                raise StageError(f"the model does not run {path.words} any more: {error}") from error
        if [part.shape for part in new] != [part.shape for part in old]:
            raise StageError(f"the outputs changed shape {path.words}: {[tuple(part.shape) for part in new]}")


def check_changed(before: dict[str, Tensor], model: nn.Module, allow_no_change: bool) -> None:
    """Checks that the model's state differs from the state before the stage, unless a stage without change is allowed.

    Raises:
        StageError: nothing has changed.
    """
    after = model.state_dict()
    same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    if same and not allow_no_change:
        raise StageError(
            "the stage changed nothing (ratios are of the unmodified model); "
            "ask for more, or set allow_no_change: true if no change is what you want"
        )
