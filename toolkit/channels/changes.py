"""Changes single channels of tensors, and finds the channels in which two tensors differ."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

from toolkit.hooks.tensors import same, unlike

Mask = Tensor  # bool [channels]

_FAR = 50.0


def perturbed(value: Tensor, chosen: Mask, dim: int, sign: float) -> Tensor:
    """Returns a copy of `value` with the chosen channels changed.

    The change is large enough to pass activations that cut off negative values.

    chosen: bool [channels].
    dim: dimension of the channels.
    sign: 1 or -1, the direction of the change.
    """
    moved = value.movedim(dim, -1).clone()
    steps = (
        1.0 + torch.arange(moved.numel() // moved.shape[-1]).to(value) / moved.numel()
    )  # another step at each position
    largest = value.abs().nan_to_num(0.0, 0.0, 0.0).amax() if value.is_floating_point() else value.abs().amax()
    moved[..., chosen] += sign * _FAR * largest.clamp(min=1.0) * steps.reshape(*moved.shape[:-1], 1)
    return moved.movedim(-1, dim)


def with_noise(value: Any, seed: str) -> Any:
    """Returns a layer's output with noise, so that no two of its numbers are equal.

    The noise is a tenth of the standard deviation; for an output of equal numbers it has the size of these, and size 1
    if they are zero.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return value
    finite = value[value.isfinite()]
    spread = finite.std(correction=0) / 10 if finite.numel() else value.new_ones(())
    size = spread if bool(spread > 0) else finite.abs().amax() if bool(finite.any()) else value.new_ones(())
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    return value + size * torch.randn(value.shape, generator=generator).to(value)


def changed(new: Tensor, old: Tensor, dim: int) -> Mask:
    """Returns, as bool [channels], the channels along `dim` that differ anywhere; all channels if the shapes differ."""
    if new.shape != old.shape:
        return torch.ones(new.shape[dim], dtype=torch.bool)
    moved = unlike(new, old)
    return moved.transpose(0, dim).flatten(1).any(1).cpu() if new.ndim > 1 else moved.cpu()


def differ(new: list[Tensor], old: list[Tensor]) -> bool:
    """Says whether two lists of tensors differ in length or in any number; two NaN are equal."""
    return not same(new, old)


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
