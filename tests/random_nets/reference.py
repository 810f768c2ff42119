"""What a cut net has to compute, by an implementation of its own, and how many multiply-adds that takes.

Which channels of which layer are gone is read off the weights of the narrow net: all weights of a random net are
unlike, so that a weight that is left tells its row and its column in the wide one. The wide net then runs its own
forward code on `Masked` tensors, in which what is gone is zero and takes part in no statistics. This is independent of
the toolkit: no group, slot, probe or proof of it is used, and the forward code that is run is the one that was written
for the wide net, with its numbers of heads and channels as they were.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.random_nets.masked import Marks, Masked, Pass, UnlikeMarksError
from tests.random_nets.masked_operators import of_torch


class Passing(nn.Module):
    """Stands where a block was: hands on what the generator's class says is left without the block's work."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.without = block.without

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.without(*args, **kwargs)  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class Expected:
    """outputs: all tensors that the net puts out, in order. macs: multiply-adds of one example."""

    outputs: list[Tensor]
    macs: int


def expected_of(wide: nn.Module, narrow: nn.Module, gone: Sequence[str], inputs: tuple[Tensor, ...]) -> Expected:
    """gone: the blocks that were dropped.

    Raises:
        UnlikeMarksError: the layers of the narrow net do not fit together.
    """
    whole = copy.deepcopy(wide)
    for name in gone:
        parent, _, leaf = name.rpartition(".")
        setattr(whole.get_submodule(parent), leaf, Passing(whole.get_submodule(name)))
    for module in whole.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.forward = partial(of_torch, module.forward)  # type: ignore[method-assign]
    run = Pass(marks_of(whole, narrow))
    with torch.no_grad():
        found = list(tensors_of(whole(*(Masked.of(part, torch.tensor(True), run) for part in inputs))))
    if not all(bool(part.alive.all()) for part in found):
        raise UnlikeMarksError("a channel of the outputs is gone")
    return Expected([part.value for part in found], run.macs // len(inputs[0]))


def tensors_of(value: Any) -> Iterator[Any]:
    """Yields the tensors, marked or not, in a structure of outputs."""
    if isinstance(value, (Tensor, Masked)):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))
    else:
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_of(part)


def marks_of(wide: nn.Module, narrow: nn.Module) -> dict[int, Marks]:
    """Returns what is left of each parameter of the wide net, by its id."""
    left = dict(narrow.named_parameters(remove_duplicate=False))
    return {
        id(part): marks_in(part.detach(), left[name].detach(), name)
        for name, part in wide.named_parameters(remove_duplicate=False)
        if name in left
    }


def marks_in(wide: Tensor, narrow: Tensor, name: str) -> Marks:
    """Which indices of each dimension of `wide` are left in `narrow`, whose numbers are among those of `wide`."""
    if wide.shape == narrow.shape:
        assert torch.equal(wide, narrow), f"{name} has other numbers"
        return tuple(torch.ones(size, dtype=torch.bool) for size in wide.shape)
    values, order = wide.flatten().sort()
    assert bool((values[1:] > values[:-1]).all()), f"{name} has equal numbers, the generator is at fault"
    places = torch.searchsorted(values, narrow.flatten()).clamp(max=len(values) - 1)
    assert torch.equal(values[places], narrow.flatten()), f"{name} has numbers that were not there"
    indices = torch.unravel_index(order[places], wide.shape)
    marks = [
        torch.zeros(size, dtype=torch.bool).index_fill(0, one, True)
        for size, one in zip(wide.shape, indices, strict=True)
    ]
    again = wide
    for dim, mark in enumerate(marks):
        again = again.index_select(dim, mark.nonzero()[:, 0])
    assert again.shape == narrow.shape and torch.equal(again, narrow), f"{name} is in another order"
    return tuple(marks)
