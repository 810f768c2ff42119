"""How a block hands back its tensor, so that a stand-in can hand it back in the same way.

What came in with the same place and shape goes out: of a block that returns (x, mask) the stand-in hands on the mask
that it was given. What nothing that came in can take the place of is None.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from toolkit.base.settings import Settings
from toolkit.hooks.tensors import entries_of, equal, rebuilt, stream_in, tensors_in

Place = tuple[int | str, ...]  # number or name of an argument, and then the number or key of a part of it

_MOST_ENTRIES = 64


class HandedOn(Settings):
    """Entry number `at` of an output is what came in at `place`."""

    at: Annotated[int, Field(ge=0, lt=_MOST_ENTRIES)]
    place: Annotated[Place, Field(min_length=1, max_length=2)]


class OutputStructure(Settings):
    """How a block hands back its tensor: alone, or at `index` of `length` outputs, named by `keys` if they have names.

    handed: the entries that the block was given. like: the argument that is a container of the output's own type, of
    which a copy goes out; the types of other containers with names are not kept, their names are.
    """

    later: ClassVar[frozenset[str]] = frozenset({"handed", "like"})

    kind: Literal["tensor", "tuple", "list", "mapping", "named_tuple", "dataclass"] = "tensor"
    length: Annotated[int, Field(ge=1, le=_MOST_ENTRIES)] = 1
    index: Annotated[int, Field(ge=0, lt=_MOST_ENTRIES)] = 0
    keys: tuple[str, ...] = ()
    handed: tuple[HandedOn, ...] = ()
    like: int | str | None = None

    @classmethod
    def of(
        cls, output: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, names: Sequence[str] = ()
    ) -> tuple[OutputStructure, Tensor] | None:
        """Returns the structure and the stream of an output, as the block returns it when it is called with these.

        None when the output cannot be rebuilt, or has no tensor. names: what the block calls its positional arguments.
        """
        if isinstance(output, Tensor):
            return cls(), output
        kind, found = _kind_of(output), entries_of(output)
        stream = stream_in(found[1]) if found is not None else None
        if kind is None or found is None or len(found[1]) > _MOST_ENTRIES:
            return None
        keys, entries = found
        index = next((at for at, entry in enumerate(entries) if entry is stream), None)
        if stream is None or index is None or (kind not in ("tuple", "list") and not all(map(_is_name, keys))):
            return None
        named = keys if kind not in ("tuple", "list") else ()
        given = list(_given(args, kwargs or {}))
        entering = stream_in((args, kwargs or {}))
        others = [(place, value) for place, value in given if value is not entering]
        handed = []
        for at, entry in enumerate(entries):
            place = (
                None if at == index or entry is None else _source(entry, at, named[at : at + 1], others, names, args)
            )
            if place is not None:
                handed.append({"at": at, "place": place})
        like = next((place[0] for place, one in given if _is_like(one, output) and len(place) == 1), None)
        made = {"kind": kind, "length": len(entries), "index": index, "keys": named, "handed": handed, "like": like}
        return cls.model_validate(made, strict=False), stream

    def lost(self, output: Any) -> list[int | str]:
        """Returns where an output of the block has something that a stand-in has nothing for."""
        found = entries_of(output)
        if isinstance(output, Tensor) or found is None:
            return []
        there = {self.index, *(one.at for one in self.handed)}
        return [
            key for at, (key, entry) in enumerate(zip(*found, strict=True)) if entry is not None and at not in there
        ]

    @property
    def keeps_its_type(self) -> bool:
        return self.kind in ("tensor", "tuple", "list") or self.like is not None

    def wrap(self, tensor: Tensor, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """`tensor` in this structure, beside what is handed on; every other entry is None."""
        if self.kind == "tensor":
            return tensor
        given = kwargs or {}
        known = {one.at: _at(one.place, args, given) for one in self.handed} | {self.index: tensor}
        entries = [known.get(at) for at in range(self.length)]
        if self.like is not None:
            return rebuilt(_at((self.like,), args, given), entries)
        if self.kind == "mapping":
            return _NamedOutputs(zip(self.keys, entries, strict=True))
        if self.kind in ("named_tuple", "dataclass"):
            return _named(self.kind, self.keys)(*entries)
        return tuple(entries) if self.kind == "tuple" else entries


def _kind_of(output: Any) -> str | None:
    if isinstance(output, Mapping):
        return "mapping"
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return "named_tuple"
    if type(output) in (tuple, list):
        return type(output).__name__
    return "dataclass" if dataclasses.is_dataclass(output) and not isinstance(output, type) else None


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _is_like(one: Any, output: Any) -> bool:
    """Whether an argument is a container with names of the output's type and with the same names."""
    if type(one) is not type(output) or _kind_of(output) in ("tuple", "list", None):
        return False
    first, second = entries_of(one), entries_of(output)
    return first is not None and second is not None and first[0] == second[0]


def _given(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """All arguments, and the parts of those that are containers, with their places."""
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for name, value in arguments:
        yield (name,), value
        found = entries_of(value)
        for key, part in zip(*found, strict=True) if found is not None else ():
            if isinstance(key, int | str):
                yield (name, key), part


def _source(
    entry: Any,
    at: int,
    key: Sequence[str],
    given: Iterable[tuple[Place, Any]],
    names: Sequence[str],
    args: Sequence[Any],
) -> Place | None:
    """Where an entry of the output came in: the same object, else what has the same place and shape, else what has the
    same numbers."""
    given = list(given)
    same = [place for place, value in given if value is entry and not isinstance(entry, bool | int | float | str)]
    alike = [(place, value) for place, value in given if _is_alike(value, entry)]
    in_place = [place for place, _ in alike if _is_place(place, at, key, names, args)]
    equals = [place for place, value in alike if isinstance(value, Tensor) and equal(value, entry)]
    return next(iter((*same, *in_place, *equals)), None)


def _is_place(place: Place, at: int, key: Sequence[str], names: Sequence[str], args: Sequence[Any]) -> bool:
    """Whether an argument, or a part of one, has the number or the name of an entry of the output."""
    last = place[-1]
    called = names[last] if len(place) == 1 and isinstance(last, int) and last < len(names) else last
    if key:
        return called == key[0]
    if len(place) == 1 and isinstance(last, str) and last in names:
        return names.index(last) == at
    return last == at


def _is_alike(value: Any, entry: Any) -> bool:
    """Whether two values hold tensors of the same shapes and types, or are the same plain value."""
    if type(value) is not type(entry):
        return False
    first, second = tensors_in(value), tensors_in(entry)
    if not second:
        return isinstance(entry, bool | int | float | str) and value == entry
    return [(one.shape, one.dtype) for one in first] == [(one.shape, one.dtype) for one in second]


def _at(place: Place, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What came in at a place. Raises LookupError where nothing did."""
    value = args[place[0]] if isinstance(place[0], int) else kwargs[place[0]]
    if len(place) == 1:
        return value
    found = entries_of(value)
    if found is None:
        raise LookupError(f"argument {place[0]} of a dropped block has no part {place[1]}")
    return dict(zip(*found, strict=True))[place[1]]


@cache
def _named(kind: str, keys: tuple[str, ...]) -> Any:
    """A type with these names, in the place of one that a saved model cannot name."""
    return namedtuple("Outputs", keys) if kind == "named_tuple" else dataclasses.make_dataclass("Outputs", keys)


class _NamedOutputs(dict[str, Any]):
    """A mapping that can also be read by attribute and by place, as the model outputs of transformers are."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]
