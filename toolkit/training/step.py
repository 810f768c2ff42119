"""Takes one step of a training, and names what goes wrong in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.trial import described, users_code
from toolkit.tasks.task import Batch
from toolkit.training.start import put_tensors

Loss = Callable[[nn.Module, Batch], Tensor]


class BrokenTrainingError(StageError):
    """Says that a loss, a gradient or an output is infinite or NaN, so that no further step makes sense."""


def check_trainable(model: nn.Module) -> None:
    """Checks that at least one parameter may be trained.

    Raises:
        StageError: all of them are frozen.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise StageError(
            "there is nothing to train: all parameters of the model are frozen (requires_grad is False); unfreeze some "
            "in the trained model that the task was made of, or leave this stage out"
        )


def training_step(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    gradient_clip: float,
) -> float:
    """Takes one step of the optimiser, and returns the loss before it.

    gradient_clip: the largest norm of the gradient; a larger one is scaled down to it.

    Raises:
        BrokenTrainingError: the loss or the gradient is not a finite number.
        StageError: the loss is not one number, cannot be computed, or depends on no trained parameter.
    """
    model.train()
    optimiser.zero_grad(set_to_none=True)
    size = len(batch.inputs[0])
    with users_code(f"a training step on {size} example{'' if size == 1 else 's'} fails", _hint_of(size)):
        value = loss(model, batch)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise StageError(
            f"the training loss is {described(value)}; the loss of a task must be a tensor with one number"
        )
    if not torch.isfinite(value):
        raise BrokenTrainingError(f"the training loss became {value.item()}")
    if not value.requires_grad:
        raise StageError(
            "the training loss does not depend on any parameter that is trained: those that it depends on are frozen "
            "(requires_grad is False), or the forward code of the model switches gradients off"
        )
    with users_code("the gradient of the training loss cannot be computed"):
        value.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
    if not torch.isfinite(norm):
        raise BrokenTrainingError(f"the gradient of the training loss became {norm.item()}")
    optimiser.step()
    return float(value.item())


def _hint_of(size: int) -> str:
    return "; batch normalisation needs at least two examples in training: raise batch_size" if size == 1 else ""


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the averaged weights towards those of the model by `1 - decay` of the way; buffers are copied."""
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        if mean.is_floating_point() or mean.is_complex():
            mean.lerp_(weight, 1 - decay)
        else:
            mean.copy_(weight)
    put_tensors(average, dict(model.named_buffers()))
