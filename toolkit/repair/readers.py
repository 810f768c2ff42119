"""Finds which modules read the output of another: moves the output while the output of one reader is held."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.held import attributes_kept
from toolkit.hooks.modes import without_fast_path
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.hooks.tensors import copied, map_tensors, stream_in, tensors_in

NOISE = 1e-5  # share of an output's largest value by which two equal passes may differ


@torch.no_grad()
def reads_alone(model: nn.Module, reader: str, source: str, inputs: Inputs) -> bool:
    """Returns whether nothing but `reader` reads the output of `source`, as far as the model's outputs show.

    The first tensor that `source` returns is moved at random while `reader` returns what it did before: the outputs of
    the model must not change. Both modules must run once.
    """
    recorded: list[Any] = []

    def record(_: nn.Module, __: object, output: Any) -> None:
        recorded.append(copied(output))

    with (
        attributes_kept(model),
        without_fast_path(),
    ):  # the fast path depends on hooks, and its results differ slightly
        handle = model.get_submodule(reader).register_forward_hook(record)
        try:
            outputs = [value.clone() for value in tensors_in(model(*inputs))]
        finally:
            handle.remove()
        if len(recorded) != 1:
            return False
        with _moved(model.get_submodule(source)), _held(model.get_submodule(reader), recorded[0]):
            moved_outputs = tensors_in(model(*inputs))
    return len(outputs) == len(moved_outputs) and all(map(_are_alike, outputs, moved_outputs))


def in_line(model: nn.Module, blocks: Collection[str], inputs: Inputs, order: Sequence[str]) -> set[str]:
    """Returns the blocks that continue the stream of the module that runs right before them, and alone read it.

    Other blocks are the first of another branch, which may run right after the last block of this branch, and blocks
    whose stream a head reads too.

    order: the modules of the model in execution order.
    """
    return {block for block in blocks if _continues(model, block, inputs, order)}


def _continues(model: nn.Module, block: str, inputs: Inputs, order: Sequence[str]) -> bool:
    if block not in order or order.index(block) == 0:
        return False
    parts = order[order.index(block) - 1].split(".")
    ending = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    sources = [name for name in ending if order.count(name) == 1 and not block.startswith(f"{name}.")]
    entry, outputs = ActivationPoint(block, "input"), {name: ActivationPoint(name, "output") for name in sources}
    unmoved = capture(model, inputs, {entry, *outputs.values()})
    for name in sources:
        if outputs[name] not in unmoved or entry not in unmoved or unmoved[outputs[name]].shape != unmoved[entry].shape:
            continue
        with _moved(model.get_submodule(name)):
            moved = capture(model, inputs, {entry})[entry]
        if not torch.equal(unmoved[entry], moved):
            return reads_alone(model, block, name, inputs)
    return False


@contextmanager
def _moved(module: nn.Module) -> Iterator[None]:
    """Adds noise of the size of its standard deviation to the stream that the module returns."""

    def move(_: nn.Module, __: object, output: Any) -> Any:
        stream = stream_in(output)
        return map_tensors(lambda tensor: _noisy(tensor) if id(tensor) == id(stream) else tensor, output)

    handle = module.register_forward_hook(move)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _held(module: nn.Module, output: Any) -> Iterator[None]:
    handle = module.register_forward_hook(lambda *_: copied(output))
    try:
        yield
    finally:
        handle.remove()


def _noisy(tensor: Tensor) -> Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)
    spread = tensor.std(correction=0) if tensor.is_floating_point() else tensor.new_ones(())
    return tensor + noise * spread.clamp(min=1e-3)


def _are_alike(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or not first.is_floating_point() or not first.numel():
        return torch.equal(first, second)
    first, second = (
        value.nan_to_num(0.0, 0.0, 0.0) for value in (first, second)
    )  # a fit reports values that are not finite
    return bool((first - second).abs().max() <= NOISE * first.abs().max())
