"""Tensors that know which of their numbers are left, so that a wide net's own forward code computes what a cut must.

A number that is not left is zero and takes part in nothing: not in sums, not in the statistics of norms, not in a
softmax. What a layer makes is left where its output was not removed. Everything follows from that by ordinary tensor
operations: `reshape`, `chunk` or `cat` move the marks as they move the numbers. Nothing here knows of groups of
channels, and nothing is imported from the toolkit, so that a fault there cannot repeat itself here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Marks = tuple[Tensor, ...]  # for each dimension of a parameter, bool [size]: which indices are left


class UnlikeMarksError(Exception):
    """Two tensors that are combined, or a tensor and the layer that reads it, have different channels left."""


@dataclass
class Pass:
    """One pass of a wide net. kept: what is left of a parameter, by its id. macs: multiply-adds of what is left."""

    kept: Mapping[int, Marks]
    macs: int = 0

    def kept_of(self, weight: Tensor) -> Marks:
        everything = tuple(torch.ones(size, dtype=torch.bool) for size in weight.shape)
        return self.kept.get(id(weight), everything)


class Masked:
    """Stands where a tensor does. alive: bool of the shape of `value`, which is zero elsewhere."""

    def __init__(self, value: Tensor, alive: Tensor, run: Pass) -> None:
        self.value, self.alive, self.run = value, alive, run

    @classmethod
    def of(cls, value: Tensor, alive: Tensor, run: Pass) -> Masked:
        alive = alive.expand(value.shape).clone()
        return cls(value.masked_fill(~alive, 0), alive, run)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return apply(func.__name__, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _DESCRIBING:
            return getattr(self.value, name)
        if name in ("mT", "T", "mH", "H"):
            return Masked(getattr(self.value, name), getattr(self.alive, name), self.run)
        return lambda *args, **kwargs: apply(name, (self, *args), kwargs)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Masked]:
        return (self[number] for number in range(len(self.value)))

    def __getitem__(self, place: Any) -> Masked:
        return Masked(self.value[place], self.alive[place], self.run)

    def __setitem__(self, place: Any, other: Any) -> None:
        self[place].replace(other if isinstance(other, Masked) else Masked.of(other, torch.tensor(True), self.run))

    def replace(self, new: Masked) -> None:
        """In place, as is seen by every view of this tensor."""
        self.value.copy_(new.value)
        self.alive.copy_(new.alive)


_DESCRIBING = frozenset("shape dtype device ndim size dim numel is_floating_point is_contiguous stride".split())  # noqa: SIM905


def _operator(name: str, is_reversed: bool = False) -> Callable[..., Any]:
    return lambda self, other: apply(name, (other, self) if is_reversed else (self, other), {})


for _name, _base in {"truediv": "div", **{name: name for name in ("add", "sub", "mul", "pow", "matmul")}}.items():
    setattr(Masked, f"__{_name}__", _operator(_base))
    setattr(Masked, f"__r{_name}__", _operator(_base, is_reversed=True))
    setattr(Masked, f"__i{_name}__", _operator(f"{_base}_"))
Masked.__neg__ = lambda self: apply("neg", (self,), {})  # type: ignore[attr-defined]

_ALIKE = {"truediv": "div", "multiply": "mul", "concat": "cat", "concatenate": "cat"}

MOVING = frozenset(
    """
    reshape view flatten unflatten permute transpose movedim squeeze unsqueeze expand chunk split unbind narrow select
    repeat repeat_interleave roll flip contiguous clone detach pixel_shuffle channel_shuffle index_select expand_as
    tile
    """.split()  # noqa: SIM905
)

POINTWISE = frozenset(
    """
    relu relu6 gelu silu sigmoid tanh softplus hardswish hardtanh hardsigmoid leaky_relu elu mish prelu add sub mul div
    neg pow exp sqrt rsqrt abs square where masked_fill clamp clamp_min maximum addcmul lerp double type_as to
    batch_norm instance_norm
    """.split()  # noqa: SIM905
)

HANDLERS: dict[str, Callable[..., Any]] = {}


def handles(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function (the pass, then the arguments of the operator) as what an operator does with marked tensors."""

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(names, function))
        return function

    return note


def apply(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns what the operator called `name` does where some arguments are `Masked`."""
    is_in_place = (name.endswith("_") and not name.startswith("_")) or bool(kwargs.get("inplace"))
    given = {key: value for key, value in kwargs.items() if key != "inplace"}
    base = name.strip("_")
    base = _ALIKE.get(base, base)
    run = next(masked_in((*args, *given.values()))).run
    if base in HANDLERS:
        found = HANDLERS[base](run, *args, **given)
    elif base in MOVING:
        found = _moved(base, args, given, run)
    elif base in POINTWISE:
        found = pointwise(_function(F, torch, Tensor, name=base), args, given, run)
    else:
        raise NotImplementedError(f"the generator uses {name}, which marked tensors do not know yet")
    if is_in_place:
        args[0].replace(found)
        return args[0]
    return found


def masked_in(values: Any) -> Iterator[Masked]:
    """Yields the marked tensors among arguments, and in lists and tuples of them."""
    for value in values:
        if isinstance(value, Masked):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from masked_in(value)


def with_parts(values: Any, part: str) -> Any:
    """The arguments with the numbers, or the marks, in the place of marked tensors."""
    if isinstance(values, Masked):
        return getattr(values, part)
    if isinstance(values, (list, tuple)) and type(values) in (list, tuple):
        return type(values)(with_parts(value, part) for value in values)
    return values


def _function(*places: Any, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = next(getattr(place, name) for place in places if hasattr(place, name))
    return found


def _moved(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], run: Pass) -> Any:
    function = _function(Tensor, F, torch, name=name)
    values, alive = (function(*with_parts(args, part), **kwargs) for part in ("value", "alive"))
    if isinstance(values, Tensor):
        return Masked(values, alive, run)
    return tuple(Masked(value, mark, run) for value, mark in zip(values, alive, strict=True))


def pointwise(
    function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any], run: Pass, what: str = ""
) -> Masked:
    """A number is left where it is left in all arguments; these must agree, but for dimensions that are broadcast."""
    value = function(*with_parts(args, "value"), **{key: with_parts(one, "value") for key, one in kwargs.items()})
    parts = list(masked_in((*args, *kwargs.values())))
    alive = torch.ones(value.shape, dtype=torch.bool)
    for part in parts:
        alive &= part.alive
    for part in parts[1:]:
        _agree(parts[0].alive, part.alive, what or getattr(function, "__name__", "?"))
    return Masked.of(value, alive, run)


def _agree(one: Tensor, other: Tensor, what: str) -> None:
    rank = max(one.ndim, other.ndim)
    one, other = (part.reshape((1,) * (rank - part.ndim) + tuple(part.shape)) for part in (one, other))
    for dim in range(rank):
        if one.shape[dim] != other.shape[dim]:
            one, other = one.any(dim, keepdim=True), other.any(dim, keepdim=True)
    if not torch.equal(one, other):
        raise UnlikeMarksError(f"{what} of tensors with different channels left")
