"""Nets whose blocks return more than their stream: a mask beside it, in every container, an object, or a loss."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

C = 8

Pair = namedtuple("Pair", ("x", "mask"))


@dataclass(frozen=True)
class State:
    x: Tensor
    mask: Tensor


class Cache:
    """Something that only the model knows: it is handed from block to block."""


class Work(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(C, C)

    def work(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x)) * mask[..., None]


class Positional(Work):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.work(x, mask), mask.clone()


class MaskFirst(Work):
    def forward(self, mask: Tensor, x: Tensor) -> Any:
        return mask, self.work(x, mask)


class InDict(Work):
    def forward(self, state: dict[str, Tensor]) -> Any:
        return {"mask": state["mask"] & True, "x": self.work(state["x"], state["mask"])}


class InDictBesideANumber(Work):
    def forward(self, _: int, state: dict[str, Tensor]) -> Any:
        return {"x": self.work(**state), "mask": state["mask"]}


class InDictFromPlain(Work):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return {"x": self.work(x, mask), "mask": mask}


class InList(Work):
    def forward(self, mask: Tensor, x: Tensor) -> Any:
        return [mask, self.work(x, mask)]


class InDataclass(Work):
    def forward(self, state: State) -> Any:
        return State(self.work(state.x, state.mask), state.mask)


class InNamedTuple(Work):
    def forward(self, state: Pair) -> Any:
        return Pair(self.work(state.x, state.mask), state.mask)


class NamedTupleFromPlain(Work):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return Pair(self.work(x, mask), mask)


class DataclassFromPlain(Work):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return State(self.work(x, mask), mask)


class WithCache(Work):
    def forward(self, x: Tensor, mask: Tensor, cache: Cache) -> Any:
        assert isinstance(cache, Cache)
        return self.work(x, mask), mask, cache


class WithLoss(Work):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.work(x, mask), self.layer.weight.square().sum()


class Nested(Work):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return (self.work(x, mask), mask), 0


class Chain(nn.Module):
    """Ids [B, T] -> [B, T, C]: `step` calls a block with the state (x, mask) and reads the next one of its output."""

    def __init__(self, block: Callable[[], nn.Module], step: Callable[..., Any], outputs: int = 1) -> None:
        super().__init__()
        self.embed, self.blocks, self.step = nn.Embedding(9, C), nn.ModuleList(block() for _ in range(3)), step
        self.outputs = outputs

    def forward(self, ids: Tensor) -> Any:
        state: tuple[Any, ...] = self.embed(ids), ids != 0
        total: list[Any] = []
        for block in self.blocks:
            state = self.step(block, *state, total)
        return (state[0], *total)[: self.outputs]


def through_dict(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> tuple[Tensor, Tensor]:
    out = block({"mask": mask, "x": x})
    return out["x"], out["mask"]


def through_dataclass(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> tuple[Tensor, Tensor]:
    out = block(State(x, mask))
    assert isinstance(out, State)
    return out.x, out.mask


def through_named_tuple(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> tuple[Tensor, Tensor]:
    out = block(Pair(x, mask))
    assert isinstance(out, Pair)
    return out


def by_attribute(block: nn.Module, x: Tensor, mask: Tensor, _: list[Any]) -> tuple[Tensor, Tensor]:
    out = block(x, mask)
    return out.x, out.mask


def adding_losses(block: nn.Module, x: Tensor, mask: Tensor, total: list[Any]) -> tuple[Tensor, Tensor]:
    x, loss = block(x, mask)
    total.append(loss + 1)
    return x, mask


def collecting(block: nn.Module, x: Tensor, mask: Tensor, total: list[Any]) -> tuple[Tensor, Tensor]:
    x, loss = block(x, mask)
    total.append(loss)
    return x, mask
