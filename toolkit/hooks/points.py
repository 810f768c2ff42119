"""Watches points of a network while it runs: the input or the output of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from toolkit.hooks.held import attributes_kept
from toolkit.hooks.tensors import stream_in

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class ActivationPoint:
    """Names an activation: the first floating-point tensor of the input or of the output of a module.

    side: "input" or "output".
    """

    module: str
    side: str


class _AllSeenError(Exception):
    """Ends a forward pass once all points have been seen."""


@contextmanager
def watched(
    model: nn.Module,
    points: Iterable[ActivationPoint],
    note: Callable[[ActivationPoint, Tensor], None],
    *,
    live: bool = False,
) -> Iterator[None]:
    """Calls `note(point, stream)` whenever a forward pass reaches one of the points; see `stream_in`.

    live: `note` gets the tensor itself, with its gradient, instead of a detached copy.
    """

    def look(point: ActivationPoint, value: object) -> None:
        stream = stream_in(value)
        if stream is not None:
            note(point, stream if live else stream.detach().clone())  # models may change an activation in place

    handles: list[RemovableHandle] = []
    for point in points:
        module = model.get_submodule(point.module)
        if point.side == "input":
            hook = partial(_before, look=partial(look, point))
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(lambda _, __, out, p=point: look(p, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], look: Callable[[object], None]) -> None:
    look((*args, *kwargs.values()))


@torch.no_grad()
def capture(model: nn.Module, inputs: Inputs, points: Iterable[ActivationPoint]) -> dict[ActivationPoint, Tensor]:
    """Returns the activations at `points` for one batch of inputs; the pass ends once every point has been reached."""
    seen: dict[ActivationPoint, Tensor] = {}
    wanted = set(points)

    def note(point: ActivationPoint, value: Tensor) -> None:
        seen[point] = value
        if len(seen) == len(wanted):
            raise _AllSeenError

    with watched(model, wanted, note), attributes_kept(model), suppress(_AllSeenError):
        model(*inputs)
    return seen
