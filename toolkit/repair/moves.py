"""Moves the output of a layer, and looks whether the stream moves with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture

TOLERANCE = 1e-3  # share of the largest compared value by which equal values may differ


@contextmanager
def shifted(module: nn.Module, shift: Tensor | float) -> Iterator[None]:
    """Adds `shift` to the module's output for the length of the `with`."""
    handle = module.register_forward_hook(lambda _, __, output: output + shift)
    try:
        yield
    finally:
        handle.remove()


def moved_stream(
    model: nn.Module, module: nn.Module, move: Tensor, point: ActivationPoint, inputs: Inputs
) -> Tensor | None:
    """Returns the stream at `point` with the module's output moved; None if the moved values lead elsewhere."""
    with shifted(module, move):
        return capture(model, inputs, {point}).get(point)


def move_like(output: Tensor, seed: int = 0) -> Tensor:
    """Returns a random move of the size of an output's standard deviation; a seed always gives the same one."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(output.shape, generator=generator).to(output) * output.std().clamp(min=1e-3)


def moved_by(move: Tensor, difference: Tensor) -> bool:
    """Returns whether a stream changed by exactly the move that was added to a layer's output."""
    return bool((difference - move).abs().max() <= TOLERANCE * move.abs().max())
