"""Makes changes of single channels in tensors, and finds the channels in which two tensors differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Mask = Tensor  # bool [channels]

_FAR = 50.0


def perturbed(value: Tensor, chosen: Mask, dim: int, sign: float) -> Tensor:
    """Returns a copy whose chosen channels are moved far enough to wake activations that cut off what is below zero."""
    moved = value.movedim(dim, -1).clone()
    steps = 1.0 + torch.arange(moved.numel() // moved.shape[-1]).to(value) / moved.numel()  # not the same everywhere
    moved[..., chosen] += sign * _FAR * value.abs().amax().clamp(min=1.0) * steps.reshape(*moved.shape[:-1], 1)
    return moved.movedim(-1, dim)


def changed(new: Tensor, old: Tensor, dim: int) -> Mask:
    """Returns the channels along `dim` that differ anywhere; all of them if the shapes differ."""
    if new.shape != old.shape:
        return torch.ones(new.shape[dim], dtype=torch.bool)
    return (new != old).transpose(0, dim).flatten(1).any(1).cpu() if new.ndim > 1 else (new != old).cpu()


def differ(new: list[Tensor], old: list[Tensor]) -> bool:
    """Says whether two lists of tensors differ in length or in any number."""
    return len(new) != len(old) or any(not torch.equal(one, other) for one, other in zip(new, old, strict=True))


def cloned(value: Any) -> Any:
    """Returns a layer's output with its tensors copied, because models may change an output in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(cloned(part) for part in value)
    if isinstance(value, dict):
        for key in value:
            value[key] = cloned(value[key])
    return value
