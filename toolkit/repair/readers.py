"""Who reads what a module puts out: found by moving it while what one reader makes of it is held."""

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

NOISE = 1e-5  # of the largest value of an output: what two equal passes may differ by


@torch.no_grad()
def reads_alone(model: nn.Module, reader: str, source: str, inputs: Inputs) -> bool:
    """Whether nothing but `reader` reads what `source` puts out, as far as the outputs of the model show.

    The first tensor of `source` is moved at random; while `reader` hands back what it did before, the outputs of the
    model must stay. Both modules run once.
    """
    kept: list[Any] = []

    def keep(_: nn.Module, __: object, output: Any) -> None:
        kept.append(copied(output))

    with (
        attributes_kept(model),
        without_fast_path(),
    ):  # the path depends on hooks, and it computes a little else
        handle = model.get_submodule(reader).register_forward_hook(keep)
        try:
            before = [value.clone() for value in tensors_in(model(*inputs))]
        finally:
            handle.remove()
        if len(kept) != 1:
            return False
        with _moved(model.get_submodule(source)), _held(model.get_submodule(reader), kept[0]):
            after = tensors_in(model(*inputs))
    return len(before) == len(after) and all(map(_are_alike, before, after))


def in_line(model: nn.Module, blocks: Collection[str], inputs: Inputs, order: Sequence[str]) -> set[str]:
    """Returns the blocks that continue the stream of the module that runs right before them, and that alone read it.

    The first block of another branch of the network may run right behind this branch's last one, and a head may read
    the stream before a block too.

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
    before = capture(model, inputs, {entry, *outputs.values()})
    for name in sources:
        if outputs[name] not in before or entry not in before or before[outputs[name]].shape != before[entry].shape:
            continue
        with _moved(model.get_submodule(name)):
            after = capture(model, inputs, {entry})[entry]
        if not torch.equal(before[entry], after):
            return reads_alone(model, block, name, inputs)
    return False


@contextmanager
def _moved(module: nn.Module) -> Iterator[None]:
    """The stream that the module puts out is moved by noise of the size of its spread."""

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
    first, second = (value.nan_to_num(0.0, 0.0, 0.0) for value in (first, second))  # whoever fits says what is broken
    return bool((first - second).abs().max() <= NOISE * first.abs().max())
